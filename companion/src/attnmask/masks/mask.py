"""What can one ask a mask, and how are two joined?"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Integer
from torch import Tensor

from attnmask._check import count, in_range, integer_table, kind_of, not_a_mask_cause, type_error, value_error
from attnmask.masks.rules import At, Both, Named, Not, Rule, Swapped, WrittenRule, as_tensor, written

_INDEX = {"query_len": "query", "key_len": "key", "batch": "batch", "heads": "head"}
Index = int | Tensor


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

    >>> from attnmask import causal
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
        object.__setattr__(self, "rule", written(self.rule, self.name))  # a frozen class sets its own fields so

    # ---- asking -----------------------------------------------------------------

    def __call__(self, batch: Index, head: Index, query: Index, key: Index) -> Tensor:
        """Answer for indices that broadcast: integers or integer tensors, giving a bool tensor.

        >>> from attnmask import causal
        >>> causal()(0, 0, 1, 3)
        tensor(False)
        """
        indices = [as_tensor(index) for index in (batch, head, query, key)]
        for index in indices:
            if index.is_floating_point() or index.dtype == torch.bool:
                raise type_error("integer indices", kind_of(index), "a mask or a score where a place was meant")
        return self.rule(*indices)

    def allows(self, query: int, key: int, batch: int = 0, head: int = 0) -> bool:
        """Answer for one pair.

        Raises
        ------
        ValueError, TypeError
            An index is negative, no integer, or beyond the tensors that the rule holds.

        Examples
        --------
        >>> from attnmask import causal
        >>> causal().allows(query=1, key=3)
        False
        """
        for axis, index in zip(_INDEX, (query, key, batch, head), strict=True):
            size = _held(self, axis)
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
        >>> from attnmask import causal, padding
        >>> keep = torch.tensor([[True, True, False], [True, True, True]])
        >>> [tuple(m.dense(3).shape) for m in (padding(keep), causal(), causal() & padding(keep))]
        [(2, 1, 1, 3), (1, 1, 3, 3), (2, 1, 3, 3)]
        """
        key_len = query_len if key_len is None else key_len
        _check_sizes(self, query_len=query_len, key_len=key_len, batch=batch, heads=heads)
        return _on_grids(self, batch, heads, (0, query_len), key_len, device)

    def density(self, query_len: int, key_len: int | None = None, *, batch: int = 1, heads: int = 1) -> float:
        """Return the share of pairs that may attend, from 0 to 1, over the batch and heads as in `dense`.

        Works through the queries in strips, so that no full matrix is held.

        >>> from attnmask import causal
        >>> causal().density(4)  # 10 of 16 pairs
        0.625
        """
        key_len = query_len if key_len is None else key_len
        _check_sizes(self, query_len=query_len, key_len=key_len, batch=batch, heads=heads)
        if query_len * key_len == 0:
            raise value_error("at least one query and one key", f"{query_len} and {key_len}", "an empty sequence")
        allowed = 0.0
        for start in range(0, query_len, 512):
            stop = min(start + 512, query_len)
            answer = _on_grids(self, batch, heads, (start, stop), key_len, None)
            allowed += (stop - start) * int(answer.sum()) / answer.numel()
        return allowed / query_len

    def same_as(
        self, other: "Mask", query_len: int, key_len: int | None = None, *, batch: int = 1, heads: int = 1
    ) -> bool:
        """Say whether two masks answer alike for every pair at these lengths, batch and heads as in `dense`.

        ``==`` compares identity, as for functions.

        >>> from attnmask import causal, documents
        >>> causal().same_as(~causal().T | documents(torch.arange(4)[None]), 4)
        True
        """
        if not isinstance(other, Mask):
            raise type_error("a Mask to compare with", kind_of(other), not_a_mask_cause(other))
        batch = common_size("batch", self, other) if batch == 1 else batch
        heads = common_size("heads", self, other) if heads == 1 else heads
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
        return replace(self, rule=Not(named_rule(self)), name="")

    @property
    def T(self) -> "Mask":
        """Swap query and key: ``mask.T`` answers for (q, k) what ``mask`` answers for (k, q).

        ``padding(keep).T`` blocks padded *queries*.

        >>> from attnmask import causal
        >>> causal().T.allows(query=0, key=3)
        True
        """
        return replace(self, rule=Swapped(named_rule(self)), query_len=self.key_len, key_len=self.query_len, name="")

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

        >>> from attnmask import causal
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
        return replace(self, rule=At(named_rule(self), cached), query_len=query_len, name="")

    def at(
        self,
        query_positions: Integer[Tensor, "*#batch query"] | None,
        key_positions: Integer[Tensor, "*#batch key"] | None = None,
    ) -> "Mask":
        """Ask at other places: query q asks as query ``query_positions[q]``, key k as key ``key_positions[k]``.

        For caches and for shards of a sequence, where a row or a column of the
        scores is not the token of its number. ``after(n)`` is the case of
        queries that ask as query q + n.

        Parameters
        ----------
        query_positions, key_positions
            The place of each token, 0 or more: one integer a token, (token,), or one
            a sample and token, (batch, token). None leaves the queries or the keys as they are.

        Returns
        -------
        Mask
            A mask for as many queries and keys as positions were given, in any order;
            a position may come twice.

        Raises
        ------
        ValueError, TypeError
            Positions that are no integers of one or two axes, negative, beyond the
            lengths that the mask holds, or of another batch.

        Examples
        --------
        A static cache of 8 slots, of which slots 0 to 5 are filled; the one query stands at position 5:

        >>> from attnmask import causal, sliding_window
        >>> causal().at(torch.tensor([5])).dense(1, 8)[0, 0].int()
        tensor([[1, 1, 1, 1, 1, 1, 0, 0]], dtype=torch.int32)

        A ring cache of 4 slots after token 5, which has overwritten token 1 in slot 1:

        >>> sliding_window(2).at(torch.tensor([5]), torch.tensor([4, 5, 2, 3])).dense(1, 4)[0, 0].int()
        tensor([[1, 1, 0, 1]], dtype=torch.int32)

        A sequence of 8 tokens shared by two devices: one keeps the first and the last two tokens, and asks
        the keys of the other:

        >>> causal().at(torch.tensor([0, 1, 6, 7]), torch.tensor([2, 3, 4, 5])).dense(4)[0, 0].int()
        tensor([[0, 0, 0, 0],
                [0, 0, 0, 0],
                [1, 1, 1, 1],
                [1, 1, 1, 1]], dtype=torch.int32)
        """
        query_at = _positions(self, "query_len", query_positions)
        key_at = _positions(self, "key_len", key_positions)
        return replace(
            self,
            rule=At(named_rule(self), query_at, key_at),
            batch=_batch_at(self, query_at, key_at),
            query_len=self.query_len if query_at is None else query_at.shape[-1],
            key_len=self.key_len if key_at is None else key_at.shape[-1],
            name="",
        )

    # ---- the rest ---------------------------------------------------------------

    def __repr__(self) -> str:
        return self.name or str(self.rule)

    def __bool__(self) -> bool:
        raise type_error(
            "masks joined by &, | and ~",
            f"the truth value of {self!r}",
            "`and`, `or` or `not` between masks, which would silently drop one of them",
        )

    def _join(self, other: object, sign: str) -> "Mask":
        if not isinstance(other, Mask):
            raise type_error(f"a Mask on both sides of {sign}", kind_of(other), not_a_mask_cause(other))
        sizes = {axis: common_size(axis, self, other) for axis in _INDEX}
        return Mask(Both(sign, named_rule(self), named_rule(other)), **sizes)

    def fits(self, axis: str, size: int) -> bool:
        """Say whether this mask answers for a size of an axis: query_len, key_len, batch or heads.

        >>> from attnmask import padding
        >>> padding(torch.tensor([[True, False]])).fits("key_len", 3)
        False
        """
        return _held(self, axis) in (None, size)


