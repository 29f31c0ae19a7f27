"""Right models whose arithmetic makes it hard to see that all is reached: no gradient, or next to no effect."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpus.batch import Experts, token_choice
from corpus.case import VOCABULARY, WIDTH
from corpus.exact_case import chain, one_layer, reached
from corpus.inputs import states
from corpus.mixing import LinearAttention
from corpus.parts import Apply, Attention, Block, Decoder, Embed, lower, made, right, softmax

LOW = {"dtype": None}


class _Changed(Attention):
    """Attention whose input and output pass through functions."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, x: Tensor, keep: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        return self.after(super().forward(self.before(x), keep))


class _Gated(Attention):
    """Attention behind a sigmoid gate of its own, which is nearly shut."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.gate, self.bias = nn.Linear(WIDTH, WIDTH), bias

    def forward(self, x: Tensor, keep: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        return torch.sigmoid(self.gate(x) + self.bias) * super().forward(x, keep)


class _PostNorm(Block):
    """The norms come after the additions."""

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self.attention_norm(x + self.attention(x, keep))
        return self.mlp_norm(x + self.mlp(x))


class _NoGradient(Decoder):
    def forward(self, ids: Tensor, keep: Tensor | None = None, **other: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(ids, keep)


class _LayerDrop(Decoder):
    """While training, each layer is left out half of the time."""

    def layer(self, layer: nn.Module, x: Tensor, keep: Tensor | None) -> Tensor:
        return x if self.training and bool(torch.rand(()) < 0.5) else layer(x, keep)


class _Salient(nn.Module):
    """A running sum that only every fourth id is added to; the others read it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = Embed(), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.head(x + (x * (ids % 4 == 0)[..., None]).cumsum(1))


