"""Who may attend to whom: the `Mask` rule, its operators, and every constructor.

A mask answers one question for every (query, key) pair: may this query look at
this key? ``True`` means it may, here and everywhere in this package.

Three leaves make every mask: the difference of two coordinates lies in an
interval (`_Band`), a table over keys (`_Keys`), a table over pairs (`_Pairs`).
Each constructor is a line over them; the operators join them.
"""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from jaxtyping import Bool, Integer
from torch import Tensor

from attnmask._check import (
    bool_table,
    count,
    in_range,
    integer_table,
    kind_of,
    not_a_mask_cause,
    type_error,
    value_error,
)

_INDEX = {"query_len": "query", "key_len": "key", "batch": "batch", "heads": "head"}
Index = int | Tensor
Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class Mask:
    """May query ``q`` look at key ``k``? A rule that answers, and nothing stored per pair.

    Parameters
    ----------
    rule
        A function of (batch, head, query, key) indices: integer tensors that
        broadcast against each other. It answers with a bool tensor, True = may attend.
    batch, heads
        How many samples and heads the rule's own tensors hold; 1 = the same for all.
    query_len, key_len
        The only lengths the rule's own tensors can answer for; None = any.
    name
        What ``repr`` shows; by default what the rule says of itself.

    Raises
    ------
    TypeError
        The rule answers with something else than bools.

    Examples
    --------
    A mask of your own, from a function of the four indices:

    >>> even_keys = Mask(lambda batch, head, query, key: key % 2 == 0, name="even_keys")
    >>> (causal() & even_keys).dense(3)[0, 0].int()
    tensor([[1, 0, 0],
            [1, 0, 0],
            [1, 0, 1]], dtype=torch.int32)

    A mask is also a FlexAttention ``mask_mod`` as it stands. FlexAttention asks
    index by index, so the batch, heads and lengths it is given are yours to get
    right; with ``B=None`` it asks for sample 0 alone.

    >>> from torch.nn.attention.flex_attention import create_mask
    >>> dense = create_mask(causal(), 1, 1, 3, 3, device="cpu")
    >>> bool((dense == causal().dense(3)).all())
    True
    """

    rule: Rule
    batch: int = 1
    heads: int = 1
    query_len: int | None = None
    key_len: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not callable(self.rule):
            raise type_error(
                "a rule: a function of (batch, head, query, key)", kind_of(self.rule), "a table; see graph"
            )
        for axis in _INDEX:
            if getattr(self, axis) is not None:
                count(axis, getattr(self, axis))

    # ---- asking -----------------------------------------------------------------

    def __call__(self, batch: Index, head: Index, query: Index, key: Index) -> Tensor:
        """Answer for indices that broadcast: integers or integer tensors, giving a bool tensor.

        >>> causal()(0, 0, 1, 3)
        tensor(False)
        """
        indices = [_tensor(index) for index in (batch, head, query, key)]
        for index in indices:
            if index.is_floating_point() or index.dtype == torch.bool:
                raise type_error("integer indices", kind_of(index), "a mask or a score where a place was meant")
        answer = _tensor(self.rule(*indices))
        if answer.dtype != torch.bool:
            raise type_error(
                f"the rule of {self!r} to answer with bools, True = may attend",
                kind_of(answer),
                "arithmetic on bools, or an additive mask; end the rule with a comparison",
            )
        return answer

    def allows(self, query: int, key: int, batch: int = 0, head: int = 0) -> bool:
        """Answer for one pair.

        Raises
        ------
        ValueError, TypeError
            An index is negative, no integer, or beyond the tensors that the rule holds.

        Examples
        --------
        >>> causal().allows(query=1, key=3)
        False
        """
        for axis, index in zip(_INDEX, (query, key, batch, head), strict=True):
            size = self._held(axis)
            if count(f"the {_INDEX[axis]} index", index) >= (math.inf if size is None else size):
                raise value_error(
                    f"a {_INDEX[axis]} index below {size} for {self!r}", f"{index}", "indices count from 0"
                )
        return bool(self(batch, head, query, key))

    def dense(
        self,
        query_len: int,
        key_len: int | None = None,
        *,
        batch: int = 1,
        heads: int = 1,
        device: torch.device | str | None = None,
    ) -> Bool[Tensor, "batch_or_1 heads_or_1 query_or_1 key_or_1"]:
        """Write the mask out as the smallest bool tensor that broadcasts to (batch, head, query, key).

        Parameters
        ----------
        query_len, key_len
            How many queries and keys, 0 or more. ``key_len`` defaults to ``query_len``.
        batch, heads
            How many samples and heads to ask a rule of your own for. An axis on
            which the answer does not depend comes out as 1 all the same.
        device
            Where to compute and return the answer; default: PyTorch's default device.

        Returns
        -------
        Bool[Tensor, "batch_or_1 heads_or_1 query_or_1 key_or_1"]
            True = may attend.

        Raises
        ------
        ValueError, TypeError
            A size differs from that of the tensors the rule holds, or is no count;
            the rule does not answer pair by pair, or not with bools.

        Examples
        --------
        >>> keep = torch.tensor([[True, True, False], [True, True, True]])
        >>> [tuple(m.dense(3).shape) for m in (padding(keep), causal(), causal() & padding(keep))]
        [(2, 1, 1, 3), (1, 1, 3, 3), (2, 1, 3, 3)]
        """
        key_len = query_len if key_len is None else key_len
        self._check_sizes(query_len=query_len, key_len=key_len, batch=batch, heads=heads)
        return self._answer(batch, heads, (0, query_len), key_len, device)

    def density(self, query_len: int, key_len: int | None = None, *, batch: int = 1, heads: int = 1) -> float:
        """Return the share of pairs that may attend, from 0 to 1, over the batch and heads as in `dense`.

        Works through the queries in strips, so that no full matrix is held.

        >>> causal().density(4)  # 10 of 16 pairs
        0.625
        """
        key_len = query_len if key_len is None else key_len
        self._check_sizes(query_len=query_len, key_len=key_len, batch=batch, heads=heads)
        if query_len * key_len == 0:
            raise value_error("at least one query and one key", f"{query_len} and {key_len}", "an empty sequence")
        allowed = 0.0
        for start in range(0, query_len, 512):
            stop = min(start + 512, query_len)
            answer = self._answer(batch, heads, (start, stop), key_len, None)
            allowed += (stop - start) * int(answer.sum()) / answer.numel()
        return allowed / query_len

    def same_as(
        self, other: "Mask", query_len: int, key_len: int | None = None, *, batch: int = 1, heads: int = 1
    ) -> bool:
        """Say whether two masks answer alike for every pair at these lengths, batch and heads as in `dense`.

        ``==`` compares identity, as for functions.

        >>> causal().same_as(~causal().T | documents(torch.arange(4)[None]), 4)
        True
        """
        if not isinstance(other, Mask):
            raise type_error("a Mask to compare with", kind_of(other), not_a_mask_cause(other))
        batch = _common("batch", self, other) if batch == 1 else batch
        heads = _common("heads", self, other) if heads == 1 else heads
        answers = [mask.dense(query_len, key_len, batch=batch, heads=heads) for mask in (self, other)]
        return bool((answers[0] == answers[1]).all())

    # ---- joining ----------------------------------------------------------------

    def __and__(self, other: "Mask") -> "Mask":
        """Allow the pairs that both masks allow."""
        return self._join(other, "&")

    def __or__(self, other: "Mask") -> "Mask":
        """Allow the pairs that either mask allows."""
        return self._join(other, "|")

    __rand__, __ror__ = __and__, __or__  # a tensor on the left gets the same sentence

    def __invert__(self) -> "Mask":
        """Allow exactly the pairs that this mask blocks."""
        return replace(self, rule=_Not(self), name="")

    @property
    def T(self) -> "Mask":
        """Swap query and key: ``mask.T`` answers for (q, k) what ``mask`` answers for (k, q).

        ``padding(keep).T`` blocks padded *queries*.

        >>> causal().T.allows(query=0, key=3)
        True
        """
        return replace(self, rule=_Swapped(self), query_len=self.key_len, key_len=self.query_len, name="")

    def after(self, cached: int) -> "Mask":
        """Put the queries behind ``cached`` keys: query q asks as query q + cached (a KV cache).

        Parameters
        ----------
        cached
            How many keys came before the first query, 0 or more.

        Raises
        ------
        ValueError
            ``cached`` is negative, or leaves no query in the tables the mask holds.

        Examples
        --------
        Two new queries behind three cached keys:

        >>> causal().after(3).dense(2, 5)[0, 0].int()
        tensor([[1, 1, 1, 1, 0],
                [1, 1, 1, 1, 1]], dtype=torch.int32)
        """
        cached = count("cached", cached)
        if self.query_len is not None and 0 < cached >= self.query_len:
            raise value_error(
                f"fewer than {self.query_len} cached keys, as {self!r} holds {self.query_len} queries",
                str(cached),
                "a table that covers the new tokens only; give it cached and new tokens together",
            )
        query_len = None if self.query_len is None else self.query_len - cached
        return replace(self, rule=_After(self, cached), query_len=query_len, name="")

    # ---- the rest ---------------------------------------------------------------

    def __repr__(self) -> str:
        if self.name or isinstance(self.rule, _Rule):
            return self.name or str(self.rule)
        return f"Mask({getattr(self.rule, '__name__', 'rule')})"

    def __bool__(self) -> bool:
        raise type_error(
            "masks joined by &, | and ~",
            f"the truth value of {self!r}",
            "`and`, `or` or `not` between masks, which would silently drop one of them",
        )

    def _join(self, other: object, sign: str) -> "Mask":
        if not isinstance(other, Mask):
            raise type_error(f"a Mask on both sides of {sign}", kind_of(other), not_a_mask_cause(other))
        sizes = {axis: _common(axis, self, other) for axis in _INDEX}
        return Mask(_Both(sign, self, other), **sizes)

    def fits(self, axis: str, size: int) -> bool:
        """Say whether this mask answers for a size of an axis: query_len, key_len, batch or heads.

        >>> padding(torch.tensor([[True, False]])).fits("key_len", 3)
        False
        """
        return self._held(axis) in (None, size)

    def _held(self, axis: str) -> int | None:
        """Return the one size this mask answers for on an axis; None where any will do."""
        size: int | None = getattr(self, axis)
        return None if axis in ("batch", "heads") and size == 1 else size

    def _check_sizes(self, **asked: int) -> None:
        """Raise unless every size asked for is one that the held tensors can answer."""
        for axis, size in asked.items():
            held = self._held(axis)
            left_open = axis in ("batch", "heads") and size == 1
            if count(axis, size) != held and held is not None and not left_open:
                raise value_error(
                    f"{axis}={held}, as {self!r} holds",
                    f"{axis}={size}",
                    "the mask was made from other token ids than the queries and keys"
                    + (", or key_len was left out (it defaults to query_len)" * (axis == "key_len")),
                )

    def _answer(
        self, batch: int, heads: int, queries: tuple[int, int], key_len: int, device: torch.device | str | None
    ) -> Tensor:
        """Ask the rule on four index grids that broadcast: (B,1,1,1), (1,H,1,1), (1,1,Q,1), (1,1,1,K)."""
        batch = batch if self.batch == 1 else self.batch
        heads = heads if self.heads == 1 else self.heads
        axes = ((0, batch), (0, heads), queries, (0, key_len))
        grids = [
            torch.arange(start, stop, device=device).reshape([-1 if axis == own else 1 for axis in range(4)])
            for own, (start, stop) in enumerate(axes)
        ]
        answer = self(*grids).to(grids[0].device)
        answer = answer.reshape(1, 1, 1, 1) if answer.dim() == 0 else answer
        full = tuple(stop - start for start, stop in axes)
        if not fits(answer.shape, full):
            raise value_error(
                f"the rule of {self!r} to answer pair by pair, within shape {full}",
                kind_of(answer),
                "the rule gives back a table; index it with the indices it is asked for: table[batch, key]",
            )
        return answer


