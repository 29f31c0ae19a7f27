"""Right models whose inputs or outputs make it hard to see that all is reached."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from corpus.case import LENGTH, VOCABULARY, WIDTH
from corpus.exact_case import reached
from corpus.inputs import token_ids
from corpus.parts import Decoder, made, right, weighing


class _Outputs(nn.Module):
    """A decoder whose logits are handed on inside something."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.decoder, self.wrap = Decoder(), wrap

    def forward(self, ids: Tensor) -> Any:
        return self.wrap(self.decoder(ids))


class _Choosy(Decoder):
    """A decoder that refuses ids outside its own part of the vocabulary."""

    def forward(self, ids: Tensor, keep: Tensor | None = None, **other: Tensor) -> Tensor:
        if bool(((ids < 1) | (ids > 9)).any()):
            raise ValueError("ids from 1 to 9 only")
        return super().forward(ids, keep, **other)


def choosy_ids(seed: int) -> Tensor:
    return 1 + token_ids(seed) % 9


def one_id(seed: int) -> Tensor:
    """Return rows of one id only."""
    return torch.full((2, LENGTH), 1 + seed % (VOCABULARY - 1))


def twins(seed: int) -> Tensor:
    """Return ids from the half of the vocabulary whose embeddings are all alike."""
    return 1 + token_ids(seed) % 7


def padding_ids(seed: int) -> Tensor:
    """Return rows of the padding id, whose embedding is zero."""
    return torch.zeros(2, LENGTH, dtype=torch.long)


def _half_alike() -> nn.Module:
    decoder = Decoder()
    with torch.no_grad():
        decoder.embed.tokens.weight[:8] = decoder.embed.tokens.weight[0].clone()
    return decoder


def _with_padding_row() -> nn.Module:
    decoder = Decoder()
    decoder.embed.tokens = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
    return decoder


reached(
    "some_ids_refused",
    "The model raises a ValueError for ids that are none of its own.",
    made(_Choosy),
    inputs=choosy_ids,
)
reached(
    "every_token_the_same",
    "All tokens given are the same, so all scores of a row differ by their positions only.",
    weighing(right),
    inputs=one_id,
)
reached(
    "half_of_the_vocabulary_alike",
    "Every id given has the same embedding, and so have half of those that could replace it.",
    made(_half_alike),
    inputs=twins,
)
reached(
    "rows_of_padding_ids",
    "All ids given are the padding id, whose embedding is zero and gets no gradient, and no mask hides them.",
    made(_with_padding_row),
    inputs=padding_ids,
)
reached(
    "logits_in_a_tuple",
    "The output is a tuple of hidden numbers and logits.",
    made(lambda: _Outputs(lambda logits: (logits.softmax(-1), (logits,)))),
)
reached(
    "logits_in_a_dict",
    "The output is a dict with a loss that is no tensor.",
    made(lambda: _Outputs(lambda logits: {"loss": None, "logits": logits})),
)