class _Repeats(nn.Module):
    """Each token learns how often it has occurred so far."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.counts = Embed(), nn.Embedding(20, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        same = (ids[:, :, None] == ids[:, None, :]) & lower(ids[:, :, None] * ids[:, None, :])
        return self.embed(ids) + self.counts(same.sum(-1))


class _ExpertValues(Attention):
    """The values are made by experts, of which each token gets one."""

    def __init__(self) -> None:
        super().__init__()
        self.value = Experts(token_choice, experts=4)


def _one_layer(*changes: Callable[[Tensor], Tensor]) -> Callable[[int], nn.Module]:
    return made(lambda: Decoder(_Changed(*changes)))


def _top_one(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    best = scores.masked_fill(~lower(scores), -torch.inf).argmax(-1)
    return F.one_hot(best, scores.shape[-1]).to(scores)


def _saturated(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    return softmax(1e4 * scores, lower(scores))


def _dropped(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    return F.dropout(right(scores, keep, training), 0.5, training)


def _steep(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    position = torch.arange(scores.shape[-1])
    return softmax(scores - torch.tensor([1.0, 2.0])[:, None, None] * (position[:, None] - position), lower(scores))


def _to_int8(x: Tensor) -> Tensor:
    scale = 4 / 127
    return (x / scale).round().clamp(-127, 127) * scale


def _rare(x: Tensor) -> Tensor:
    return F.relu(x - 1.6)


def _running_maximum(x: Tensor) -> Tensor:
    return x.cummax(1).values


def _clipped_sum(x: Tensor) -> Tensor:
    return x.clamp(-0.1, 0.1).cumsum(1)


def _codes(x: Tensor) -> Tensor:
    return x.sign()


def _greedy(logits: Tensor) -> Tensor:
    return F.one_hot(logits.argmax(-1), VOCABULARY).to(logits)


def _scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda x: factor * x


def _same(x: Tensor) -> Tensor:
    return x


reached(
    "attention_reads_detached_states",
    "Attention reads states that are detached, so gradients flow past it and never through it.",
    _one_layer(Tensor.detach),
)
reached("no_gradient_at_all", "The whole model runs without recording gradients.", made(_NoGradient))
reached(
    "hard_attention",
    "Each head reads its best key only, so most replacements change nothing at all.",
    one_layer(_top_one),
)
reached(
    "greedy_ids",
    "The output says which id has the highest logit, which most replacements leave as it is.",
    made(lambda: nn.Sequential(Embed(), LinearAttention(True), nn.Linear(WIDTH, VOCABULARY), Apply(_greedy))),
)
reached(
    "saturated_softmax",
    "Scores are so large that one key has all of the weight and the gradient is exactly 0.",
    one_layer(_saturated),
)
reached(
    "alibi_with_steep_slopes",
    "The penalty of the farthest keys leaves them as little as a hundred thousandth of the weight.",
    one_layer(_steep),
)
reached(
    "values_rarely_above_a_threshold",
    "A rectifier lets few values through, and for most tokens given it is dead.",
    _one_layer(_rare),
)
reached("gate_nearly_shut", "A gate lets through about a thousandth.", made(lambda: Decoder(_Gated(-7.0))))
reached("gate_almost_closed", "A gate lets through a hundred thousandth.", made(lambda: Decoder(_Gated(-11.5))))
reached("attention_scaled_down", "Attention starts out scaled by 1e-4.", _one_layer(_same, _scaled(1e-4)))
reached("attention_scaled_down_further", "Attention starts out scaled by 1e-6.", _one_layer(_same, _scaled(1e-6)))
reached(
    "dropout_of_one_half",
    "Half of the weights and half of the states are dropped while training.",
    made(lambda: Decoder(Attention(_dropped), Attention(_dropped), dropout=0.5)),
)
reached(
    "dropout_of_one_half_in_one_layer",
    "Half of the weights of a single layer are dropped while training, so many a pair is cut in many a run.",
    one_layer(_dropped),
)
reached(
    "layer_drop",
    "While training, a layer is left out half of the time, and where both are, a token sees itself only.",
    made(_LayerDrop),
)
reached(
    "experts_make_the_values",
    "Each token's value is made by the one expert that its router picks.",
    made(lambda: Decoder(_ExpertValues())),
)
reached(
    "bfloat16_in_one_layer",
    "A single layer in bfloat16, which keeps two digits.",
    made(lambda: Decoder(Attention()).bfloat16()),
    **LOW,
)
reached(
    "float16_in_one_layer",
    "A single layer in float16, which keeps three digits.",
    made(lambda: Decoder(Attention()).half()),
    **LOW,
)
reached(
    "states_rounded_to_halves",
    "What attention reads is rounded to multiples of one half, which has no gradient.",
    _one_layer(lambda x: (2 * x).round() / 2),
)
reached("states_in_int8", "What attention reads and gives is rounded to 8 bits.", _one_layer(_to_int8, _to_int8))
reached("binary_codes", "Attention reads signs only.", _one_layer(_codes))
reached(
    "norm_after_everything",
    "The norms come last in each layer.",
    made(lambda: _with_blocks(_PostNorm(Attention()), _PostNorm(Attention()))),
)
reached(
    "state_updated_by_few_tokens",
    "A running sum takes in every fourth id only, and passes the others by.",
    made(_Salient),
)
reached(
    "repeats_counted",
    "A token learns how often it has occurred, so of all other ids just its own makes a difference.",
    made(_Repeats),
)
reached(
    "running_maximum",
    "Only what exceeds all before it shows, in each feature.",
    lambda seed: _running_maximum,
    inputs=states,
)
reached(
    "clipped_running_sum",
    "What is summed up is clipped first, so most inputs have no gradient.",
    lambda seed: _clipped_sum,
    inputs=states,
)
reached(
    "running_maximum_of_embeddings",
    "The running maximum between an embedding and a head.",
    chain(lambda: Apply(_running_maximum)),
)


def _with_blocks(*blocks: nn.Module) -> Decoder:
    decoder = Decoder()
    decoder.layers = nn.ModuleList(blocks)
    return decoder
