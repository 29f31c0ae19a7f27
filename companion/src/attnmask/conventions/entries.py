"""What do the entries of a foreign mask say?

`read_…` reads them into bools, True = may attend; `write_dense` gives the bools that every `to_…` starts from.
"""

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from attnmask._check import kind_of, type_error, value_error
from attnmask.masks import Mask, from_dense

AnyMask = Mask | Bool[Tensor, "batch_or_1 heads_or_1 query_or_1 key_or_1"]
Device = torch.device | str | None

FOUR = "batch, head, query, key"
BLOCKS = -9_000.0  # what a finite fill stays below: the weakest in use is -1e4, which bfloat16 rounds to -9984
_NAN = "0 times minus infinity, or an empty row that went through a softmax"
_CAUSES = {
    2: "two readings fit, (batch, key) and (query, key); say which: mask[:, None, None] or mask[None, None]",
    3: "two readings fit, (batch, query, key) and (head, query, key); say which: mask[:, None] or mask[None]",
}


def as_tensor(name: str, mask: Any, *axes: str) -> Tensor:
    """Return a mask from any framework as a tensor, of one of these axes where they are given.

    >>> as_tensor("mask", [[1, 0]], "batch, key")
    tensor([[1, 0]])
    """
    if hasattr(mask, "dense"):
        raise type_error(
            f"{name} to be a tensor", repr(mask), "a Mask, which needs no reading; a to_ function writes it"
        )
    if not isinstance(mask, Tensor):
        try:
            mask = torch.as_tensor(mask)
        except (TypeError, ValueError, RuntimeError) as error:
            cause = f"no array, or one that PyTorch cannot take: {str(error).splitlines()[0].rstrip('.')}"
            raise type_error(f"{name} to be a tensor or an array", kind_of(mask), cause) from error
    odd = mask.is_complex() or (mask.is_floating_point() and mask.dtype.itemsize == 1)
    if odd or mask.layout != torch.strided or mask.is_meta:
        expected = f"{name} to be a dense tensor of bools, integers, or floats of 16 bits and more"
        raise type_error(
            expected, kind_of(mask), "a sparse, quantised or meta tensor, whose entries cannot be read here"
        )
    if axes and mask.dim() not in [text.count(",") + 1 for text in axes]:
        causes = _CAUSES if FOUR in axes else {}
        expected = f"{name} of shape ({') or ('.join(axes)})"
        raise value_error(expected, kind_of(mask), causes.get(mask.dim(), "an axis was lost or added on the way"))
    return mask


def read_additive(name: str, additive: Any, *axes: str) -> Tensor:
    """Return where numbers that are added allow.

    >>> read_additive("mask", torch.tensor([0.0, -torch.inf]), "key")
    tensor([ True, False])
    """
    additive = as_tensor(name, additive, *axes)
    expected = f"{name} of floats to add: 0 = may attend, minus infinity or at most {BLOCKS:.0f} = blocked"
    if not additive.is_floating_point():
        raise type_error(expected, kind_of(additive), "a bool mask, or zeros and ones, where numbers to add were meant")
    allowed = additive == 0
    odd = additive[~allowed & ~(additive <= BLOCKS)]
    if odd.numel():
        cause = "a bias such as ALiBi, or scores: more than a yes or no for each pair"
        if bool((odd == 1).all()):
            cause = "zeros and ones, which would be added and block nothing; read mask.bool() or ~mask.bool()"
        raise value_error(expected, f"{odd[0].item():g} in {kind_of(additive)}", _NAN if odd[0].isnan() else cause)
    return allowed


def read_blocked(name: str, mask: Any, *axes: str) -> Tensor:
    """Return where a mask of nn.MultiheadAttention allows: bool and True = blocked, or numbers to add.

    >>> read_blocked("mask", torch.tensor([False, True]), "key")
    tensor([ True, False])
    """
    mask = as_tensor(name, mask, *axes)
    return ~mask if mask.dtype == torch.bool else read_additive(name, mask)


def read_zero_one(name: str, mask: Any, *axes: str) -> Tensor:
    """Return where a mask of bools, or of zeros and ones, allows: True or 1.

    >>> read_zero_one("mask", torch.tensor([1, 0]), "key")
    tensor([ True, False])
    """
    mask = as_tensor(name, mask, *axes)
    expected = f"{name} of bools or of zeros and ones, 1 = may attend"
    if mask.dtype == torch.bool:
        return mask
    odd = mask[(mask != 0) & (mask != 1)]
    if odd.numel():
        cause = "token ids; compare them with the pad id: ids != pad_id"
        if bool((mask < 0).any()):
            cause = "numbers to add to the scores; cast to bool, minus infinity would become True and 0 False"
        raise value_error(expected, f"{odd[0].item():g} in {kind_of(mask)}", _NAN if bool(odd.isnan().any()) else cause)
    if mask.is_floating_point() and mask.numel() and not bool(mask.any()):
        cause = "a mask to add that blocks nothing, which would block everything"
        raise value_error(expected, f"zeros only in {kind_of(mask)}", cause)
    return mask == 1


def write_dense(mask: AnyMask, query_len: int, key_len: int | None, batch: int, heads: int, device: Device) -> Tensor:
    """Return the smallest bool tensor of four axes; a dense mask is asked as a `Mask` is, where it lies."""
    if isinstance(mask, Mask):
        return mask.dense(query_len, key_len, batch=batch, heads=heads, device=device)
    rule = from_dense(mask)
    return rule.dense(query_len, key_len, batch=batch, heads=heads, device=mask.device if device is None else device)
