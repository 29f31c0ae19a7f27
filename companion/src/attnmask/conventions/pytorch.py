"""How does PyTorch write a mask: SDPA, MultiheadAttention, Transformer, FlexAttention?"""

import operator
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attnmask._check import count, kind_of, type_error, value_error
from attnmask.conventions.entries import FOUR, AnyMask, Device, as_tensor, read_additive, read_blocked, write_dense
from attnmask.conventions.table import Convention
from attnmask.masks import Mask, Rule, causal, everything, from_dense, graph, padding

# fmt: off
ROWS = (
    Convention("PyTorch", "F.scaled_dot_product_attention", "attn_mask", "torch", "2.13.0",
               "True = attend", "bool", "(B, H, L, S), broadcasts",
               "zeros; on a GPU in half precision (cuDNN): the unmasked row", "to_sdpa",
               corner="upper left", note="attn_mask or is_causal, not both"),
    Convention("PyTorch", "F.scaled_dot_product_attention", "attn_mask (float)", "torch", "2.13.0",
               "added to scores", "that of the query", "(B, H, L, S), broadcasts",
               "zeros; -1e9 in float32: mean of all values", "to_additive", corner="upper left"),
    Convention("PyTorch", "nn.MultiheadAttention", "key_padding_mask", "torch", "2.13.0",
               "True = blocked; floats are added", "bool", "(B, S)",
               "NaN; without weights, off the fast path: the output bias", "to_multihead"),
    Convention("PyTorch", "nn.MultiheadAttention", "attn_mask", "torch", "2.13.0",
               "True = blocked; floats are added", "bool", "(L, S) or (B·H, L, S)",
               "NaN; without weights, off the fast path: the output bias", "to_multihead",
               note="index sample · H + head; is_causal is only a hint"),
    Convention("PyTorch", "nn.Transformer", "six masks", "torch", "2.13.0",
               "True = blocked; floats are added, or cast to bool in the encoder's fast path", "bool",
               "(B, S); (L, S) or (B·H, L, S)",
               "the output bias; on the fast path: NaN, or zeros in nested tensors", "to_transformer"),
    Convention("PyTorch", "FlexAttention", "mask_mod", "torch", "2.13.0",
               "True = attend", "function", "of b, h, q, k", "zeros", "to_flex",
               note="B=None takes the blocks of sample 0 for all"),
)
# fmt: on

_HINT = "taken for a mask: it is a hint about attn_mask, and where it lies, some paths follow it and others do not"


# ---- scaled_dot_product_attention ------------------------------------------------------


def to_sdpa(
    mask: AnyMask,
    query_len: int,
    key_len: int | None = None,
    *,
    batch: int = 1,
    heads: int = 1,
    device: Device = None,
) -> dict[str, Any]:
    """Write a mask as arguments of ``F.scaled_dot_product_attention``: a mask or the causal flag, never both.

    Returns
    -------
    dict
        ``attn_mask``, bool of four axes, True = may attend, or None; and ``is_causal``,
        True where that says it all: a causal mask of as many queries as keys. Then
        PyTorch can skip the blocked half. A row with nothing to look at gets zeros on a CPU;
        on a GPU in half precision, cuDNN's kernel leaves it unmasked (seen with PyTorch 2.11).

    Raises
    ------
    ValueError, TypeError
        As in `Mask.dense`.

    Examples
    --------
    >>> to_sdpa(causal(), 4)
    {'attn_mask': None, 'is_causal': True}
    >>> to_sdpa(causal().after(2), 2, 4)["attn_mask"].shape
    torch.Size([1, 1, 2, 4])
    """
    allowed = write_dense(mask, query_len, key_len, batch, heads, device)
    if bool(allowed.all()):
        return {"attn_mask": None, "is_causal": False}
    triangle = torch.ones(query_len, query_len, dtype=torch.bool, device=allowed.device).tril()
    if allowed.shape == (1, 1, query_len, query_len) and torch.equal(allowed[0, 0], triangle):
        return {"attn_mask": None, "is_causal": True}
    return {"attn_mask": allowed, "is_causal": False}


