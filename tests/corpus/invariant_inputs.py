"""The same said in other words: other arguments, other outputs, other numbers, and PyTorch's own layers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from corpus.case import HEADS, WIDTH
from corpus.padded_case import invariant
from corpus.padded_inputs import (
    FRAMES,
    LEFT,
    RIGHT,
    laid_out,
    nonzero,
    right,
    with_other,
    without_keep,
)
from corpus.padded_parts import Padded, Placed, attending, columns, counted
from corpus.parts import Attention, Native, both_ways, by_key, lower, made, softmax
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
        x = self.embed(ids, keep) + self.types(token_type_ids)
        for layer in self.layers:
            x = layer(x, keep)
        return self.head(self.norm(x))


class _Prefix(Padded):
    """A prefix is read in both directions, the rest is causal."""

    def forward(self, ids: Tensor, keep: Tensor, prefix: Tensor) -> Tensor:
        inside = columns(ids, keep) < prefix[:, None]
        table = (columns(ids, keep)[:, None] >= columns(ids, keep)) | inside[:, None, :]
        x = self.embed(ids, keep)
        for layer in self.layers:
            x = layer(x, table[:, None] & by_key(keep))
        return self.head(self.norm(x))


class _Wrapped(nn.Module):
    """A decoder whose output is handed on in another shape."""

    def __init__(self, shape: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.decoder, self.shape = Padded(), shape

    def forward(self, ids: Tensor, keep: Tensor) -> Any:
        return self.shape(self.decoder(ids, keep))


@dataclass
class _Output:
    loss: Tensor | None
    logits: Tensor


class _Picky(Padded):
    """A decoder that works in float32 and says so, and has nothing to say to an empty input."""

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        if self.head.weight.dtype != torch.float32:
            raise TypeError(f"Expected float32 weights, got {self.head.weight.dtype}.")
        if not ids.numel():
            raise ValueError("Expected at least one token.")
        return super().forward(ids, keep)


class _Layers(nn.Module):
    """nn.TransformerEncoder with its padding mask; without gradients its fast path gives 0 at padding."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True)
        self.embed, self.encoder = Placed(columns), nn.TransformerEncoder(layer, 2)

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        return self.encoder(self.embed(ids, keep), src_key_padding_mask=~keep)


class _Noted(Padded):
    """A decoder that notes in a buffer what it was given last, and overwrites it in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(1))

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        self.last = self.embed(ids, keep)
        return super().forward(ids, keep) + 0 * self.last.sum()


class _Dropped(Padded):
    """A decoder with dropout, which does nothing in eval."""

    def __init__(self) -> None:
        super().__init__()
        for layer in self.layers:
            layer.dropout.p = 0.5


def _lengths(given: dict[str, Tensor]) -> Tensor:
    return given["keep"].sum(1)


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


def _no_key(scores: Tensor, keep: Tensor, training: bool) -> Tensor:
    return softmax(scores, lower(scores) & by_key(keep), -torch.inf)


def _softmax_pooled(states: Tensor, keep: Tensor) -> Tensor:
    weights = states.sum(-1, keepdim=True).masked_fill(~keep[..., None], -torch.inf).softmax(1)
    return states + (weights * states).sum(1, keepdim=True)


def _doubled(states: Tensor, keep: Tensor) -> Tensor:
    return 2 * states * keep[..., None]


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
    "end_token_as_padding",
    "The id of the padding is one that stands among the tokens too, and the mask tells which is which.",
    attending(causal_kept),
    **laid_out(_end_as_padding, fill=9),
)
invariant(
    "plain_function_with_pooling",
    "No module: a weighted mean over the real tokens.",
    lambda seed: _softmax_pooled,
    **FRAMES,
)
invariant(
    "plain_function_of_each_token",
    "Each token for itself: equal bit for bit.",
    lambda seed: _doubled,
    **FRAMES,
    rounding=0.0,
)
invariant(
    "output_is_a_dict",
    "The output is a dict with something in it that is no tensor.",
    made(lambda: _Wrapped(lambda logits: {"loss": None, "logits": logits})),
    **LEFT,
)
invariant(
    "output_is_a_tuple",
    "The output is a tuple whose second part has the tokens in front.",
    made(lambda: _Wrapped(lambda logits: (logits, logits.transpose(0, 1)))),
    **LEFT,
)
invariant(
    "output_is_a_dataclass",
    "The output is a dataclass, as models of Hugging Face give it.",
    made(lambda: _Wrapped(lambda logits: _Output(None, logits))),
    **LEFT,
    out=lambda output: output.logits,
)
invariant(
    "output_has_the_tokens_in_front",
    "The output has shape (token, batch, vocabulary).",
    made(lambda: _Wrapped(lambda logits: logits.transpose(0, 1))),
    **RIGHT,
    out=lambda output: output.transpose(0, 1),
)
invariant(
    "padded_outputs_have_no_number",
    "Padded queries have no key and give NaN, which no real token reads.",
    made(lambda: Padded(Attention(_no_key), embed=Placed(counted))),
    **LEFT,
)
invariant(
    "decoder_in_bfloat16",
    "A decoder in bfloat16, equal up to its rounding.",
    made(lambda: Padded().bfloat16()),
    **LEFT,
    dtype=None,
    rounding=0.05,
)
invariant(
    "decoder_in_float16",
    "A decoder in float16, equal up to its rounding.",
    made(lambda: Padded().half()),
    **LEFT,
    dtype=None,
    rounding=0.005,
)
invariant(
    "refuses_all_but_float32",
    "The model refuses other numbers than float32, and empty inputs.",
    made(_Picky),
    **LEFT,
    dtype=None,
    rounding=1e-5,
)
invariant(
    "dropout_in_eval",
    "Dropout does nothing in eval.",
    made(_Dropped),
    **LEFT,
)
invariant(
    "buffer_overwritten_in_each_call",
    "What was given last is kept in a buffer and never read.",
    made(_Noted),
    **LEFT,
)
invariant(
    "torch_encoder_on_its_fast_path",
    "nn.TransformerEncoder leaves padding out on its fast path and gives 0 there.",
    made(_Layers),
    **RIGHT,
)
invariant(
    "torch_attention_with_padding_mask",
    "nn.MultiheadAttention with its padding mask.",
    made(lambda: Padded(*(Native(lambda x, keep: {"key_padding_mask": ~keep}) for _ in "12"))),
    **RIGHT,
)
