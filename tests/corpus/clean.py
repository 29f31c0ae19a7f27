"""Models that look odd and obey."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmask import Translator, causal, padding, sliding_window
from corpus.batch import Experts, first_come, token_choice
from corpus.case import EVAL, HEADS, VOCABULARY, WIDTH
from corpus.inputs import (
    causal_documents,
    causal_kept,
    causal_prefix,
    left_padded,
    packed,
    states,
    translation,
    with_prefix,
)
from corpus.mixing import LinearAttention, TokenMixer
from corpus.modes import Fused, blocked
from corpus.padding import by_document, in_prefix
from corpus.parts import (
    Apply,
    Attention,
    Channels,
    Decoder,
    Embed,
    Recurrent,
    both_ways,
    by_key,
    lower,
    made,
    mapping,
    merge_heads,
    mixing,
    right,
    softmax,
    split_heads,
    weighing,
)
from corpus.registry import PADDED, clean
from corpus.state import Chunked
from corpus.translation import STRICTLY_EARLIER, Shifted


class _Grouped(nn.Module):
    """Grouped-query attention: two query heads share one key head."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.key, self.value = nn.Linear(WIDTH, WIDTH // HEADS), nn.Linear(WIDTH, WIDTH // HEADS)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        query, key, value = split_heads(self.query(x)), split_heads(self.key(x), 1), split_heads(self.value(x), 1)
        return self.out(merge_heads(F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)))


