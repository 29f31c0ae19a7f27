"""How do xFormers and FlashAttention write a mask? They run on GPUs only: written from their documentation."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from attnmask._check import kind_of, value_error
from attnmask.conventions.additive import from_additive, to_additive
from attnmask.conventions.entries import AnyMask, Device, write_dense
from attnmask.conventions.table import Convention
from attnmask.conventions.varlen import Varlen, pack, unpack
from attnmask.masks import Mask, graph

# fmt: off
ROWS = (
    Convention("xFormers", "memory_efficient_attention", "attn_bias", "", "",
               "added to scores", "that of the query", "(B, H, L, S)", "not stated", "to_xformers",
               note="GPU only; rows start at multiples of 8",
               source="https://facebookresearch.github.io/xformers/components/ops.html"),
    Convention("FlashAttention", "flash_attn_varlen_func", "cu_seqlens_q, cu_seqlens_k", "", "",
               "cumulative lengths", "int32", "(sequences + 1,)",
               "not computed; more queries than keys, causal: zeros", "to_flash",
               corner="lower right", window="window_size=(l, r): l + 1 + r keys",
               note="GPU only; padding is left out",
               source="https://github.com/Dao-AILab/flash-attention#how-to-use-flashattention"),
)
# fmt: on


def to_xformers(
    mask: AnyMask,
    query_len: int,
    key_len: int | None = None,
    *,
    batch: int = 1,
    heads: int = 1,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> Float[Tensor, "batch heads query key"]:
    """Write a mask as a tensor ``attn_bias`` of xFormers' ``memory_efficient_attention``.

    Its kernels broadcast nothing and want rows that start at multiples of eight
    numbers, so this is a full tensor, cut out of one whose rows are that long.

    Returns
    -------
    Float[Tensor, "batch heads query key"]
        0 = may attend, minus infinity = blocked.

    Raises
    ------
    ValueError, TypeError
        As in `to_additive`.

    Examples
    --------
    >>> from attnmask import causal
    >>> bias = to_xformers(causal(), 3, heads=2)
    >>> bias.shape, bias.stride(-2)
    (torch.Size([1, 2, 3, 3]), 8)
    """
    additive = to_additive(mask, query_len, key_len, batch=batch, heads=heads, dtype=dtype, device=device)
    key_len = query_len if key_len is None else key_len
    shape = (max(additive.shape[0], batch), max(additive.shape[1], heads), query_len, key_len)
    bias = additive.new_zeros(*shape[:3], math.ceil(key_len / 8) * 8)[..., :key_len]
    return bias.copy_(additive)


def from_xformers(attn_bias: Float[Tensor, "batch heads query key"]) -> Mask:
    """Read a tensor ``attn_bias`` of xFormers; the same numbers as `from_additive`.

    Examples
    --------
    >>> from attnmask import causal
    >>> from_xformers(to_xformers(causal(), 3)).same_as(causal(), 3)
    True
    """
    return from_additive(attn_bias)


def to_flash(
    mask: AnyMask, query_len: int, key_len: int | None = None, *, batch: int = 1, device: Device = None
) -> Varlen:
    """Write a mask as FlashAttention's cumulative lengths, where it is of that kind.

    That kind: each query sees one run of keys, the whole of its sequence or, in a causal
    mask, all of it up to the query's own place. Queries that see nothing are left out,
    and so are keys that nobody sees. ``flash_attn_varlen_func`` takes
    ``query.flatten(0, 1)[query_at]``, the same of key and value with ``key_at``, and the other
    fields as they are called; what it gives goes back to ``query_at`` in a tensor of zeros.

    Raises
    ------
    ValueError, TypeError
        A mask of another kind: one that differs between heads, a window, a prefix, or padded
        *queries* that look at real keys behind a causal mask.

    Examples
    --------
    Two documents in one row:

    >>> from attnmask import causal, documents
    >>> packed = to_flash(documents(torch.tensor([[0, 0, 0, 1, 1]])) & causal(), 5)
    >>> packed.cu_seqlens_q, packed.causal
    (tensor([0, 3, 5], dtype=torch.int32), True)

    References
    ----------
    Dao, "FlashAttention-2" (2023); alignment as of flash-attn 2.1.
    """
    key_len = query_len if key_len is None else key_len
    allowed = write_dense(mask, query_len, key_len, batch, 1, device)
    allowed = allowed.expand(max(allowed.shape[0], batch), -1, query_len, key_len)
    packed = pack(allowed[:, 0]) if bool((allowed == allowed[:, :1]).all()) else None
    if packed is not None:
        return packed
    raise value_error(
        "sequences one after the other in each sample, each seen whole or causally",
        repr(mask) if isinstance(mask, Mask) else kind_of(mask),
        "a mask that cumulative lengths cannot hold: a window, a prefix, a graph, or padded queries behind a causal "
        "mask; those are left out if you write causal() & padding(keep) & padding(keep).T",
    )


def from_flash(packed: Varlen, query_len: int, key_len: int | None = None, *, batch: int = 1) -> Mask:
    """Read a packed batch: who sees whom in the (batch, length) tensors that it was taken from.

    Raises
    ------
    ValueError, TypeError
        Fields that do not fit each other, or a sequence that runs over the end of a sample.

    Examples
    --------
    >>> from attnmask import documents
    >>> packed = to_flash(documents(torch.tensor([[0, 0, 1]])), 3)
    >>> from_flash(packed, 3).same_as(documents(torch.tensor([[0, 0, 1]])), 3)
    True
    """
    return graph(unpack(packed, batch, query_len, query_len if key_len is None else key_len))
