"""Clean models that a careless audit would accuse: of their state, their rounding, or the size of the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from corpus.case import WIDTH
from corpus.inputs import causal_kept, left_padded, states
from corpus.parts import (
    Apply,
    Attention,
    Block,
    Decoder,
    aware,
    by_key,
    lower,
    made,
    mapping,
    mixing,
    softmax,
    weighing,
)
from corpus.registry import clean


class _Monitor(nn.Module):
    """Batch norm whose running statistics follow the tokens, and whose output nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        self.norm(x.detach().mT)
        return x


class _Follows(nn.Module):
    """Scales by running statistics as they were before the call, and lets them follow the batch while training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("power", torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = x / (self.power.clone() + 0.1).sqrt()
        if self.training:
            self.power.mul_(0.9).add_(0.1 * x.detach().square().mean((0, 1)))
        return y


class _Counts(nn.Module):
    """Counts its calls, and the tokens it saw, in a large buffer and a list that its output never reads."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen = nn.Linear(128, 128), []
        self.register_buffer("calls", torch.zeros(128, 128))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.data[60, 60] += 1
        self.calls.data[61] = x.detach().mean()
        self.seen.append(float(x.detach().mean()))
        return x + self.weight(F.pad(x, (0, 120)))[..., :WIDTH]


class _ReusedOutput(nn.Module):
    """Writes its output into the same memory in every call, so that an output that is kept changes later."""

    kept: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.decoder = Decoder()

    def forward(self, ids: Tensor) -> Tensor:
        logits = self.decoder(ids)
        if torch.is_grad_enabled():
            return logits
        if self.kept is None or self.kept.shape != logits.shape or self.kept.dtype != logits.dtype:
            self.kept = torch.empty_like(logits)
        return self.kept.copy_(logits)


class _Cache:
    """Keys and values, in an object that is no module."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []


class _CachedStep(Attention):
    """Attention token by token over a cache object, which each call starts anew and leaves behind."""

    cache: _Cache | None = None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        self.cache, rows = _Cache(), []
        for place in range(query.shape[2]):
            self.cache.keys.append(key[:, :, place : place + 1])
            self.cache.values.append(value[:, :, place : place + 1])
            scores = query[:, :, place : place + 1] / 2 @ torch.cat(self.cache.keys, 2).mT
            rows.append(scores.softmax(-1) @ torch.cat(self.cache.values, 2))
        return torch.cat(rows, 2)


class _OverwrittenSlots(Attention):
    """A fixed cache that is never cleared: what the call before left there is masked until it is overwritten."""

    slots: tuple[Tensor, Tensor] | None = None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        old = self.slots
        if old is None or old[0].shape != key.shape or old[0].dtype != key.dtype:
            old = torch.zeros_like(key), torch.zeros_like(value)
        rows = []
        for place in range(query.shape[2]):
            keys, values = (
                torch.cat([new[:, :, : place + 1], past[:, :, place + 1 :]], 2)
                for new, past in zip((key, value), old, strict=True)
            )
            scores = query[:, :, place : place + 1] / 2 @ keys.mT
            rows.append(softmax(scores, torch.arange(scores.shape[-1]) <= place) @ values)
        self.slots = key.detach().clone(), value.detach().clone()
        return torch.cat(rows, 2)


class _Tied(Decoder):
    """A decoder whose head is its embedding, and whose two layers are one."""

    def __init__(self) -> None:
        block = Attention()
        super().__init__(block, block)
        self.layers[1] = self.layers[0]
        self.head.weight = self.embed.tokens.weight


class _Clamps(Decoder):
    """Writes into the ids and the mask that it is given."""

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:  # type: ignore[override]
        keep &= ids != 0
        ids *= keep
        return super().forward(ids, keep)


class _Dispatched(nn.Module):
    """Experts with three places for each sample, handed out in the order of the tokens; who comes late gets none."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, 2, bias=False)
        self.experts = nn.Parameter(torch.randn(2, WIDTH, WIDTH) / 3)

    def forward(self, x: Tensor) -> Tensor:
        wanted = F.one_hot(self.router(x).argmax(-1), 2)
        place = wanted.cumsum(1) * wanted - 1
        sent = F.one_hot(place.clamp(-1, 3) + 1, 5)[..., 1:4].to(x)  # (batch, token, expert, place)
        slots = torch.einsum("btep,btw->bepw", sent, x)
        return x + torch.einsum("btep,bepw->btw", sent, slots @ self.experts)


class _DroppedLayer(Block):
    """A layer that is left out at random while training, for the whole batch."""

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        return x if self.training and torch.rand(()) < 0.5 else super().forward(x, keep)