class _Rotary(Attention):
    """Attention whose queries and keys are turned by an angle that grows with the position."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        angle = torch.arange(query.shape[2])[:, None] / torch.tensor([1.0, 100.0])

        def turned(x: Tensor) -> Tensor:
            one, other = x.chunk(2, -1)
            return torch.cat([one * angle.cos() - other * angle.sin(), one * angle.sin() + other * angle.cos()], -1)

        return super().attend(turned(query), turned(key), value, keep)


class _Zoo(nn.Module):
    """nn.TransformerEncoder between an embedding and a head, causal or with a padding mask."""

    def __init__(self, padded: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True)
        self.padded, self.embed = padded, Embed()
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=padded)

    def forward(self, ids: Tensor, keep: Tensor | None = None) -> Tensor:
        if self.padded:
            return self.encoder(self.embed(ids), src_key_padding_mask=~keep)
        return self.encoder(self.embed(ids), mask=blocked(ids), is_causal=True)


class _Wrapped(nn.Module):
    """A decoder whose output is handed on in another shape."""

    def __init__(self, shape: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.decoder, self.shape = Decoder(), shape

    def forward(self, ids: Tensor) -> Any:
        return self.shape(self.decoder(ids))


def _alibi(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    position = torch.arange(scores.shape[-1])
    slope = torch.tensor([0.5, 0.25])[:, None, None]
    return softmax(scores - slope * (position[:, None] - position), lower(scores))


def _dropped(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    return F.dropout(right(scores, keep, training), 0.3, training)


def _added(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    return (scores + (~lower(scores)) * -1e9).softmax(-1)


def _infinite(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    return softmax(scores, lower(scores) & by_key(keep), -torch.inf)


def _top_after_mask(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    masked = scores.masked_fill(~lower(scores), -torch.inf)
    return masked.masked_fill(masked < masked.topk(3).values[..., -1:], -torch.inf).softmax(-1)


def _running_mean(x: Tensor) -> Tensor:
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]


def _in_place(x: Tensor) -> Tensor:
    x += torch.arange(x.shape[1])[:, None]
    return x


def _masked_inputs(seed: int) -> dict[str, Any]:
    given = translation(seed)
    real = padding(given["keep"])
    masks = {"source_masks": real, "target_masks": causal(), "memory_masks": real}
    return {"source": given["source"], "target": given["target"], **masks}


def _translator() -> nn.Module:
    return Translator(VOCABULARY, VOCABULARY, layers=1, d_model=WIDTH, heads=HEADS)


CAUSAL_PADDED = {"of": "ids", "allowed": causal_kept}

clean("causal_decoder", "A GPT-like decoder, its attention written out.", weighing(right))
clean(
    "causal_decoder_fused",
    "The same with fused attention and is_causal=True.",
    made(lambda: Decoder(Fused(lambda training: True), Fused(lambda training: True))),
)
clean(
    "dropout_everywhere",
    "Dropout on weights and layers: two runs in training differ unless the seed is set.",
    made(lambda: Decoder(Attention(_dropped), Attention(_dropped), dropout=0.3)),
)
clean(
    "token_choice_experts",
    "Each token picks its expert; the experts' few tokens change with the rest, and so may rounding.",
    mixing(lambda: Experts(token_choice, experts=4)),
    rounding=1e-5,
)
clean(
    "capacity_first_come",
    "An expert's two places in a row go to the earliest tokens.",
    mixing(lambda: Experts(first_come)),
    rounding=1e-5,
)
clean(
    "causal_convolution",
    "A convolution padded on the left.",
    mixing(lambda: Channels(nn.Conv1d(WIDTH, WIDTH, 3), pad=(2, 0))),
)
clean(
    "dilated_causal_convolution",
    "A dilated convolution padded on both sides and trimmed at the end.",
    mixing(lambda: Channels(nn.Conv1d(WIDTH, WIDTH, 3, dilation=2, padding=4), cut=slice(None, -4))),
)
clean("lstm", "A recurrent layer in one direction.", mixing(lambda: Recurrent(nn.LSTM(WIDTH, WIDTH, batch_first=True))))
clean(
    "left_padding_masked",
    "Left padding with a mask; the padded outputs are anything.",
    weighing(right),
    inputs=left_padded,
    **CAUSAL_PADDED,
)
clean(
    "padded_outputs_are_nan",
    "Padded queries have no key and give NaN, which no real token reads.",
    made(lambda: Decoder(Attention(_infinite))),
    inputs=left_padded,
    **CAUSAL_PADDED,
)
clean("padded_encoder", "A two-way encoder with its padding mask in every layer.", weighing(both_ways), **PADDED)
clean(
    "translation_source",
    "An encoder and decoder with every mask, seen from the source.",
    made(_translator),
    inputs=_masked_inputs,
    of="source",
    allowed=lambda inputs: inputs["source_masks"],
    one_sequence=False,
)
clean(
    "translation_target",
    "An encoder and decoder with every mask, seen from the target.",
    made(_translator),
    inputs=_masked_inputs,
    of="target",
)
clean(
    "sliding_window",
    "Two layers with a window of two reach back four.",
    weighing(lambda scores, keep, training: softmax(scores, lower(scores) & ~lower(scores, -3))),
    allowed=sliding_window(4),
)
clean("alibi", "A penalty that grows with the distance, and a causal mask.", weighing(_alibi))
clean("rotary", "Rotary positions.", made(lambda: Decoder(_Rotary(), _Rotary())))
clean("grouped_query", "Two query heads share a key head.", made(lambda: Decoder(_Grouped(), _Grouped())))
clean(
    "native_encoder_causal",
    "nn.TransformerEncoder with a causal mask and a hint that is true, on and off the fast path.",
    made(lambda: _Zoo(False)),
)
clean(
    "native_encoder_padded",
    "nn.TransformerEncoder with a padding mask; on the fast path padded outputs are 0.",
    made(lambda: _Zoo(True)),
    **PADDED,
)
clean(
    "packed_documents",
    "Documents in one row, each for itself.",
    weighing(lambda scores, ids, training: by_document(scores, ids)),
    inputs=packed,
    of="ids",
    allowed=causal_documents,
)
clean(
    "batch_norm_in_eval",
    "Batch norm with fixed statistics; while training it would leak.",
    mixing(lambda: Channels(nn.BatchNorm1d(WIDTH))),
    leaks_in=EVAL,
)
clean(
    "prefix_language_model",
    "A prefix read in both directions, then causal.",
    weighing(lambda scores, lengths, training: softmax(scores, lower(scores) | in_prefix(scores, lengths))),
    inputs=with_prefix,
    of="ids",
    allowed=causal_prefix,
)
clean("float16", "A decoder in float16.", made(lambda: Decoder().half()))
clean("bfloat16", "A decoder in bfloat16.", made(lambda: Decoder().bfloat16()))
clean(
    "minus_thousand_million_added",
    "-1e9 is added to blocked scores, which float32 rounds to exactly no weight.",
    weighing(_added),
)
clean("tuple_output", "The output is a tuple.", made(lambda: _Wrapped(lambda logits: (logits, logits.exp()))))
clean(
    "dict_output",
    "The output is a dict with something in it that is no tensor.",
    made(lambda: _Wrapped(lambda logits: {"logits": logits, "loss": None})),
)
clean("plain_function", "No module: a running mean.", lambda seed: _running_mean, inputs=states)
clean(
    "changes_its_input_in_place",
    "A function that writes into the tensor it is given.",
    lambda seed: _in_place,
    inputs=states,
)
clean(
    "constant_output",
    "The output does not depend on the input at all.",
    made(lambda: Decoder(tail=Apply(torch.zeros_like))),
)
clean(
    "chunked_cache",
    "Chunks of three over a growing cache, with the right offset.",
    made(lambda: Decoder(*(Chunked(lambda cached, total: cached) for _ in range(2)))),
)
clean(
    "linear_attention",
    "Linear attention with running sums.",
    made(lambda: Decoder(LinearAttention(True), LinearAttention(True))),
)
clean("top_keys_picked_after_masking", "The three best keys among those allowed.", weighing(_top_after_mask))
clean(
    "token_shift_with_zeros",
    "The token before is added, zeros in front of the first.",
    mapping(lambda x: x + F.pad(x, (0, 0, 1, 0))[:, :-1]),
)
clean(
    "token_mixer_lower_triangle",
    "A learned token-by-token matrix that keeps its lower triangle.",
    mixing(lambda: TokenMixer(torch.tril)),
)
clean(
    "labels_shifted",
    "The decoder is given the labels and reads them one place late.",
    made(lambda: Shifted(lambda labels: F.pad(labels[:, :-1], (1, 0)))),
    **STRICTLY_EARLIER,
)
