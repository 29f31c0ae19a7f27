"""Transformer attention masks: write the rule once, see every step, prove it right.

True means "may attend" everywhere in this package. `attnmask.plot` and
`attnmask.symbolic` are imported by name, because they load matplotlib and SymPy.
"""

from attnmask._device import default_device
from attnmask.attention import Steps, attend
from attnmask.layers import CrossAttention, Decoder, Encoder, SelfAttention, Translator
from attnmask.masks import (
    Mask,
    causal,
    documents,
    everything,
    from_dense,
    graph,
    padding,
    per_head,
    prefix,
    sliding_window,
)
from attnmask.probe import influence, reach
from attnmask.walkthrough import FourTokens, four_tokens

__all__ = [
    "CrossAttention",
    "Decoder",
    "Encoder",
    "FourTokens",
    "Mask",
    "SelfAttention",
    "Steps",
    "Translator",
    "attend",
    "causal",
    "default_device",
    "documents",
    "everything",
    "four_tokens",
    "from_dense",
    "graph",
    "influence",
    "padding",
    "per_head",
    "prefix",
    "reach",
    "sliding_window",
]