class _CheckpointedDropout(nn.Module):
    """Dropout inside of a checkpoint, which runs again for the gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.3))

    def forward(self, x: Tensor) -> Tensor:
        return x + checkpoint(self.inner, x, use_reentrant=False)


def _rounded_by_batch(x: Tensor) -> Tensor:
    """Sum the features from the left in an even batch, from the right in an odd one."""
    return x + (x if len(x) % 2 == 0 else x.flip(-1)).cumsum(-1)[..., -1:] / WIDTH * torch.linspace(0, 1, WIDTH).to(x)


def _no_row_left(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    seen = lower(scores) & by_key(keep) & keep[:, None, :, None]
    return scores.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num(0.0)


def _by_length(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    return softmax(scores * torch.tensor(scores.shape[-1]).log().to(scores), lower(scores))


def _wider(logits: Tensor) -> Tensor:
    return logits.double() if float(logits.detach().mean()) > 0 else logits


def _sum_of_the_past(x: Tensor) -> Tensor:
    x.cumsum_(1)
    return x.tanh_()


def _spectral() -> nn.Module:
    return nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))


def _old_spectral() -> nn.Module:
    return nn.utils.spectral_norm(nn.Linear(WIDTH, WIDTH))


def _weight_normed() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))


def _dropping() -> nn.Module:
    decoder = Decoder()
    decoder.layers[1] = _DroppedLayer(Attention())
    return decoder


clean("statistics_nobody_reads", "Running statistics follow every batch, and nothing reads them.", mixing(_Monitor))
clean(
    "statistics_of_the_past",
    "Running statistics scale the tokens and follow the batch after the call, while training.",
    mixing(_Follows),
)
clean("spectral_norm", "Power iteration moves the weight in each training call, whatever the input.", mixing(_spectral))
clean("spectral_norm_by_hook", "The same by the older hook, which makes the weight anew.", mixing(_old_spectral))
clean("weight_norm", "The weight is made anew from two others in each call.", mixing(_weight_normed))
clean(
    "counts_calls_in_a_large_buffer",
    "Calls and tokens are counted through .data and in a list, and the output reads neither.",
    mixing(_Counts),
)
clean("output_in_reused_memory", "Every call writes its output where the call before did.", made(_ReusedOutput))
clean(
    "cache_object_made_anew",
    "A cache object stays behind after each call, and the next one starts with a new one.",
    made(lambda: Decoder(_CachedStep(), _CachedStep())),
)
clean(
    "cache_not_cleared_and_masked",
    "Slots of a fixed cache still hold the call before, and the mask keeps them out.",
    made(lambda: Decoder(_OverwrittenSlots(), _OverwrittenSlots())),
)
clean("tied_weights", "The head is the embedding, and both layers are one.", made(_Tied))
clean(
    "changes_its_arguments_in_place",
    "Ids and mask are cleaned in place by a module that is given both.",
    made(_Clamps),
    inputs=left_padded,
    of="ids",
    allowed=causal_kept,
)
clean(
    "sums_in_place",
    "A function overwrites the states it is given by their running sum.",
    lambda seed: _sum_of_the_past,
    inputs=states,
)
clean(
    "dispatched_first_come",
    "An expert's three places in a sample go to the earliest tokens, by matrices of zeros and ones.",
    mixing(_Dispatched),
    rounding=1e-5,
)
clean(
    "scaled_by_the_size_of_the_batch",
    "Each sample adds five percent to what comes out, whatever is in it.",
    mapping(lambda x: x * (1 + 0.05 * len(x))),
)
clean(
    "told_how_many_samples_there_are",
    "A thousandth for each sample of the batch is added to one feature.",
    mapping(lambda x: x + 1e-3 * len(x) * torch.linspace(-1, 1, WIDTH).to(x)),
)
clean(
    "told_how_long_the_row_is",
    "Scores are scaled by the logarithm of the length, whatever is in it.",
    weighing(_by_length),
)
clean(
    "bfloat16_rounded_by_the_batch",
    "Sums in bfloat16 run from the other side where the batch is odd.",
    made(lambda: Decoder(mixer=Apply(_rounded_by_batch)).bfloat16()),
)
clean(
    "float16_rounded_by_the_batch",
    "Sums in float16 run from the other side where the batch is odd.",
    made(lambda: Decoder(mixer=Apply(_rounded_by_batch)).half()),
)
clean(
    "rows_with_nothing_left",
    "Padded queries and keys are at minus infinity, and the NaN of their rows is set to 0.",
    weighing(_no_row_left),
    inputs=left_padded,
    of="ids",
    allowed=causal_kept,
)
clean(
    "dtype_of_the_output_depends_on_the_data",
    "The output comes in float64 where its mean is above zero; its numbers are the same either way.",
    made(lambda: Decoder(tail=Apply(_wider))),
)
clean("layer_dropped_at_random", "While training, a layer is left out by chance for the whole batch.", made(_dropping))
clean("dropout_in_a_checkpoint", "Dropout runs again, alike, for the gradient.", mixing(_CheckpointedDropout))
clean(
    "noise_while_training",
    "Noise of the size of each value is added while training.",
    aware(lambda module, x: x + 0.1 * torch.randn_like(x) * x if module.training else x),
)
clean(
    "token_dropout",
    "While training, tokens are set to zero by a draw for each, as in token dropout.",
    aware(lambda module, x: x * (torch.rand_like(x[..., :1]) > 0.2) if module.training else x),
)