def _tensor(value: Any) -> Tensor:
    """Make a tensor, unless it is one: as_tensor would move it to PyTorch's default device."""
    return value if isinstance(value, Tensor) else torch.as_tensor(value)


def fits(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    """Say whether a shape has every axis of the full one, each of them full or 1.

    >>> fits((2, 1, 1, 5), (2, 8, 5, 5)), fits((2, 5), (2, 8, 5, 5))
    (True, False)
    """
    # Two comparisons in place of `in`: under torch.compile the sizes are symbols, which `in` does not find.
    return len(shape) == len(full) and all(size == 1 or size == whole for size, whole in zip(shape, full, strict=True))


# ---- rules ------------------------------------------------------------------------


class _Rule:
    """What the rules below share: each says in ``str`` how it was written."""

    binding = 3  # how tightly that text holds together: | is 0, & is 1, ~ is 2, all else 3


def _inside(mask: Mask, binding: int) -> str:
    """Return a mask's text, in brackets where an operator of this binding would tear it apart."""
    own = 3 if mask.name else getattr(mask.rule, "binding", 3)
    return repr(mask) if own >= binding else f"({mask!r})"


@dataclass(frozen=True, eq=False)
class _Both(_Rule):
    sign: str
    one: Mask
    other: Mask

    @property
    def binding(self) -> int:  # type: ignore[override]
        return {"|": 0, "&": 1}[self.sign]

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        one, other = self.one(batch, head, query, key), self.other(batch, head, query, key)
        return one & other if self.sign == "&" else one | other

    def __str__(self) -> str:
        return f"{_inside(self.one, self.binding)} {self.sign} {_inside(self.other, self.binding)}"


@dataclass(frozen=True, eq=False)
class _Not(_Rule):
    mask: Mask
    binding = 2

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return ~self.mask(batch, head, query, key)

    def __str__(self) -> str:
        return f"~{_inside(self.mask, 2)}"


@dataclass(frozen=True, eq=False)
class _Swapped(_Rule):
    mask: Mask

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.mask(batch, head, key, query)

    def __str__(self) -> str:
        return f"{_inside(self.mask, 3)}.T"


@dataclass(frozen=True, eq=False)
class _After(_Rule):
    mask: Mask
    cached: int

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.mask(batch, head, query + self.cached, key)

    def __str__(self) -> str:
        return f"{_inside(self.mask, 3)}.after({self.cached})"


@dataclass(frozen=True, eq=False)
class _PerHead(_Rule):
    masks: tuple[Mask, ...]

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        answers = ((head == own) & mask(batch, head, query, key) for own, mask in enumerate(self.masks))
        return reduce(operator.or_, answers)

    def __str__(self) -> str:
        return f"per_head({list(self.masks)})"


# The three leaves. Each keeps how it was written, with {} for the shape of the table it holds.


@dataclass(frozen=True, eq=False)
class _Band(_Rule):
    """low <= key's coordinate - query's coordinate <= high; None = no bound on that side.

    A coordinate is the position itself (None), one number a sample (batch,),
    or one a token (batch, token).
    """

    written: str
    low: int | None
    high: int | None
    query_at: Tensor | None = None
    key_at: Tensor | None = None

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        difference = _coordinate(self.key_at, batch, key) - _coordinate(self.query_at, batch, query)
        answer = torch.ones((), dtype=torch.bool, device=key.device)
        if self.low is not None:
            answer = answer & (difference >= self.low)
        if self.high is not None:
            answer = answer & (difference <= self.high)
        return answer

    def __str__(self) -> str:
        return self.written if self.query_at is None else self.written.format(list(self.query_at.shape))


@dataclass(frozen=True, eq=False)
class _Keys(_Rule):
    """A table over keys: (batch, key)."""

    written: str
    table: Tensor

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return _look_up(self.table, batch, key)

    def __str__(self) -> str:
        return self.written.format(list(self.table.shape))


@dataclass(frozen=True, eq=False)
class _Pairs(_Rule):
    """A table over pairs: (query, key), (batch, query, key) or (batch, head, query, key); an axis of 1 is for all."""

    written: str
    table: Tensor

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        leading = {2: (), 3: (batch,), 4: (batch, head)}[self.table.dim()]
        return _look_up(self.table, *leading, query, key)

    def __str__(self) -> str:
        return self.written.format(list(self.table.shape))


def _look_up(table: Tensor, *indices: Tensor) -> Tensor:
    """Index a table, on the indices' device; an axis of size 1 answers for every index."""
    slots = (0 if size == 1 else index for size, index in zip(table.shape, indices, strict=True))
    answer = table.to(indices[-1].device)[tuple(slots)]
    return answer if answer.dim() else answer.clone()  # a single entry is a view: nobody may write through it


def _coordinate(table: Tensor | None, batch: Tensor, token: Tensor) -> Tensor:
    if table is None:
        return token
    return _look_up(table, *(batch, token)[: table.dim()])


# ---- constructors -----------------------------------------------------------------


def everything() -> Mask:
    """Every key: no bound at all. ``~everything()`` allows nothing.

    >>> everything().dense(4).shape
    torch.Size([1, 1, 1, 1])
    """
    return Mask(_Band("everything()", None, None))


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


def sliding_window(left: int, right: int = 0, *, position_ids: Integer[Tensor, "batch token"] | None = None) -> Mask:
    """The left + 1 + right keys around the query: query - left <= key <= query + right.

    Parameters
    ----------
    left, right
        How many keys before and after the query's own, 0 or more.
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
        A negative size; ids that are no integers of two axes.

    Examples
    --------
    >>> sliding_window(1).dense(3)[0, 0].int()
    tensor([[1, 0, 0],
            [1, 1, 0],
            [0, 1, 1]], dtype=torch.int32)

    References
    ----------
    Beltagy et al., "Longformer: The Long-Document Transformer" (2020), section 3.1.
    """
    left, right = count("left", left), count("right", right)
    return _band("sliding_window", f"{left}, {right}" if right else f"{left}", -left, right, position_ids)


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
    return Mask(_Keys("padding(keep{})", keep), batch=keep.shape[0], key_len=keep.shape[1])


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
    return Mask(_Band("prefix(lengths{})", None, -1, query_at=lengths), batch=lengths.shape[0])


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
    return _tokens(_Band("documents(ids{})", 0, 0, ids, ids), ids)


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
    return Mask(_Pairs("graph(allowed{})", allowed), batch=batch, query_len=query_len, key_len=key_len)


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
    sizes = {axis: _common(axis, *masks) for axis in ("batch", "query_len", "key_len")}
    return Mask(_PerHead(masks), heads=len(masks), **sizes)


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
        _Pairs("from_dense(allowed{})", allowed),
        batch=batch,
        heads=heads,
        query_len=None if query_len == 1 else query_len,
        key_len=None if key_len == 1 else key_len,
    )


