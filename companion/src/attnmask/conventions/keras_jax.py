"""How do Keras, TensorFlow, JAX and Flax write a mask?"""

from typing import Any

from jaxtyping import Bool
from torch import Tensor

from attnmask.conventions.entries import FOUR, AnyMask, read_zero_one, write_dense
from attnmask.conventions.table import Convention
from attnmask.masks import Mask, from_dense

# fmt: off
ROWS = (
    Convention("Keras", "layers.MultiHeadAttention", "attention_mask", "keras", "3.15.1",
               "True = attend", "bool", "(B, L, S) or (B, H, L, S), broadcasts",
               "mean of all values; with dropout or return_attention_scores=True: zeros", "to_keras",
               corner="upper left",
               note="numbers are cast to bool; the call takes query, value, key; "
                    "a mask that came along with an input is taken off it"),
    Convention("TensorFlow", "tf.where(mask, scores, -1e9)", "mask", "tensorflow", "2.21.0",
               "True = attend", "bool", "(B, H, L, S), broadcasts", "mean of all values", "mask.dense",
               note="by hand"),
    Convention("JAX", "jax.nn.dot_product_attention", "mask", "jax", "0.10.2",
               "True = attend", "bool", "(B, H, L, S), broadcasts", "mean of all values", "to_flax",
               corner="upper left", window="local_window_size=(l, r): l + 1 + r keys",
               note="query is (B, L, H, d); refuses numbers"),
    Convention("Flax", "nnx.dot_product_attention", "mask", "flax", "0.12.8",
               "True = attend", "bool", "(B, H, L, S), broadcasts", "mean of all values", "to_flax",
               corner="upper left", note="query is (B, L, H, d); numbers are cast to bool"),
)
# fmt: on


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
    >>> from attnmask import causal
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
    >>> import torch
    >>> from attnmask import causal
    >>> from_keras(torch.ones(1, 3, 3).tril()).same_as(causal(), 3)
    True
    """
    allowed = read_zero_one("attention_mask", attention_mask, "batch, query, key", FOUR)
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
    >>> from attnmask import causal
    >>> to_flax(causal(), 4).shape
    torch.Size([1, 1, 4, 4])
    """
    key_len = query_len if key_len is None else key_len
    return write_dense(mask, query_len, key_len, batch, heads, None).expand(-1, -1, query_len, key_len).contiguous()


def from_flax(mask: Any) -> Mask:
    """Read the ``mask`` of ``jax.nn.dot_product_attention`` or of Flax: (batch, heads, query, key), 1 = may attend.

    Bool, or zeros and ones, as Flax's own ``make_causal_mask`` gives.

    Examples
    --------
    >>> import torch
    >>> from attnmask import causal
    >>> from_flax(torch.ones(1, 1, 3, 3).tril()).same_as(causal(), 3)
    True
    """
    return from_dense(read_zero_one("mask", mask, FOUR))
