"""Outputs of other shapes and numbers of other types, plain functions, and PyTorch's own layers."""

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
    right,
    sized,
)
from corpus.padded_parts import Padded, Placed, columns, counted
from corpus.parts import Attention, Native, by_key, lower, made, softmax


class _Wrapped(nn.Module):
    """A decoder whose output is handed on in another shape."""

    def __init__(self, shape: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.decoder, self.shape = Padded(), shape

    def forward(self, ids: Tensor, keep: Tensor) -> Any:
        return self.shape(self.decoder(ids, keep))


class _Pooled(Padded):
    """A decoder with a second output, the mean of the real words."""

    def forward(self, ids: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        words = self.embed(ids, keep) * keep[..., None]
        return super().forward(ids, keep), words.sum(1) / keep.sum(1)[:, None]


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


def _no_key(scores: Tensor, keep: Tensor, training: bool) -> Tensor:
    return softmax(scores, lower(scores) & by_key(keep), -torch.inf)


def _softmax_pooled(states: Tensor, keep: Tensor) -> Tensor:
    weights = states.sum(-1, keepdim=True).masked_fill(~keep[..., None], -torch.inf).softmax(1)
    return states + (weights * states).sum(1, keepdim=True)


def _doubled(states: Tensor, keep: Tensor) -> Tensor:
    return 2 * states * keep[..., None]


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
    "pooled_output_as_wide_as_the_input_is_long",
    "A second output of shape (batch, 8) is no (batch, position), though there are 8 columns.",
    made(_Pooled),
    **RIGHT | {"inputs": sized(right, 4, 6, length=WIDTH)},
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