# ---- what a mask holds ------------------------------------------------------------


def named_rule(mask: Mask) -> WrittenRule:
    """Return a mask's rule, under the mask's name if it has one: what other rules are made of."""
    rule = written(mask.rule, mask.name)
    return Named(rule, mask.name) if mask.name else rule


def common_size(axis: str, *masks: Mask) -> Any:
    """Return the size that masks share on an axis; refuse two that differ."""
    held = [mask for mask in masks if _held(mask, axis) is not None]
    for mask in held[1:]:
        if _held(mask, axis) != _held(held[0], axis):
            raise value_error(
                f"masks of one {axis}",
                f"{_held(held[0], axis)} in {held[0]!r} and {_held(mask, axis)} in {mask!r}",
                "they were made from different sets of token ids",
            )
    return getattr((held or masks)[0], axis)


def _held(mask: Mask, axis: str) -> int | None:
    """Return the one size a mask answers for on an axis; None where any will do."""
    size: int | None = getattr(mask, axis)
    return None if axis in ("batch", "heads") and size == 1 else size


def _check_sizes(mask: Mask, **asked: int) -> None:
    """Raise unless every size asked for is one that the held tensors can answer."""
    for axis, size in asked.items():
        held = _held(mask, axis)
        left_open = axis in ("batch", "heads") and size == 1
        if count(axis, size) != held and held is not None and not left_open:
            raise value_error(
                f"{axis}={held}, as {mask!r} holds",
                f"{axis}={size}",
                "the mask was made from other token ids than the queries and keys"
                + (", or key_len was left out (it defaults to query_len)" * (axis == "key_len")),
            )


