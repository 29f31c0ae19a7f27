"""What can reach what through a stack of layers, from its masks alone?"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from attnmask._check import count, kind_of, not_a_mask_cause, type_error, value_error
from attnmask.masks import Mask, everything


def reach(
    masks: Sequence[Mask | None], query_len: int, *, residual: bool = True, batch: int = 1, heads: int = 1
) -> Bool[Tensor, "batch_or_1 output input"]:
    """Compute which input position can reach which output position through a stack of self-attentions.

    In each layer a query's row takes in the rows of the keys that some head allows; its
    own through the residual, or else, where a head lets it weigh two keys or more,
    through the weights, which its query makes. The stack is the product of its layers.

    Parameters
    ----------
    masks
        One a layer, the first layer first; None = no mask.
    query_len
        How many tokens.
    residual
        Whether each layer adds its input to what it computes.
    batch, heads
        How many samples and heads to ask a rule of your own for, as in `Mask.dense`.

    Returns
    -------
    Bool[Tensor, "batch_or_1 output input"]
        True = can reach. Without a residual this is an upper bound: rows of equal
        content, as empty rows have, leave a query nothing to weigh.

    Raises
    ------
    ValueError, TypeError
        Not a list of masks; lengths that differ from those that a mask holds.

    Examples
    --------
    Two layers of a window of one token back see two tokens back:

    >>> from attnmask import sliding_window
    >>> reach([sliding_window(1)] * 2, 4)[0].int()
    tensor([[1, 0, 0, 0],
            [1, 1, 0, 0],
            [1, 1, 1, 0],
            [0, 1, 1, 1]], dtype=torch.int32)
    """
    reached = torch.eye(count("query_len", query_len), dtype=torch.bool, device="cpu")[None]
    for seen, own in each_layer(masks, query_len, residual=residual, batch=batch, heads=heads):
        reached = (seen | own).float() @ reached.float() > 0
    return reached


def each_layer(
    masks: Sequence[Mask | None], query_len: int, *, residual: bool = True, batch: int = 1, heads: int = 1
) -> list[tuple[Bool[Tensor, "batch_or_1 query key"], Bool[Tensor, "batch_or_1 query key"]]]:
    """Return for each layer which rows a query takes in as keys, and which queries carry their own row on.

    >>> from attnmask import padding
    >>> (seen, own), = each_layer([padding(torch.tensor([[True, False]]))], 2)
    >>> seen[0].tolist(), own[0].tolist()
    ([[True, False], [True, False]], [[True, False], [False, True]])
    """
    wanted = "a list of masks, one a layer (None = no mask)"
    if not isinstance(masks, list | tuple):
        cause = "one mask meant for all layers; write [mask] * layers"
        raise type_error(wanted, kind_of(masks), cause if isinstance(masks, Mask) else not_a_mask_cause(masks))
    layers = []
    own = torch.eye(query_len, dtype=torch.bool, device="cpu")
    for mask in masks:
        if not isinstance(mask, Mask | None):
            raise type_error(wanted, f"a list with {kind_of(mask)}", not_a_mask_cause(mask))
        dense = (everything() if mask is None else mask).dense(query_len, batch=batch, heads=heads, device="cpu")
        dense = dense.expand(-1, -1, query_len, query_len)
        weighs = (dense.sum(-1) > 1).any(1) | residual  # (batch, query)
        layers.append((dense.any(1), own & weighs[..., None]))
    if len(batches := {len(seen) for seen, _ in layers} - {1}) > 1:
        raise value_error("masks of one batch", f"{sorted(batches)} samples", "different sets of token ids")
    return layers
