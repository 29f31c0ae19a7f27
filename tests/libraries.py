"""Every library of the table, run for real: one query, key, value and mask in, the attention's output out."""

from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import jax
import jax.numpy as jnp
import keras
import numpy as np
import tensorflow as tf
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers import BartConfig, DynamicCache, LlamaConfig, MistralConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_causal_mask,
    create_sliding_window_causal_mask,
)
from transformers.models.bart.modeling_bart import BartAttention, eager_attention_forward

from attnmask import Mask, conventions

MODULES = {"torch": torch, "keras": keras, "jax": jax, "tensorflow": tf}


def sizes(query: Tensor, key: Tensor) -> dict[str, int]:
    """Return the sizes of (batch, head, token, d) tensors, as the conventions ask for them."""
    batch, heads, query_len, _ = query.shape
    return {"query_len": query_len, "key_len": key.shape[2], "batch": batch, "heads": heads}


def sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, **conventions.to_sdpa(mask, **sizes(query, key)))


def sdpa_float(query: Tensor, key: Tensor, value: Tensor, mask: Mask, fill: float = -torch.inf) -> Tensor:
    additive = conventions.to_additive(mask, **sizes(query, key), fill=fill)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=additive)


@torch.no_grad()
def multihead(
    query: Tensor, key: Tensor, value: Tensor, mask: Mask, need_weights: bool = True, bias: float = 0
) -> Tensor:
    """An nn.MultiheadAttention whose projections change nothing."""
    heads, width = query.shape[1], query.shape[1] * query.shape[3]
    layer = nn.MultiheadAttention(width, heads, batch_first=True)
    layer.in_proj_weight.copy_(torch.eye(width).repeat(3, 1))
    layer.out_proj.weight.copy_(torch.eye(width))
    layer.out_proj.bias.fill_(bias)
    merged = [each.transpose(1, 2).flatten(2) for each in (query, key, value)]  # (batch, token, head * d)
    masks = conventions.to_multihead(mask, **sizes(query, key))
    return layer(*merged, **masks, need_weights=need_weights)[0].unflatten(2, (heads, -1)).transpose(1, 2)


