"""What is made from the padded length, or counted in steps from its first column or its last."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpus.case import LONGEST, WIDTH
from corpus.padded_case import variant
from corpus.padded_inputs import INSIDE, LEFT, RIGHT, left, sized
from corpus.padded_inputs import right as right_side
from corpus.padded_parts import (
    SLOPES,
    Padded,
    Placed,
    biased,
    columns,
    counted,
    decoding,
    embedding,
    encoding,
    seeing,
    special,
    turned,
    waves,
)
from corpus.parts import Attention, both_ways, by_key, lower, made, softmax
from corpus.registry import FIRST

POSITIONS = {"cause": "positions"}


class _DynamicRotary(Attention):
    """The base of rotary positions grows once the input is longer than what the model was trained for."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor) -> Tensor:
        place, base = columns(keep, keep), 100.0 * max(1, keep.shape[1] / 8)
        return super().attend(turned(query, place, base), turned(key, place, base), value, keep)


class _Interpolated(Placed):
    """A table of positions stretched to the length of the input."""

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        table = F.interpolate(self.positions.weight.mT[None], size=ids.shape[1], mode="linear", align_corners=True)
        return self.tokens(ids) + table.mT


class _Halves(Placed):
    """The second half of the columns gets another type of token."""

    def __init__(self) -> None:
        super().__init__()
        self.types = nn.Embedding(2, WIDTH)

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        halves = columns(ids, keep) >= ids.shape[1] // 2
        return super().forward(ids, keep) + self.types(halves.long().expand_as(ids))


class _Bucket(Placed):
    """Every token is told the length of the input, in steps of four."""

    def __init__(self) -> None:
        super().__init__()
        self.buckets = nn.Embedding(LONGEST // 4, WIDTH)

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        bucket = torch.full_like(ids, max(0, ids.shape[1] - 8) // 4)
        return super().forward(ids, keep) + self.buckets(bucket)


def _log_length(scores: Tensor, keep: Tensor, training: bool) -> Tensor:
    return both_ways(scores * math.log(scores.shape[-1] + 1) / math.log(4), keep, training)


def _divided_by_keys(scores: Tensor, keep: Tensor, training: bool) -> Tensor:
    return (scores * by_key(keep)).relu() / math.sqrt(scores.shape[-1])


def _top_share(scores: Tensor, keep: Tensor, training: bool) -> Tensor:
    masked = scores.masked_fill(~by_key(keep), torch.finfo(scores.dtype).min)
    least = masked.topk(-(-scores.shape[-1] // 3), -1).values[..., -1:]
    return softmax(masked, masked >= least)


def _log_bias_from_the_end(scores: Tensor, keep: Tensor) -> Tensor:
    return -SLOPES * torch.arange(scores.shape[-1]).flip(0).log1p()


def _chunks(scores: Tensor, keep: Tensor) -> Tensor:
    chunk = torch.arange(scores.shape[-1]) // 3
    return lower(scores) & by_key(keep) & (chunk[:, None] == chunk)


def _window(scores: Tensor, keep: Tensor) -> Tensor:
    return lower(scores) & ~lower(scores, -3) & by_key(keep)


def _first_column_is_global(scores: Tensor, keep: Tensor) -> Tensor:
    return lower(scores) & by_key(keep) & (~lower(scores, -3) | (torch.arange(scores.shape[-1]) == 0))


def _paired(x: Tensor, keep: Tensor) -> Tensor:
    pooled = F.avg_pool1d((x * keep[..., None]).mT, 2, ceil_mode=True, count_include_pad=False).mT
    return x + pooled.repeat_interleave(2, 1)[:, : x.shape[1]]


variant(
    "positions_as_a_share_of_the_padded_length",
    "The sinusoids go once through their period over the padded length.",
    embedding(lambda tokens, ids, keep: waves(ids, 6.28 / ids.shape[1]), place=None),
    **RIGHT,
    where="embed",
    **POSITIONS,
)
variant(
    "positions_stretched_to_the_padded_length",
    "A table of positions is interpolated to the padded length.",
    made(lambda: Padded(Attention(both_ways), Attention(both_ways), embed=_Interpolated())),
    **RIGHT,
    where="embed",
    **POSITIONS,
)
variant(
    "token_types_by_the_padded_half",
    "The second half of the padded length gets the second token type.",
    made(lambda: Padded(Attention(both_ways), Attention(both_ways), embed=_Halves())),
    **RIGHT,
    where="embed.types",
    **POSITIONS,
)
variant(
    "dynamic_rotary_base_by_the_padded_length",
    "The base of rotary positions grows with the longest sample once that is longer than in training.",
    special(_DynamicRotary),
    "QwenLM/Qwen#401",
    **RIGHT,
    shown_on=sized(right_side, 4, 10, length=10),
    where=FIRST,
    **POSITIONS,
)
variant(
    "log_bias_from_the_padded_end",
    "Keys get a logarithmic penalty for their distance from the last column.",
    special(lambda: Attention(biased(_log_bias_from_the_end)), place=counted),
    **RIGHT,
    where=FIRST,
    **POSITIONS,
)
variant(
    "chunks_from_the_padded_start",
    "Local attention cuts the padded row into chunks of three, and the padding is on the left.",
    special(lambda: Attention(seeing(_chunks)), place=counted),
    **LEFT | {"inputs": sized(left, 4, 7)},
    shown_on=sized(left, 4, 6, length=6),
    where=FIRST,
    **POSITIONS,
)
variant(
    "sliding_window_counts_padding",
    "A window of three keys is filled by padding that stands in between.",
    special(lambda: Attention(seeing(_window)), place=counted),
    "ml-explore/mlx-lm#439",
    **INSIDE,
    where=FIRST,
    **POSITIONS,
)
variant(
    "global_token_in_the_first_column",
    "Every query sees its neighbours and the first column, which is padding on the left.",
    special(lambda: Attention(seeing(_first_column_is_global)), place=counted),
    **LEFT,
    where=FIRST,
    **POSITIONS,
)
variant(
    "pairs_from_the_padded_start",
    "Tokens are averaged in pairs that are counted from the first column.",
    decoding(_paired),
    **LEFT | {"inputs": sized(left, 5, 7)},
    shown_on=sized(left, 4, 7),
    where="mixer",
    **POSITIONS,
)
variant(
    "length_bucket_of_the_padded_length",
    "Every token is told the padded length, in steps of four.",
    made(lambda: Padded(Attention(both_ways), Attention(both_ways), embed=_Bucket())),
    **RIGHT,
    shown_on=sized(right_side, 4, 12, length=12),
    where="embed.buckets",
)
variant(
    "scores_times_log_of_the_padded_length",
    "Scores are multiplied by the logarithm of the padded length, to keep attention sharp.",
    special(lambda: Attention(_log_length), place=counted),
    **RIGHT,
    where=FIRST,
)
variant(
    "weights_divided_by_the_padded_length",
    "Attention without softmax divides by the root of the number of keys, padded ones included.",
    special(lambda: Attention(_divided_by_keys), place=counted),
    **RIGHT,
    where=FIRST,
)
variant(
    "top_keys_as_a_share_of_the_padded_length",
    "Each query sees its best keys, a third as many as there are columns.",
    special(lambda: Attention(_top_share), place=counted),
    **RIGHT,
    where=FIRST,
)
variant(
    "mean_divided_by_the_padded_length",
    "The sum over the real tokens is divided by the padded length.",
    encoding(lambda x, keep: x + (x * keep[..., None]).sum(1, keepdim=True) / x.shape[1]),
    **RIGHT,
    where="mixer",
    cause="statistics",
)