def _positions(mask: Mask, axis: str, positions: Tensor | None) -> Tensor | None:
    """Check positions against the length that a mask holds; return a copy that nobody else can change."""
    if positions is None:
        return None
    name, held = f"{_INDEX[axis]}_positions", _held(mask, axis)
    positions = in_range(name, integer_table(name, positions, "token", "batch, token"))
    if bool((positions < 0).any()):
        raise value_error(
            f"every one of {name} to be 0 or more",
            f"{int(positions.min())}",
            "the mark of an empty slot in a cache; give that slot position 0, and block it with & padding(filled)",
        )
    if held is not None and bool((positions >= held).any()):
        raise value_error(
            f"{name} below {held}, as {mask!r} holds",
            f"{int(positions.max())}",
            "a table that covers a part of the sequence; make the mask from all of it, then ask with at",
        )
    return positions


def _batch_at(mask: Mask, *positions: Tensor | None) -> int:
    """Return the batch of a mask and of the positions it is asked at; refuse two that differ."""
    sizes = [mask.batch, *(len(table) for table in positions if table is not None and table.dim() == 2)]
    held = sorted({size for size in sizes if size != 1})
    if len(held) > 1:
        raise value_error(
            f"positions of one batch, for {mask!r}",
            " and ".join(map(str, held)),
            "they were made from different sets of token ids",
        )
    return held[0] if held else 1


# ---- asking for many pairs ----------------------------------------------------------


def _on_grids(
    mask: Mask, batch: int, heads: int, queries: tuple[int, int], key_len: int, device: torch.device | str | None
) -> Tensor:
    """Ask a mask on four index grids that broadcast: (B,1,1,1), (1,H,1,1), (1,1,Q,1), (1,1,1,K)."""
    batch = batch if mask.batch == 1 else mask.batch
    heads = heads if mask.heads == 1 else mask.heads
    axes = ((0, batch), (0, heads), queries, (0, key_len))
    grids = [
        torch.arange(start, stop, device=device).reshape([-1 if axis == own else 1 for axis in range(4)])
        for own, (start, stop) in enumerate(axes)
    ]
    answer = mask(*grids).to(grids[0].device)
    answer = answer.reshape(1, 1, 1, 1) if answer.dim() == 0 else answer
    full = tuple(stop - start for start, stop in axes)
    if not fits(answer.shape, full):
        raise value_error(
            f"the rule of {mask!r} to answer pair by pair, within shape {full}",
            kind_of(answer),
            "the rule gives back a table; index it with the indices it is asked for: table[batch, key]",
        )
    return answer


def fits(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    """Say whether a shape has every axis of the full one, each of them full or 1.

    >>> fits((2, 1, 1, 5), (2, 8, 5, 5)), fits((2, 5), (2, 8, 5, 5))
    (True, False)
    """
    # Two comparisons in place of `in`: under torch.compile the sizes are symbols, which `in` does not find.
    return len(shape) == len(full) and all(size == 1 or size == whole for size, whole in zip(shape, full, strict=True))
