"""How is a mask written as numbers that are added to the scores?"""

import math
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor

from attnmask._check import kind_of, type_error, value_error
from attnmask.conventions.entries import BLOCKS, FOUR, AnyMask, Device, read_additive, write_dense
from attnmask.masks import Mask, from_dense


def to_additive(
    mask: AnyMask,
    query_len: int,
    key_len: int | None = None,
    *,
    batch: int = 1,
    heads: int = 1,
    dtype: torch.dtype = torch.float32,
    fill: float = -math.inf,
    device: Device = None,
) -> Float[Tensor, "batch_or_1 heads_or_1 query_or_1 key_or_1"]:
    """Write a mask as numbers to add to the scores: 0 where a query may look, ``fill`` where not.

    Parameters
    ----------
    mask
        A `Mask`, or a bool tensor of four axes (batch, head, query, key), each full or 1.
    query_len, key_len, batch, heads, device
        As in `Mask.dense`.
    dtype
        A floating-point dtype: that of the scores.
    fill
        Minus infinity, or a number that blocks (-9000 or less) and that ``dtype`` can hold.

    Returns
    -------
    Float[Tensor, "batch_or_1 heads_or_1 query_or_1 key_or_1"]
        The smallest tensor that broadcasts to the scores. A row of nothing but
        ``fill`` ends as NaN where that is minus infinity; else it depends on rounding.

    Raises
    ------
    ValueError, TypeError
        A fill that ``dtype`` cannot hold, or that would not block; sizes that do not fit.

    Examples
    --------
    >>> from attnmask import causal
    >>> to_additive(causal(), 2)[0, 0]
    tensor([[0., -inf],
            [0., 0.]])
    """
    if dtype not in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        cause = "the dtype of another framework, or a bool mask was meant; mask.dense"
        raise type_error(
            "dtype to be torch.float64, float32, bfloat16 or float16, that of the scores", str(dtype), cause
        )
    if not isinstance(fill, Real) or not fill <= BLOCKS:
        raise value_error(
            f"fill to be minus infinity or at most {BLOCKS:.0f}",
            kind_of(fill),
            "a sign slip, or a number so small that scores of its size would shine through",
        )
    lowest = torch.finfo(dtype).min
    if -math.inf < fill < lowest:
        raise value_error(
            f"a fill that {dtype} can hold: {lowest:.4g} or more, or -math.inf",
            kind_of(fill),
            f"a constant written for float32; in {dtype} it would become minus infinity, and an empty row NaN",
        )
    blocked = ~write_dense(mask, query_len, key_len, batch, heads, device)
    return torch.zeros(blocked.shape, dtype=dtype, device=blocked.device).masked_fill(blocked, float(fill))


def from_additive(additive: Float[Tensor, "batch_or_1 heads_or_1 query_or_1 key_or_1"]) -> Mask:
    """Read a mask of numbers that are added to the scores: 0 allows, -9000 or less blocks.

    Parameters
    ----------
    additive
        Floating point, four axes (batch, head, query, key), each full or 1.

    Raises
    ------
    ValueError, TypeError
        Any other number: zeros and ones, or a bias such as ALiBi, which is no mask; other ranks.

    Examples
    --------
    >>> from attnmask import causal
    >>> from_additive(torch.tensor([[[[0.0, -torch.inf], [0.0, 0.0]]]])).same_as(causal(), 2)
    True
    """
    return from_dense(read_additive("additive", additive, FOUR))