def from_sdpa(attn_mask: Tensor | None = None, is_causal: bool = False) -> Mask:
    """Read the arguments of ``F.scaled_dot_product_attention``.

    Parameters
    ----------
    attn_mask
        Four axes (batch, head, query, key), each full or 1: bool, True = may attend,
        or floating point, added. PyTorch takes fewer axes too; here they are refused,
        because it takes (batch, key) for (query, key) wherever the sizes allow it.
    is_causal
        key <= query, counted from the upper left corner.

    Raises
    ------
    ValueError, TypeError
        Both at once; fewer than four axes; numbers that are not 0 or -9000 and less.

    Examples
    --------
    >>> from_sdpa(is_causal=True)
    causal()
    """
    if not isinstance(is_causal, bool):
        raise type_error("is_causal to be True or False", kind_of(is_causal), "a mask or a text in the flag's place")
    if attn_mask is None:
        return causal() if is_causal else everything()
    if is_causal:
        raise value_error(
            "attn_mask or is_causal=True",
            "both",
            "a padding mask given beside the causal flag; some of PyTorch's kernels join the two, others raise. "
            "Write causal() & padding(keep)",
        )
    attn_mask = as_tensor("attn_mask", attn_mask, FOUR)
    return from_dense(attn_mask if attn_mask.dtype == torch.bool else read_additive("attn_mask", attn_mask))


# ---- MultiheadAttention ----------------------------------------------------------------


def to_multihead(
    mask: AnyMask,
    query_len: int,
    key_len: int | None = None,
    *,
    batch: int = 1,
    heads: int = 1,
    device: Device = None,
) -> dict[str, Tensor | None]:
    """Write a mask as the two arguments of ``nn.MultiheadAttention``, where True means blocked.

    Keys that no query of a sample may look at go into ``key_padding_mask``, what is
    the same in every sample into ``attn_mask``. Where that does not say it all,
    ``attn_mask`` gets an axis of batch times heads.

    Parameters
    ----------
    mask
        A `Mask`, or a bool tensor of four axes (batch, head, query, key), each full or 1.
    query_len, key_len, batch, heads, device
        As in `Mask.dense`; ``heads`` is the layer's ``num_heads``.

    Returns
    -------
    dict
        ``key_padding_mask``: bool (batch, key) or None; ``attn_mask``: bool
        (query, key) or (batch * heads, query, key) with index sample * heads + head, or
        None. True = blocked. A row with nothing to look at gets NaN, or ``out_proj.bias``.

    Raises
    ------
    ValueError, TypeError
        As in `Mask.dense`.

    Examples
    --------
    >>> keep = torch.tensor([[True, True, False], [True, True, True]])
    >>> to_multihead(causal() & padding(keep), 3)["attn_mask"]
    tensor([[False,  True,  True],
            [False, False,  True],
            [False, False, False]])
    >>> to_multihead(causal() & padding(keep), 3)["key_padding_mask"]
    tensor([[False, False,  True],
            [False, False, False]])
    """
    key_len = query_len if key_len is None else key_len
    allowed = write_dense(mask, query_len, key_len, batch, heads, device)
    samples, of_keys_only = max(allowed.shape[0], batch), allowed.shape[2] == 1 != query_len
    allowed = allowed.expand(-1, -1, query_len, key_len)
    if allowed.shape[:2] == (1, 1) and not of_keys_only:  # the same everywhere: no batch axis is needed
        return {"key_padding_mask": None, "attn_mask": _unless_none(~allowed[0, 0])}
    keep = allowed.any(dim=(1, 2))  # (batch or 1, key)
    pairs = allowed.any(dim=(0, 1))  # (query, key)
    if bool((allowed == (pairs & keep[:, None, None])).all()):
        told = ~keep.any(dim=0)  # blocked in every sample: the key_padding_mask says so already
        return {
            "key_padding_mask": _unless_none(~keep.expand(samples, -1)),
            "attn_mask": _unless_none(~pairs) if bool((~pairs & ~told).any()) else None,
        }
    heads = max(allowed.shape[1], heads)
    return {"key_padding_mask": None, "attn_mask": ~allowed.expand(samples, heads, -1, -1).flatten(0, 1)}


