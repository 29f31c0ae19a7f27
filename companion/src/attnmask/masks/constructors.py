"""Which masks have a name?

Each constructor is a line over the three leaves of `rules`; what a line with
``&``, ``|``, ``~``, ``.T``, ``.after`` or ``.at`` makes of them needs none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Integer
from torch import Tensor

from attnmask._check import bool_table, count, in_range, integer_table, kind_of, type_error, value_error
from attnmask.masks.mask import Mask, common_size, named_rule
from attnmask.masks.rules import Band, Keys, Pairs, PerHead, Rule


def everything() -> Mask:
    """Every key: no bound at all. ``~everything()`` allows nothing.

    >>> everything().dense(4).shape
    torch.Size([1, 1, 1, 1])
    """
    return Mask(Band("everything()", None, None))


def causal(*, offset: int = 0, position_ids: Integer[Tensor, "batch token"] | None = None) -> Mask:
    """Every key up to and including the query's own place: key <= query + offset.

    Parameters
    ----------
    offset
        How many keys come before the first query, 0 or more; ``causal(offset=n)``
        is ``causal().after(n)``.
    position_ids
        Integers to compare in place of the positions, one a token. With the turn
        numbers of a dialogue, a token sees its whole turn and every earlier one.

    Returns
    -------
    Mask
        (1, 1, query, key) when dense; with ``position_ids``, (batch, 1, query, key).

    Raises
    ------
    ValueError, TypeError
        A negative offset; ids that are no integers of two axes.

    Examples
    --------
    >>> causal().dense(3)[0, 0].int()
    tensor([[1, 0, 0],
            [1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)

    References
    ----------
    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.3.
    """
    offset = count("offset", offset)
    mask = _band("causal", "", None, 0, position_ids)
    if position_ids is None and offset:
        return replace(mask.after(offset), name=f"causal(offset={offset})")
    return mask.after(offset) if offset else mask


def sliding_window(
    left: int, right: int = 0, *, dilation: int = 1, position_ids: Integer[Tensor, "batch token"] | None = None
) -> Mask:
    """The left + 1 + right keys around the query: query - left <= key <= query + right (undilated).

    Parameters
    ----------
    left, right
        How many keys before and after the query's own, 0 or more.
    dilation
        How far apart the keys lie, 1 or more: key = query + i * dilation, for each -left <= i <= right.
    position_ids
        Integers to compare in place of the positions, one a token: the row and
        the column of each pixel give a 2-D window,
        ``sliding_window(1, 1, position_ids=row) & sliding_window(1, 1, position_ids=column)``.

    Returns
    -------
    Mask
        (1, 1, query, key) when dense; with ``position_ids``, (batch, 1, query, key).

    Raises
    ------
    ValueError, TypeError
        A negative size; a dilation of 0; ids that are no integers of two axes.

    Examples
    --------
    >>> sliding_window(1).dense(3)[0, 0].int()
    tensor([[1, 0, 0],
            [1, 1, 0],
            [0, 1, 1]], dtype=torch.int32)
    >>> sliding_window(1, dilation=2).dense(3)[0, 0].int()
    tensor([[1, 0, 0],
            [0, 1, 0],
            [1, 0, 1]], dtype=torch.int32)

    References
    ----------
    Beltagy et al., "Longformer: The Long-Document Transformer" (2020), section 3.1.
    """
    left, right = count("left", left), count("right", right)
    dilation = _at_least_one("dilation", dilation, "gaps were counted where steps are; neighbours are 1 apart")
    low, high = -count("left * dilation", left * dilation), count("right * dilation", right * dilation)
    arguments = f"{left}, {right}" if right else f"{left}"
    if dilation != 1:
        arguments += f", dilation={dilation}"
    return _band("sliding_window", arguments, low, high, position_ids, step=dilation)


def chunked(size: int) -> Mask:
    """The ``size`` keys of the query's own chunk: key // size == query // size.

    Chunks are counted from position 0; chunked attention in a decoder is
    ``causal() & chunked(size)``. Where each sample has positions of its own, write
    ``documents(position_ids // size)``.

    Parameters
    ----------
    size
        How many tokens a chunk has, 1 or more.

    Returns
    -------
    Mask
        (1, 1, query, key) when dense.

    Raises
    ------
    ValueError, TypeError
        ``size`` is 0, negative, or no integer.

    Examples
    --------
    >>> (causal() & chunked(2)).dense(4)[0, 0].int()
    tensor([[1, 0, 0, 0],
            [1, 1, 0, 0],
            [0, 0, 1, 0],
            [0, 0, 1, 1]], dtype=torch.int32)
    """
    size = _at_least_one("size", size, "a number of chunks, rounded down; size is how many tokens one has")
    return Mask(Band(f"chunked({size})", 0, 0, chunk=size))


def padding(keep: Bool[Tensor, "batch key"]) -> Mask:
    """The real keys: those where ``keep`` is True. Which query asks makes no difference.

    Parameters
    ----------
    keep
        True = a real token, False = padding; usually ``ids != pad_id``.

    Returns
    -------
    Mask
        (batch, 1, 1, key) when dense.

    Raises
    ------
    ValueError, TypeError
        ``keep`` has not two axes, or is not bool.

    Examples
    --------
    >>> ids = torch.tensor([[5, 6, 0], [7, 0, 0]])
    >>> padding(ids != 0)
    padding(keep[2, 3])
    """
    keep = bool_table("keep", keep, "batch, key")
    return Mask(Keys("padding(keep{})", keep), batch=keep.shape[0], key_len=keep.shape[1])


def prefix(lengths: int | Integer[Tensor, " batch"]) -> Mask:
    """The first ``lengths`` keys of each sample: key < length. Which query asks makes no difference.

    A prefix language model is ``causal() | prefix(lengths)``.

    Parameters
    ----------
    lengths
        How many keys, 0 or more: one integer for all samples, or one a sample.

    Returns
    -------
    Mask
        (batch, 1, 1, key) when dense; (1, 1, 1, key) for one integer.

    Raises
    ------
    ValueError, TypeError
        A negative length; lengths that are no integers of one axis.

    Examples
    --------
    >>> (causal() | prefix(2)).dense(3)[0, 0].int()
    tensor([[1, 1, 0],
            [1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)

    References
    ----------
    Raffel et al., "Exploring the Limits of Transfer Learning with a Unified
    Text-to-Text Transformer" (2020), section 3.2.1.
    """
    if isinstance(lengths, int):
        return replace(prefix(torch.tensor([count("lengths", lengths)])), name=f"prefix({lengths})")
    lengths = in_range("lengths", integer_table("lengths", lengths, "batch"))
    count("every one of lengths", min(lengths.tolist(), default=0))
    return Mask(Band("prefix(lengths{})", None, -1, query_at=lengths), batch=lengths.shape[0])


def documents(ids: Integer[Tensor, "batch token"]) -> Mask:
    """The keys of the query's own document: those whose id equals the query's.

    Parameters
    ----------
    ids
        The document each token belongs to; any integers.

    Returns
    -------
    Mask
        (batch, 1, query, key) when dense.

    Raises
    ------
    ValueError, TypeError
        ``ids`` are no integers of two axes.

    Examples
    --------
    >>> (causal() & documents(torch.tensor([[0, 0, 1]]))).dense(3)[0, 0].int()
    tensor([[1, 0, 0],
            [1, 1, 0],
            [0, 0, 1]], dtype=torch.int32)
    """
    ids = integer_table("ids", ids, "batch, token")
    return _tokens(Band("documents(ids{})", 0, 0, ids, ids), ids)


def graph(allowed: Bool[Tensor, "*batch query key"]) -> Mask:
    """The keys that a table of pairs allows: ``allowed[query, key]``, the same in every head.

    Parameters
    ----------
    allowed
        True = may attend; (query, key), or (batch, query, key) with one graph a sample.

    Returns
    -------
    Mask
        (1, 1, query, key) or (batch, 1, query, key) when dense.

    Raises
    ------
    ValueError, TypeError
        ``allowed`` has not two or three axes, or is not bool.

    Examples
    --------
    A ring: each token sees itself and its two neighbours.

    >>> ring = torch.eye(4, dtype=torch.bool)
    >>> graph(ring | ring.roll(1, 0) | ring.roll(-1, 0)).dense(4)[0, 0].int()
    tensor([[1, 1, 0, 1],
            [1, 1, 1, 0],
            [0, 1, 1, 1],
            [1, 0, 1, 1]], dtype=torch.int32)

    References
    ----------
    Velickovic et al., "Graph Attention Networks" (2018), section 2.1.
    """
    allowed = bool_table("allowed", allowed, "query, key", "batch, query, key")
    batch = 1 if allowed.dim() == 2 else allowed.shape[0]
    query_len, key_len = allowed.shape[-2:]
    return Mask(Pairs("graph(allowed{})", allowed), batch=batch, query_len=query_len, key_len=key_len)


def per_head(masks: Sequence[Mask]) -> Mask:
    """One mask a head: head h sees the keys that ``masks[h]`` allows.

    Parameters
    ----------
    masks
        One mask for each head, in order; none of them holding heads of its own.

    Returns
    -------
    Mask
        (batch or 1, head, query or 1, key or 1) when dense.

    Raises
    ------
    ValueError, TypeError
        No mask, something that is no mask, or a mask that already differs by head.

    Examples
    --------
    >>> local_and_global = per_head([sliding_window(1), causal()])
    >>> local_and_global.dense(8).shape
    torch.Size([1, 2, 8, 8])
    """
    masks = (masks,) if isinstance(masks, Tensor) else tuple(masks) if isinstance(masks, Iterable) else (masks,)
    for mask in masks:
        if not isinstance(mask, Mask) or mask.heads != 1:
            raise type_error(
                "a list of masks that are the same in every head",
                repr(mask) if isinstance(mask, Mask) else kind_of(mask),
                "a per_head mask or a tensor inside the list; give one Mask for each head",
            )
    if not masks:
        raise value_error("one mask for each head", "none", "an empty list")
    sizes = {axis: common_size(axis, *masks) for axis in ("batch", "query_len", "key_len")}
    return Mask(PerHead(tuple(named_rule(mask) for mask in masks)), heads=len(masks), **sizes)


def from_dense(allowed: Bool[Tensor, "batch head query key"]) -> Mask:
    """The keys that a dense mask allows, each of its four axes full or 1.

    Parameters
    ----------
    allowed
        True = may attend; (batch, head, query, key).

    Returns
    -------
    Mask
        The same tensor when dense.

    Raises
    ------
    ValueError, TypeError
        ``allowed`` has not four axes, or is not bool.

    Examples
    --------
    >>> from_dense(torch.ones(1, 1, 2, 2, dtype=torch.bool).tril()).same_as(causal(), 2)
    True
    """
    allowed = bool_table("allowed", allowed, "batch, head, query, key")
    batch, heads, query_len, key_len = allowed.shape
    return Mask(
        Pairs("from_dense(allowed{})", allowed),
        batch=batch,
        heads=heads,
        query_len=None if query_len == 1 else query_len,
        key_len=None if key_len == 1 else key_len,
    )


# ---- what the constructors share --------------------------------------------------


def _band(
    name: str, arguments: str, low: int | None, high: int | None, position_ids: Tensor | None, step: int = 1
) -> Mask:
    """Make a band over the positions, or over one integer a token."""
    if position_ids is None:
        return Mask(Band(f"{name}({arguments})", low, high, step=step))
    ids = in_range("position_ids", integer_table("position_ids", position_ids, "batch, token"))
    separator = ", " if arguments else ""
    text = f"{name}({arguments}{separator}position_ids=ids{{}})"
    return _tokens(Band(text, low, high, ids, ids, step), ids)


def _tokens(rule: Rule, ids: Tensor) -> Mask:
    """Make a mask whose queries and keys are both the tokens of (batch, token)."""
    batch, length = ids.shape
    return Mask(rule, batch=batch, query_len=length, key_len=length)


def _at_least_one(name: str, value: int, likely_cause: str) -> int:
    """Check that a size is an integer from 1."""
    value = count(name, value)
    if value == 0:
        raise value_error(f"{name} to be 1 or more", "0", likely_cause)
    return value
