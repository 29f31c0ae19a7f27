"""How every other library writes the same mask: `to_…` writes it, `from_…` reads it back.

True means "may attend" in this package. Elsewhere True may mean "blocked", or the
mask is a number added to the scores, and every library has a shape of its own. All
of that is known here and nowhere else. `LIBRARIES` is the same knowledge as a table.
"""

import math
import operator
from functools import reduce
from numbers import Real
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from attnmask._check import count, kind_of, type_error, value_error
from attnmask._entries import BLOCKS, FOUR, as_tensor, not_blocked, numbers, ones
from attnmask._libraries import LIBRARIES as LIBRARIES
from attnmask._libraries import Convention as Convention
from attnmask._libraries import as_markdown as as_markdown
from attnmask._libraries import need as need
from attnmask._varlen import Varlen as Varlen
from attnmask._varlen import pack, unpack
from attnmask.masks import Mask, Rule, causal, everything, from_dense, graph, padding

AnyMask = Mask | Bool[Tensor, "batch_or_1 heads_or_1 query_or_1 key_or_1"]
Device = torch.device | str | None

_HINT = "taken for a mask: it is a hint about attn_mask, and where it lies, some paths follow it and others do not"

# ---- numbers that are added ---------------------------------------------------------


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
    blocked = ~_dense(mask, query_len, key_len, batch, heads, device)
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
    >>> from_additive(torch.tensor([[[[0.0, -torch.inf], [0.0, 0.0]]]])).same_as(causal(), 2)
    True
    """
    return from_dense(numbers("additive", additive, FOUR))


# ---- PyTorch --------------------------------------------------------------------------


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
        PyTorch can skip the blocked half. A row with nothing to look at gets zeros.

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
    allowed = _dense(mask, query_len, key_len, batch, heads, device)
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
    return from_dense(attn_mask if attn_mask.dtype == torch.bool else numbers("attn_mask", attn_mask))


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
    allowed = _dense(mask, query_len, key_len, batch, heads, device)
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
        allowed = not_blocked("attn_mask", attn_mask, "query, key", "batch * heads, query, key")
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
        keep = not_blocked("key_padding_mask", key_padding_mask, "key", "batch, key")
        masks.append(padding(keep if keep.dim() == 2 else keep[None]))
    return reduce(operator.and_, masks) if masks else everything()


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
        seen = _dense(source, source_len, None, batch, heads, device).expand(-1, -1, source_len, source_len)
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
    shape = _dense(mask, query_len, key_len, batch, heads, None).shape
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


# ---- Hugging Face -----------------------------------------------------------------------


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
    allowed = _dense(mask, query_len, key_len, batch, 1, device)
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
        return padding(ones("attention_mask", attention_mask))
    if attention_mask.dtype == torch.bool:
        raise type_error(
            "a 4-D attention_mask of numbers to add",
            kind_of(attention_mask),
            "a mask made for SDPA; eager attention would add it as zeros and ones. Use to_huggingface_4d",
        )
    return from_dense(numbers("attention_mask", attention_mask))


# ---- Keras, JAX, Flax -------------------------------------------------------------------


def to_keras(
    mask: AnyMask, query_len: int, key_len: int | None = None, *, batch: int = 1, heads: int = 1
) -> Bool[Tensor, "batch *heads query key"]:
    """Write a mask as the ``attention_mask`` of ``keras.layers.MultiHeadAttention``: True = may attend.

    Returns
    -------
    Bool[Tensor, "batch *heads query key"]
        (batch, query, key); with a head axis, (batch, heads, query, key), where the heads
        differ. ``.numpy()`` of it suits every backend.

    Raises
    ------
    ValueError, TypeError
        As in `Mask.dense`.

    Examples
    --------
    >>> to_keras(causal(), 2)
    tensor([[[ True, False],
             [ True,  True]]])
    """
    allowed = to_flax(mask, query_len, key_len, batch=batch, heads=heads)
    allowed = allowed.expand(max(allowed.shape[0], batch), -1, -1, -1).contiguous()
    return allowed if allowed.shape[1] > 1 else allowed[:, 0]


def from_keras(attention_mask: Any) -> Mask:
    """Read the ``attention_mask`` of ``keras.layers.MultiHeadAttention``.

    Parameters
    ----------
    attention_mask
        (batch, query, key) or (batch, heads, query, key), from any framework: bool, or
        zeros and ones; True or 1 = may attend. Keras casts numbers to bool, which
        turns a mask of 0/-inf upside down; that is refused here.

    Raises
    ------
    ValueError, TypeError
        Other numbers, other ranks.

    Examples
    --------
    >>> from_keras(torch.ones(1, 3, 3).tril()).same_as(causal(), 3)
    True
    """
    allowed = ones("attention_mask", attention_mask, "batch, query, key", FOUR)
    return from_dense(allowed if allowed.dim() == 4 else allowed[:, None])


def to_flax(
    mask: AnyMask, query_len: int, key_len: int | None = None, *, batch: int = 1, heads: int = 1
) -> Bool[Tensor, "batch_or_1 heads_or_1 query key"]:
    """Write a mask as the ``mask`` of ``jax.nn.dot_product_attention`` and of Flax: True = may attend.

    Returns
    -------
    Bool[Tensor, "batch_or_1 heads_or_1 query key"]
        The batch and head axes are 1 where nothing depends on them. ``jnp.asarray``
        takes it as it is.

    Raises
    ------
    ValueError, TypeError
        As in `Mask.dense`.

    Examples
    --------
    >>> to_flax(causal(), 4).shape
    torch.Size([1, 1, 4, 4])
    """
    key_len = query_len if key_len is None else key_len
    return _dense(mask, query_len, key_len, batch, heads, None).expand(-1, -1, query_len, key_len).contiguous()


def from_flax(mask: Any) -> Mask:
    """Read the ``mask`` of ``jax.nn.dot_product_attention`` or of Flax: (batch, heads, query, key), 1 = may attend.

    Bool, or zeros and ones, as Flax's own ``make_causal_mask`` gives.

    Examples
    --------
    >>> from_flax(torch.ones(1, 1, 3, 3).tril()).same_as(causal(), 3)
    True
    """
    return from_dense(ones("mask", mask, FOUR))


# ---- xFormers and FlashAttention: GPU libraries, written from their documentation ----------


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

    >>> from attnmask import documents
    >>> packed = to_flash(documents(torch.tensor([[0, 0, 0, 1, 1]])) & causal(), 5)
    >>> packed.cu_seqlens_q, packed.causal
    (tensor([0, 3, 5], dtype=torch.int32), True)

    References
    ----------
    Dao, "FlashAttention-2" (2023); alignment as of flash-attn 2.1.
    """
    key_len = query_len if key_len is None else key_len
    allowed = _dense(mask, query_len, key_len, batch, 1, device)
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


# ---- what they share -------------------------------------------------------------------


def _dense(mask: Any, query_len: int, key_len: int | None, batch: int, heads: int, device: Device) -> Tensor:
    """Return the smallest bool tensor of four axes; a dense mask is asked as a `Mask` is, where it lies."""
    if isinstance(mask, Mask):
        return mask.dense(query_len, key_len, batch=batch, heads=heads, device=device)
    rule = from_dense(mask)
    return rule.dense(query_len, key_len, batch=batch, heads=heads, device=mask.device if device is None else device)


def _unless_none(blocked: Tensor) -> Tensor | None:
    """Return what is blocked, or None where nothing is."""
    return blocked if bool(blocked.any()) else None
