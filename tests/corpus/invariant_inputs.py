"""The same said in other words: masks, lengths, token types and more as arguments."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpus.case import HEADS, WIDTH
from corpus.padded_case import invariant
from corpus.padded_inputs import (
    LEFT,
    laid_out,
    left,
    nonzero,
    right,
    sized,
    with_other,
    without_keep,
)
from corpus.padded_parts import Padded, Placed, attending, columns, counted
from corpus.parts import Attention, both_ways, by_key, lower, made, softmax
from corpus.parts import right as causal_kept


class _Told(Padded):
    """A model that makes from its other arguments which tokens to keep, or hands attention more than that."""

    def __init__(self, read: Callable[..., Tensor], weigh: Any = both_ways) -> None:
        super().__init__(Attention(weigh), Attention(weigh), embed=Placed(columns))
        self.read = read

    def forward(self, ids: Tensor, **other: Tensor) -> Tensor:
        return super().forward(ids, self.read(ids, **other))


class _Typed(Padded):
    """An encoder with two types of tokens."""

    def __init__(self) -> None:
        super().__init__(Attention(both_ways), Attention(both_ways))
        self.types = nn.Embedding(2, WIDTH)

    def forward(self, ids: Tensor, keep: Tensor, token_type_ids: Tensor) -> Tensor:
        return self.after_embedding(self.embed(ids, keep) + self.types(token_type_ids), keep, keep)


class _Prefix(Padded):
    """A prefix is read in both directions, the rest is causal."""

    def forward(self, ids: Tensor, keep: Tensor, prefix: Tensor) -> Tensor:
        inside = columns(ids, keep) < prefix[:, None]
        table = (columns(ids, keep)[:, None] >= columns(ids, keep)) | inside[:, None, :]
        return self.after_embedding(self.embed(ids, keep), table[:, None] & by_key(keep), keep)


class _Conditioned(Padded):
    """A decoder that is told who speaks, how to scale, and something that is no tensor."""

    def forward(self, ids: Tensor, keep: Tensor, speaker: Tensor, scale: Tensor, causal: bool) -> Tensor:
        if not causal:
            raise ValueError("Expected causal=True.")
        return self.after_embedding(self.embed(ids, keep) + speaker[:, None] * scale, keep, keep)


class _NullKey(Attention):
    """One learned key more, which all queries see."""

    def __init__(self) -> None:
        super().__init__()
        self.null = nn.Parameter(torch.randn(2, 1, HEADS, 1, WIDTH // HEADS))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor) -> Tensor:
        null_key, null_value = self.null.expand(-1, len(query), -1, -1, -1)
        scores = query @ torch.cat([null_key, key], 2).mT
        seen = F.pad(lower(scores[..., 1:]) & by_key(keep), (1, 0), value=True)
        return softmax(scores, seen) @ torch.cat([null_value, value], 2)


def _lengths(given: dict[str, Tensor]) -> Tensor:
    return given["keep"].sum(1)


def _speakers(given: dict[str, Tensor]) -> Tensor:
    return torch.linspace(-1, 1, 2 * WIDTH).reshape(2, WIDTH)


def _ignored(given: dict[str, Tensor]) -> Tensor:
    return ~given["keep"]


def _key_bias(given: dict[str, Tensor]) -> Tensor:
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(given["keep"].shape).masked_fill(~given["keep"], lowest)[:, None, None]


def _square(given: dict[str, Tensor]) -> Tensor:
    length = given["keep"].shape[1]
    return torch.ones(length, length).bool().tril() & by_key(given["keep"])


def _types(given: dict[str, Tensor]) -> Tensor:
    return (counted(given["ids"], given["keep"]) > 1).long() * given["keep"]


def _prefix(given: dict[str, Tensor]) -> Tensor:
    return torch.tensor([3, 2])


def _by_mask(scores: Tensor, mask: Tensor, training: bool) -> Tensor:
    return softmax(scores, mask)


def _by_bias(scores: Tensor, bias: Tensor, training: bool) -> Tensor:
    return (scores + bias).softmax(-1)


def _ten_thousand_less(scores: Tensor, keep: Tensor, training: bool) -> Tensor:
    return (scores - 10_000.0 * ~(lower(scores) & by_key(keep))).softmax(-1)


def _end_as_padding(seed: int) -> dict[str, Tensor]:
    given = right(seed)
    given["ids"] = given["ids"].masked_fill(~given["keep"], 9)
    given["ids"][:, 2] = 9
    return given


def _as_numbers(given: dict[str, Tensor]) -> Tensor:
    return given["keep"].long()


invariant(
    "lengths_given",
    "The model is given lengths, and makes the mask from them.",
    made(lambda: _Told(lambda ids, lengths: torch.arange(ids.shape[1]) < lengths[:, None])),
    **laid_out(without_keep(right, lengths=_lengths), keep=nonzero),
)
invariant(
    "true_means_ignored",
    "The mask is True at padding.",
    made(lambda: _Told(lambda ids, ignored: ~ignored)),
    **laid_out(without_keep(right, ignored=_ignored), keep=nonzero),
)
invariant(
    "float_bias_given",
    "The mask is a bias of shape (batch, 1, 1, key), with the lowest number at padding.",
    made(lambda: _Told(lambda ids, key_bias: key_bias, _by_bias)),
    **laid_out(without_keep(right, key_bias=_key_bias), keep=nonzero),
)
invariant(
    "square_mask_given",
    "The mask has shape (batch, 1, query, key), causal and without padded keys.",
    made(lambda: _Told(lambda ids, mask: mask, _by_mask)),
    **laid_out(without_keep(right, mask=_square), keep=nonzero),
)
invariant(
    "mask_of_zeros_and_ones",
    "The mask holds 0 and 1 as integers.",
    made(lambda: _Told(lambda ids, keep: keep == 1)),
    **laid_out(with_other(right, keep=_as_numbers), keep=lambda inputs: inputs["keep"] == 1),
)
invariant(
    "token_types_given",
    "Each token is given one of two types.",
    made(_Typed),
    **laid_out(with_other(right, token_type_ids=_types)),
)
invariant(
    "prefix_read_both_ways",
    "A prefix, whose length is given, is read in both directions, with padding on the right.",
    made(lambda: _Prefix(Attention(_by_mask), Attention(_by_mask))),
    **laid_out(with_other(right, prefix=_prefix)),
)
invariant(
    "arguments_without_tokens",
    "A vector for each sample, one number for all and a Boolean are given too.",
    made(_Conditioned),
    **laid_out(
        with_other(left, speaker=_speakers, scale=lambda given: torch.tensor(2.0), causal=lambda given: True),
        at=0,
    ),
)
invariant(
    "one_sample_given",
    "A batch of one padded sample.",
    attending(causal_kept),
    **LEFT | {"inputs": sized(left, 4)},
)
invariant(
    "minus_ten_thousand_for_masked",
    "Masked scores are lowered by 10000, whose exponential is 0.",
    attending(_ten_thousand_less),
    **LEFT,
)
invariant(
    "learned_key_for_all",
    "A learned key stands before all others, and is never masked.",
    made(lambda: Padded(_NullKey(), _NullKey())),
    **LEFT,
)
invariant(
    "end_token_as_padding",
    "The id of the padding is one that stands among the tokens too, and the mask tells which is which.",
    attending(causal_kept),
    **laid_out(_end_as_padding, fill=9),
)