def flex(query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    blocks = create_block_mask(**conventions.to_flex(mask, **sizes(query, key)), device="cpu")
    # Not compiled: the compiler cannot follow the run-time checks of the tests.
    with patch("torch.nn.attention.flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True):
        return flex_attention(query, key, value, block_mask=blocks)


def _hugging_face(query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, attention: str) -> Tensor:
    """The attention of a real layer, given its mask ready made."""
    layer = BartAttention(query.shape[1] * query.shape[3], query.shape[1], config=BartConfig()).eval()
    forward = {"eager": eager_attention_forward, "sdpa": sdpa_attention_forward}[attention]
    output, _ = forward(layer, query, key, value, attention_mask, scaling=query.shape[-1] ** -0.5)
    return output.transpose(1, 2)


def _config(attention: str) -> LlamaConfig:
    return LlamaConfig(num_hidden_layers=1, attn_implementation=attention)


def hugging_face_2d(query: Tensor, key: Tensor, value: Tensor, mask: Mask, attention: str = "sdpa") -> Tensor:
    """The padding mask, as Hugging Face's own builder for an encoder expands it."""
    two_axes = conventions.to_huggingface(mask, query.shape[2], key.shape[2], batch=query.shape[0])
    states = torch.empty(query.shape[0], query.shape[2], 1)  # its sizes and dtype are asked for
    others = torch.empty(key.shape[0], key.shape[2], 1)
    four_axes = create_bidirectional_mask(_config(attention), states, two_axes, encoder_hidden_states=others)
    return _hugging_face(query, key, value, four_axes, attention)


def hugging_face_4d(query: Tensor, key: Tensor, value: Tensor, mask: Mask, attention: str = "eager") -> Tensor:
    four_axes = conventions.to_huggingface_4d(mask, **sizes(query, key))
    return _hugging_face(query, key, value, four_axes, attention)


def hugging_face_causal(query: Tensor, key: Tensor, value: Tensor, mask: Mask, attention: str = "sdpa") -> Tensor:
    """The mask joined to the builder's own causal one, behind a cache where there are more keys than queries."""
    batch, heads, query_len, d = query.shape
    cache = DynamicCache(config=_config(attention))
    cached = key.shape[2] - query_len
    if cached:
        cache.update(torch.empty(batch, heads, cached, d), torch.empty(batch, heads, cached, d), 0)
    four_axes = create_causal_mask(
        _config(attention), torch.empty(batch, query_len, 1), None, cache, and_mask_function=mask
    )
    return _hugging_face(query, key, value, four_axes, attention)


def keras_layer(
    query: Tensor, key: Tensor, value: Tensor, mask: Mask, scores: bool = False, dropout: float = 0.0
) -> Tensor:
    """A Keras layer whose projections change nothing."""
    heads, d = query.shape[1], query.shape[3]
    merged = [each.transpose(1, 2).flatten(2).numpy() for each in (query, key, value)]
    layer = identity_layer(heads, d, merged, dropout)
    attention_mask = conventions.to_keras(mask, **sizes(query, key)).numpy()
    output = layer(merged[0], merged[2], merged[1], attention_mask=attention_mask, return_attention_scores=scores)
    output = keras.ops.convert_to_numpy(output[0] if scores else output)
    return torch.tensor(output).unflatten(2, (heads, d)).transpose(1, 2)


def identity_layer(
    heads: int, d: int, merged: list[np.ndarray], dropout: float = 0.0
) -> keras.layers.MultiHeadAttention:
    layer = keras.layers.MultiHeadAttention(heads, d, use_bias=False, dropout=dropout)
    layer.build(merged[0].shape, merged[2].shape, merged[1].shape)
    same = np.eye(heads * d)
    layer.set_weights([same.reshape(-1, heads, d)] * 3 + [same.reshape(heads, d, -1)])
    return layer


def tensorflow_where(query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    query, key, value = (tf.constant(each.numpy()) for each in (query, key, value))
    scores = tf.matmul(query, key, transpose_b=True) / query.shape[-1] ** 0.5
    at = dict(zip(("batch", "heads", "query_len", "key_len"), scores.shape, strict=True))
    weights = tf.nn.softmax(tf.where(mask.dense(**at).numpy(), scores, -1e9))
    return torch.tensor(tf.matmul(weights, value).numpy())


def _token_first(*tensors: Tensor) -> list[jax.Array]:
    """(batch, head, token, d) of PyTorch as (batch, token, head, d) of JAX."""
    return [jnp.asarray(each.transpose(1, 2).numpy()) for each in tensors]


def _in_jax(
    function: Callable[..., jax.Array], query: Tensor, key: Tensor, value: Tensor, mask: Mask | None = None
) -> Tensor:
    """Attention of JAX or of Flax, with a mask or with the causal flag."""
    written = {"is_causal": True}
    if mask is not None:
        written = {"mask": jnp.asarray(conventions.to_flax(mask, **sizes(query, key)).numpy())}
    return torch.tensor(np.asarray(function(*_token_first(query, key, value), **written))).transpose(1, 2)


jax_nn = partial(_in_jax, jax.nn.dot_product_attention)
flax_nnx = partial(_in_jax, nnx.dot_product_attention)

# For each row of the table that was run: (call, argument) and how.
RUNS = {
    ("F.scaled_dot_product_attention", "attn_mask"): sdpa,
    ("F.scaled_dot_product_attention", "attn_mask (float)"): sdpa_float,
    ("nn.MultiheadAttention", "key_padding_mask"): multihead,
    ("nn.MultiheadAttention", "attn_mask"): multihead,
    ("FlexAttention", "mask_mod"): flex,
    ("model(...)", "attention_mask (2-D)"): hugging_face_2d,
    ("model(...)", "attention_mask (4-D)"): hugging_face_4d,
    ("create_causal_mask", "and_mask_function"): hugging_face_causal,
    ("layers.MultiHeadAttention", "attention_mask"): keras_layer,
    ("tf.where(mask, scores, -1e9)", "mask"): tensorflow_where,
    ("jax.nn.dot_product_attention", "mask"): jax_nn,
    ("nnx.dot_product_attention", "mask"): flax_nnx,
}


# ---- the causal flag of each call, for more keys than queries: the weights it leaves ------


def sdpa_flag(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)


def keras_flag(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    merged = [each.transpose(1, 2).flatten(2).numpy() for each in (query, key, value)]
    layer = identity_layer(query.shape[1], query.shape[3], merged)
    output = keras.ops.convert_to_numpy(layer(merged[0], merged[2], merged[1], use_causal_mask=True))
    return torch.tensor(output).unflatten(2, (query.shape[1], -1)).transpose(1, 2)


def hugging_face_flag(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return hugging_face_causal(query, key, value, Mask(lambda b, h, q, k: k >= 0))


FLAGS = {
    "F.scaled_dot_product_attention": sdpa_flag,
    "layers.MultiHeadAttention": keras_flag,
    "jax.nn.dot_product_attention": jax_nn,
    "nnx.dot_product_attention": flax_nnx,
    "model(...)": hugging_face_flag,
    "create_causal_mask": hugging_face_flag,
}


# ---- the window of each call: which of nine keys each query sees ------


def hugging_face_window(left: int, right: int) -> Tensor:
    """A decoder looks back only; ``left`` is its ``sliding_window``."""
    config = MistralConfig(sliding_window=left, attn_implementation="sdpa")
    states = torch.empty(1, 9, 1)
    return create_sliding_window_causal_mask(config, states, attention_mask=None, past_key_values=None)[0, 0]


def jax_window(left: int, right: int) -> Tensor:
    query, value = jnp.zeros((1, 9, 1, 9)), jnp.eye(9)[None, :, None]
    weights = jax.nn.dot_product_attention(query, query, value, local_window_size=(left, right))
    return torch.tensor(np.asarray(weights))[0, :, 0] > 0


WINDOWS = {"model(...)": hugging_face_window, "jax.nn.dot_product_attention": jax_window}
