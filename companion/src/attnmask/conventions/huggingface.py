"""How does Hugging Face transformers write a mask?"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from attnmask._check import kind_of, type_error, value_error
from attnmask.conventions.additive import to_additive
from attnmask.conventions.entries import FOUR, AnyMask, Device, as_tensor, read_additive, read_zero_one, write_dense
from attnmask.conventions.table import Convention
from attnmask.masks import Mask, from_dense, padding

# fmt: off
ROWS = (
    Convention("Hugging Face", "model(...)", "attention_mask (2-D)", "transformers", "5.23.0",
               "1 = attend", "int64", "(B, S)", "zeros; eager attention, or T5: mean of all values", "to_huggingface",
               corner="lower right", window="sliding_window=W: W keys",
               note="cast to bool; a decoder adds its causal mask"),
    Convention("Hugging Face", "model(...)", "attention_mask (4-D)", "transformers", "5.23.0",
               "added to scores", "that of the model", "(B, H, L, S), broadcasts", "mean of all values",
               "to_huggingface_4d", note="replaces the model's own mask"),
    Convention("Hugging Face", "create_causal_mask", "and_mask_function", "transformers", "5.23.0",
               "True = attend", "function", "of b, h, q, k", "zeros; eager attention: mean of all values", "mask",
               corner="lower right", note="the head is always 0"),
)
# fmt: on


def to_huggingface(
    mask: AnyMask, query_len: int, key_len: int | None = None, *, batch: int = 1, device: Device = None
) -> Int64[Tensor, "batch key"]:
    """Write a padding mask as the ``attention_mask`` of a Hugging Face model: 1 = real, 0 = padding.

    A decoder adds its causal mask to it by itself, so give the padding alone.

    Returns
    -------
    Int64[Tensor, "batch key"]
        1 = may be attended to.

    Raises
    ------
    ValueError, TypeError
        The mask differs between queries or heads: two axes cannot hold it.

    Examples
    --------
    >>> to_huggingface(padding(torch.tensor([[True, True, False]])), 3)
    tensor([[1, 1, 0]])
    """
    key_len = query_len if key_len is None else key_len
    allowed = write_dense(mask, query_len, key_len, batch, 1, device)
    if not bool((allowed == allowed[:, :1, :1]).all()):
        raise value_error(
            "a mask of keys, the same for every query and head, since the 2-D attention_mask is (batch, key)",
            repr(mask) if isinstance(mask, Mask) else kind_of(mask),
            "a causal part, which a decoder model adds by itself; give the padding alone, or use to_huggingface_4d",
        )
    return allowed.all(dim=(1, 2)).expand(max(allowed.shape[0], batch), key_len).long()


def to_huggingface_4d(
    mask: AnyMask,
    query_len: int,
    key_len: int | None = None,
    *,
    batch: int = 1,
    heads: int = 1,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> Float[Tensor, "batch_or_1 heads_or_1 query_or_1 key_or_1"]:
    """Write a mask as a 4-D ``attention_mask`` of a Hugging Face model, which replaces the model's own.

    Added to the scores, so that eager and SDPA attention read it alike: 0 allows,
    the lowest number of ``dtype``, that of the model, blocks.

    Raises
    ------
    ValueError, TypeError
        As in `to_additive`.

    Examples
    --------
    >>> from attnmask import causal
    >>> to_huggingface_4d(causal(), 2)[0, 0]
    tensor([[ 0.0000e+00, -3.4028e+38],
            [ 0.0000e+00,  0.0000e+00]])
    """
    lowest = torch.finfo(dtype).min if isinstance(dtype, torch.dtype) and dtype.is_floating_point else -math.inf
    return to_additive(mask, query_len, key_len, batch=batch, heads=heads, dtype=dtype, fill=lowest, device=device)


def from_huggingface(attention_mask: Any) -> Mask:
    """Read the ``attention_mask`` of a Hugging Face model.

    Parameters
    ----------
    attention_mask
        (batch, key) of zeros and ones, 1 = real; or four axes of numbers to add; from
        any framework. The models check neither: 2-D numbers are cast to bool, which turns 0/-inf
        upside down, and a 4-D bool mask is right under SDPA and added by eager attention.

    Raises
    ------
    ValueError, TypeError
        What the models would take silently and wrongly; other ranks.

    Examples
    --------
    >>> from_huggingface(torch.tensor([[1, 1, 0]]))
    padding(keep[1, 3])
    """
    attention_mask = as_tensor("attention_mask", attention_mask, "batch, key", FOUR)
    if attention_mask.dim() == 2:
        return padding(read_zero_one("attention_mask", attention_mask))
    if attention_mask.dtype == torch.bool:
        raise type_error(
            "a 4-D attention_mask of numbers to add",
            kind_of(attention_mask),
            "a mask made for SDPA; eager attention would add it as zeros and ones. Use to_huggingface_4d",
        )
    return from_dense(read_additive("attention_mask", attention_mask))