def from_multihead(
    key_padding_mask: Tensor | None = None,
    attn_mask: Tensor | None = None,
    *,
    heads: int | None = None,
    is_causal: bool = False,
) -> Mask:
    """Read the two arguments of ``nn.MultiheadAttention``.

    Parameters
    ----------
    key_padding_mask
        (batch, key), or (key,) for one sample; bool, True = blocked, or floating point, added.
    attn_mask
        (query, key) or (batch * heads, query, key); bool, True = blocked, or floating point, added.
    heads
        The layer's ``num_heads``; needed where ``attn_mask`` has three axes.
    is_causal
        The layer's hint that ``attn_mask`` is causal; checked, since the layer does not.

    Raises
    ------
    ValueError, TypeError
        Other ranks; a first axis that is no multiple of ``heads``; two masks of
        different sizes; numbers that are not 0 or -9000 and less; a hint that lies.

    Examples
    --------
    >>> blocked = torch.tensor([[False, True], [False, False]])
    >>> from_multihead(attn_mask=blocked).same_as(causal(), 2)
    True
    """
    masks = []
    if attn_mask is not None:
        allowed = read_blocked("attn_mask", attn_mask, "query, key", "batch * heads, query, key")
        if is_causal and not torch.equal(allowed, torch.ones_like(allowed).tril()):
            raise value_error("is_causal=True with the causal attn_mask", kind_of(attn_mask), _HINT)
        heads = 0 if heads is None else count("heads", heads)
        if allowed.dim() == 3 and (heads == 0 or allowed.shape[0] % heads):
            raise value_error(
                "heads, and an attn_mask whose first axis is batch * heads",
                f"heads={heads or None} and {kind_of(attn_mask)}",
                "a (batch, query, key) mask; repeat it for the heads of each sample: "
                "mask.repeat_interleave(heads, dim=0)",
            )
        if allowed.dim() == 3:
            allowed = allowed.reshape(len(allowed) // heads, heads, *allowed.shape[1:])
        masks.append(graph(allowed) if allowed.dim() == 2 else from_dense(allowed))
    elif is_causal:
        raise value_error("is_causal=True with the causal attn_mask", "no attn_mask", _HINT)
    if key_padding_mask is not None:
        keep = read_blocked("key_padding_mask", key_padding_mask, "key", "batch, key")
        masks.append(padding(keep if keep.dim() == 2 else keep[None]))
    return reduce(operator.and_, masks) if masks else everything()


def _unless_none(blocked: Tensor) -> Tensor | None:
    """Return what is blocked, or None where nothing is."""
    return blocked if bool(blocked.any()) else None


# ---- Transformer -----------------------------------------------------------------------


class ThreeMasks(NamedTuple):
    """Who may attend to whom in the three attentions of an encoder–decoder."""

    source: Mask
    target: Mask
    memory: Mask


def to_transformer(
    source: AnyMask,
    target: AnyMask,
    memory: AnyMask | None = None,
    *,
    source_len: int,
    target_len: int,
    batch: int = 1,
    heads: int = 1,
    device: Device = None,
) -> dict[str, Tensor | None]:
    """Write the six masks of ``nn.Transformer``, where True means blocked.

    Parameters
    ----------
    source, target
        Who may attend to whom in the encoder, and in the decoder: usually
        ``padding(source_keep)`` and ``causal() & padding(target_keep)``.
    memory
        What the target may see of the source; by default every source token that
        some source token may see, which keeps the padding out.
    source_len, target_len, batch, heads, device
        The sizes of the two sides; ``heads`` is the model's ``nhead``.

    Returns
    -------
    dict
        ``src_mask``, ``tgt_mask``, ``memory_mask``, ``src_key_padding_mask``,
        ``tgt_key_padding_mask``, ``memory_key_padding_mask``: bool tensors as
        `to_multihead` gives them, or None.

    Raises
    ------
    ValueError, TypeError
        As in `Mask.dense`.

    Examples
    --------
    >>> keep = torch.tensor([[True, True, False]])
    >>> six = to_transformer(padding(keep), causal(), source_len=3, target_len=2)
    >>> [name for name, mask in six.items() if mask is not None]
    ['tgt_mask', 'src_key_padding_mask', 'memory_key_padding_mask']
    """
    if memory is None:
        seen = write_dense(source, source_len, None, batch, heads, device).expand(-1, -1, source_len, source_len)
        memory = padding(seen.any(dim=(1, 2)))
    pairs = {
        "src": to_multihead(source, source_len, batch=batch, heads=heads, device=device),
        "tgt": to_multihead(target, target_len, batch=batch, heads=heads, device=device),
        "memory": to_multihead(memory, target_len, source_len, batch=batch, heads=heads, device=device),
    }
    return {f"{side}_mask": pair["attn_mask"] for side, pair in pairs.items()} | {
        f"{side}_key_padding_mask": pair["key_padding_mask"] for side, pair in pairs.items()
    }


def from_transformer(
    src_mask: Tensor | None = None,
    tgt_mask: Tensor | None = None,
    memory_mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    tgt_key_padding_mask: Tensor | None = None,
    memory_key_padding_mask: Tensor | None = None,
    *,
    heads: int | None = None,
) -> ThreeMasks:
    """Read the six masks of ``nn.Transformer``, each as `from_multihead` does.

    Examples
    --------
    >>> from_transformer(src_key_padding_mask=torch.tensor([[False, True]])).source
    padding(keep[1, 2])
    """
    return ThreeMasks(
        from_multihead(src_key_padding_mask, src_mask, heads=heads),
        from_multihead(tgt_key_padding_mask, tgt_mask, heads=heads),
        from_multihead(memory_key_padding_mask, memory_mask, heads=heads),
    )


# ---- FlexAttention ---------------------------------------------------------------------


def to_flex(
    mask: AnyMask, query_len: int, key_len: int | None = None, *, batch: int = 1, heads: int = 1
) -> dict[str, Any]:
    """Write a mask as arguments of FlexAttention's ``create_block_mask``.

    Returns
    -------
    dict
        ``mask_mod``, a rule of (batch, head, query, key), True = may attend; and the
        sizes to ask it for. Without ``B`` FlexAttention takes the blocks of sample 0 for all.

    Raises
    ------
    ValueError, TypeError
        As in `Mask.dense`.

    Examples
    --------
    >>> to_flex(causal(), 4)
    {'mask_mod': causal(), 'B': None, 'H': None, 'Q_LEN': 4, 'KV_LEN': 4}
    """
    key_len = query_len if key_len is None else key_len
    shape = write_dense(mask, query_len, key_len, batch, heads, None).shape
    return {
        "mask_mod": mask if isinstance(mask, Mask) else from_dense(mask),
        "B": max(shape[0], batch) if max(shape[0], batch) > 1 else None,
        "H": max(shape[1], heads) if max(shape[1], heads) > 1 else None,
        "Q_LEN": query_len,
        "KV_LEN": key_len,
    }


def from_flex(
    mask_mod: Rule, B: int | None = None, H: int | None = None, Q_LEN: int | None = None, KV_LEN: int | None = None
) -> Mask:
    """Read a FlexAttention ``mask_mod`` and the sizes that it is asked for.

    Examples
    --------
    >>> from_flex(lambda b, h, q, kv: kv <= q).same_as(causal(), 3)
    True
    """
    if hasattr(mask_mod, "mask_mod"):
        raise type_error("a mask_mod, a function", type(mask_mod).__name__, "a BlockMask; its rule is its .mask_mod")
    return Mask(mask_mod, batch=B or 1, heads=H or 1, query_len=Q_LEN, key_len=KV_LEN)
