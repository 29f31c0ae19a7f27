"""What does one attention compute? Every step is kept: scores, masked scores, weights, output."""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnmask._check import kind_of, not_a_mask_cause, type_error, value_error
from attnmask.masks import Mask, everything, fits


class Steps(NamedTuple):
    """Every step of one attention, each of the rank that the query had.

    Attributes
    ----------
    scores
        query @ key.mT * scale, before any mask.
    masked_scores
        The same, with minus infinity in every blocked cell.
    weights
        Softmax of the masked scores along the keys. Each row sums to 1, or is
        what ``empty_rows`` chose where the query has no key to look at.
    output
        weights @ value: each row a mixture of rows of ``value``.
    """

    scores: Float[Tensor, "*batch query key"]
    masked_scores: Float[Tensor, "*batch query key"]
    weights: Float[Tensor, "*batch query key"]
    output: Float[Tensor, "*batch query d_value"]


def attend(
    query: Float[Tensor, "*batch query d"],
    key: Float[Tensor, "*batch key d"],
    value: Float[Tensor, "*batch key d_value"],
    mask: Mask | Bool[Tensor, "batch_or_1 heads_or_1 query_or_1 key_or_1"] | None = None,
    *,
    scale: float | None = None,
    empty_rows: Literal["zero", "nan", "error"] = "zero",
) -> Steps:
    """Compute softmax(query @ key.mT * scale, masked) @ value and keep every step.

    Parameters
    ----------
    query, key, value
        Floating point and finite, all of one dtype, device and rank: (token, d),
        (batch, token, d) or (batch, head, token, d). A NaN in the *value* of a
        blocked key still reaches the output, since 0 times NaN is NaN.
    mask
        Who may attend to whom: a `Mask`, or a bool tensor of exactly four axes
        (batch, head, query, key), each full or 1, True = may attend. None = everyone.
    scale
        What the products are multiplied by, one finite number; default 1 / sqrt(d).
    empty_rows
        What a query with no key to look at gets: ``"zero"`` weights and output,
        with zero gradients; ``"nan"``, which is what the formula gives; or ``"error"``.

    Returns
    -------
    Steps
        scores, masked_scores, weights, output.

    Raises
    ------
    ValueError, TypeError
        Shapes, dtypes or devices that do not fit each other; a mask of two or
        three axes, or not bool; an empty row where ``empty_rows="error"``.

    Examples
    --------
    >>> from attnmask import causal
    >>> token = torch.eye(3)
    >>> attend(token, token, token, causal(), scale=0.0).weights
    tensor([[1.0000, 0.0000, 0.0000],
            [0.5000, 0.5000, 0.0000],
            [0.3333, 0.3333, 0.3333]])

    References
    ----------
    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.1.
    """
    _check_tensors(query, key, value)
    if empty_rows not in ("zero", "nan", "error"):
        raise value_error('empty_rows to be "zero", "nan" or "error"', repr(empty_rows), "a spelling slip")

    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if not isinstance(scale, int | float) or not math.isfinite(scale):
        raise value_error("scale to be one finite number", kind_of(scale), "a tensor, or a division by zero")

    scores = (query * scale) @ key.mT  # scaled first: in half precision the product alone can overflow
    allowed = _allowed(everything() if mask is None else mask, scores)
    masked_scores = scores.masked_fill(~allowed, -torch.inf)
    empty = ~allowed.expand(*allowed.shape[:-1], scores.shape[-1]).any(dim=-1, keepdim=True)
    if empty_rows == "error" and bool(empty.expand(*scores.shape[:-1], 1).any()):
        where = tuple(empty.expand(*scores.shape[:-1], 1).nonzero()[0, :-1].tolist())
        raise value_error(
            "every query to have a key it may attend to",
            f"an empty row at {where}",
            "left padding under a causal mask, or a sample of nothing but padding",
        )
    if empty_rows == "nan":
        weights = masked_scores.softmax(dim=-1)
    else:
        # Filled twice: before the softmax so that no NaN arises, not even in a gradient.
        weights = masked_scores.masked_fill(empty, 0.0).softmax(dim=-1).masked_fill(empty, 0.0)
    return Steps(scores, masked_scores, weights, weights @ value)


def _allowed(mask: Mask | Tensor, scores: Tensor) -> Tensor:
    """Return the mask as a bool tensor that broadcasts against the scores, at their rank."""
    rank = scores.dim()
    batch, heads, query_len, key_len = (1,) * (4 - rank) + tuple(scores.shape)
    if rank == 3:  # (batch, query, key): the lone leading axis is the batch
        batch, heads = scores.shape[0], 1
    if isinstance(mask, Mask):
        allowed = mask.dense(query_len, key_len, batch=batch, heads=heads, device=scores.device)
    else:
        allowed = _check_dense(mask, scores)
    full = (batch, heads, query_len, key_len)
    if not fits(allowed.shape, full):
        raise value_error(
            f"a mask of shape (batch, head, query, key) = {full}, each axis full or 1",
            f"{mask!r} of shape {tuple(allowed.shape)}" if isinstance(mask, Mask) else kind_of(mask),
            "the mask was made for another batch, another number of heads, or another length",
        )
    if rank == 4:
        return allowed
    return allowed[:, 0] if rank == 3 else allowed[0, 0]


def _check_dense(mask: Tensor, scores: Tensor) -> Tensor:
    wanted = "a Mask, or a bool tensor of four axes (batch, head, query, key), True = may attend"
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise type_error(wanted, kind_of(mask), not_a_mask_cause(mask))
    if mask.dim() != 4:
        raise value_error(wanted, kind_of(mask), not_a_mask_cause(mask))
    return mask.to(scores.device)


def _check_tensors(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise unless query, key and value fit each other."""
    for tensor in (query, key, value):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise type_error(
                "floating-point query, key and value", kind_of(tensor), "token ids where their embeddings were meant"
            )
    if not (query.dtype == key.dtype == value.dtype and query.device == key.device == value.device):
        got = ", ".join(
            f"{name} {kind_of(tensor)} on {tensor.device}"
            for name, tensor in (("query", query), ("key", key), ("value", value))
        )
        raise type_error(
            "query, key and value of one dtype on one device",
            got,
            "half of the model was moved or cast and the other half was not",
        )
    if not (query.dim() in (2, 3, 4) and query.dim() == key.dim() == value.dim()):
        expected = "all three of rank 2, 3 or 4: (token, d), (batch, token, d) or (batch, head, token, d)"
        cause = "one of them lost its batch or head axis, or gained one"
    elif not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        expected = "query, key and value with the same batch and heads"
        cause = "fewer key heads than query heads (repeat_interleave them first), or two different batches"
    elif query.shape[-1] != key.shape[-1] or query.shape[-1] == 0:
        expected = "query and key of the same width d, 1 or more"
        cause = "they come from projections of different widths"
    elif key.shape[-2] != value.shape[-2]:
        expected = "key and value of the same length"
        cause = "key and value were taken from different sequences"
    else:
        return
    got = f"query {kind_of(query)}, key {kind_of(key)}, value {kind_of(value)}"
    raise value_error(expected, got, cause)