# ---- what the constructors share --------------------------------------------------


def _band(name: str, arguments: str, low: int | None, high: int | None, position_ids: Tensor | None) -> Mask:
    """Make a band over the positions, or over one integer a token."""
    if position_ids is None:
        return Mask(_Band(f"{name}({arguments})", low, high))
    ids = in_range("position_ids", integer_table("position_ids", position_ids, "batch, token"))
    separator = ", " if arguments else ""
    return _tokens(_Band(f"{name}({arguments}{separator}position_ids=ids{{}})", low, high, ids, ids), ids)


def _tokens(rule: Rule, ids: Tensor) -> Mask:
    """Make a mask whose queries and keys are both the tokens of (batch, token)."""
    batch, length = ids.shape
    return Mask(rule, batch=batch, query_len=length, key_len=length)


def _common(axis: str, *masks: Mask) -> Any:
    """Return the size that masks share on an axis; refuse two that differ."""
    held = [mask for mask in masks if mask._held(axis) is not None]
    for mask in held[1:]:
        if mask._held(axis) != held[0]._held(axis):
            raise value_error(
                f"masks of one {axis}",
                f"{held[0]._held(axis)} in {held[0]!r} and {mask._held(axis)} in {mask!r}",
                "they were made from different sets of token ids",
            )
    return getattr((held or masks)[0], axis)
