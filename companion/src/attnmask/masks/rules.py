"""What does a rule answer for a pair?

A rule is asked for (batch, head, query, key): integer tensors that broadcast
against each other. It answers with bools, ``True`` = this query may look at this key.

Three leaves make every rule of the package: the difference of two coordinates
lies in an interval (`Band`), a table over keys (`Keys`), a table over pairs
(`Pairs`). `Own` is a caller's function, `Named` a rule under another text; the
others join rules (`Both`, `Not`, `PerHead`) or ask one elsewhere (`Swapped`,
`At`). All are plain data, so that more can be asked of them than single pairs.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from attnmask._check import kind_of, type_error

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class WrittenRule(ABC):
    """What the rules below share: each says in ``str`` how it was written."""

    binding = 3  # how tightly that text holds together: | is 0, & is 1, ~ is 2, all else 3

    @abstractmethod
    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Answer for indices that broadcast."""


def written(rule: Rule, name: str) -> WrittenRule:
    """Wrap a caller's function, once, under its mask's name; a rule of this module stays as it is."""
    function = rule.function if isinstance(rule, Own) else rule
    return function if isinstance(function, WrittenRule) else Own(function, name)


def as_tensor(value: Any) -> Tensor:
    """Make a tensor, unless it is one: torch.as_tensor would move it to PyTorch's default device."""
    return value if isinstance(value, Tensor) else torch.as_tensor(value)


@dataclass(frozen=True, eq=False)
class Own(WrittenRule):
    """A caller's function, which has to answer with bools."""

    function: Rule
    name: str = ""

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        answer = as_tensor(self.function(batch, head, query, key))
        if answer.dtype != torch.bool:
            raise type_error(
                f"the rule of {self} to answer with bools, True = may attend",
                kind_of(answer),
                "arithmetic on bools, or an additive mask; end the rule with a comparison",
            )
        return answer

    def __str__(self) -> str:
        return self.name or f"Mask({getattr(self.function, '__name__', 'rule')})"


@dataclass(frozen=True, eq=False)
class Named(WrittenRule):
    """A rule under the name of its mask."""

    rule: WrittenRule
    text: str

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.rule(batch, head, query, key)

    def __str__(self) -> str:
        return self.text


# ---- the three leaves. Each keeps how it was written, with {} for the shape of the table it holds ----


@dataclass(frozen=True, eq=False)
class Band(WrittenRule):
    """low <= key's coordinate - query's coordinate <= high, and divisible by ``step``.

    None = no bound on that side. A coordinate is the position itself (None), one
    number a sample (batch,), or one a token (batch, token); divided by ``chunk``
    and rounded down, which numbers the chunks.
    """

    written: str
    low: int | None
    high: int | None
    query_at: Tensor | None = None
    key_at: Tensor | None = None
    step: int = 1
    chunk: int = 1

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        difference = self._coordinate(self.key_at, batch, key) - self._coordinate(self.query_at, batch, query)
        answer = torch.ones((), dtype=torch.bool, device=key.device)
        if self.low is not None:
            answer = answer & (difference >= self.low)
        if self.high is not None:
            answer = answer & (difference <= self.high)
        if self.step != 1:
            answer = answer & (difference % self.step == 0)
        return answer

    def __str__(self) -> str:
        return self.written if self.query_at is None else self.written.format(list(self.query_at.shape))

    def _coordinate(self, table: Tensor | None, batch: Tensor, token: Tensor) -> Tensor:
        coordinate = token if table is None else _look_up(table, *(batch, token)[: table.dim()])
        return coordinate if self.chunk == 1 else coordinate // self.chunk


@dataclass(frozen=True, eq=False)
class Keys(WrittenRule):
    """A table over keys: (batch, key)."""

    written: str
    table: Tensor

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return _look_up(self.table, batch, key)

    def __str__(self) -> str:
        return self.written.format(list(self.table.shape))


@dataclass(frozen=True, eq=False)
class Pairs(WrittenRule):
    """A table over pairs: (query, key), (batch, query, key) or (batch, head, query, key); an axis of 1 is for all."""

    written: str
    table: Tensor

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        leading = {2: (), 3: (batch,), 4: (batch, head)}[self.table.dim()]
        return _look_up(self.table, *leading, query, key)

    def __str__(self) -> str:
        return self.written.format(list(self.table.shape))


# ---- rules made of rules -----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Both(WrittenRule):
    """Two rules joined by ``&`` or ``|``."""

    sign: str
    one: WrittenRule
    other: WrittenRule

    @property
    def binding(self) -> int:  # type: ignore[override]
        """How tightly the sign holds together."""
        return {"|": 0, "&": 1}[self.sign]

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        one, other = self.one(batch, head, query, key), self.other(batch, head, query, key)
        return one & other if self.sign == "&" else one | other

    def __str__(self) -> str:
        return f"{_inside(self.one, self.binding)} {self.sign} {_inside(self.other, self.binding)}"


@dataclass(frozen=True, eq=False)
class Not(WrittenRule):
    """Exactly the pairs that a rule blocks."""

    rule: WrittenRule
    binding = 2

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return ~self.rule(batch, head, query, key)

    def __str__(self) -> str:
        return f"~{_inside(self.rule, 2)}"


@dataclass(frozen=True, eq=False)
class PerHead(WrittenRule):
    """One rule a head."""

    rules: tuple[WrittenRule, ...]

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        answers = ((head == own) & rule(batch, head, query, key) for own, rule in enumerate(self.rules))
        return reduce(operator.or_, answers)

    def __str__(self) -> str:
        return f"per_head([{', '.join(map(str, self.rules))}])"


@dataclass(frozen=True, eq=False)
class Swapped(WrittenRule):
    """A rule with query and key swapped."""

    rule: WrittenRule

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.rule(batch, head, key, query)

    def __str__(self) -> str:
        return f"{_inside(self.rule, 3)}.T"


@dataclass(frozen=True, eq=False)
class At(WrittenRule):
    """A rule asked at other places: None = as it is, a number to add, or positions (token,) or (batch, token)."""

    rule: WrittenRule
    query_at: Tensor | int | None
    key_at: Tensor | int | None = None

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.rule(batch, head, _place(self.query_at, batch, query), _place(self.key_at, batch, key))

    def __str__(self) -> str:
        given = [
            f"{name}{list(at.shape)}" if isinstance(at, Tensor) else f"{at}"
            for name, at in (("query_positions", self.query_at), ("key_positions", self.key_at))
        ]
        if self.key_at is None:
            given.pop()
        after = not isinstance(self.query_at, Tensor | None)
        return f"{_inside(self.rule, 3)}.{'after' if after else 'at'}({', '.join(given)})"


# ---- what the rules share ------------------------------------------------------------


def _inside(rule: WrittenRule, binding: int) -> str:
    """Return a rule's text, in brackets where an operator of this binding would tear it apart."""
    return str(rule) if rule.binding >= binding else f"({rule})"


def _look_up(table: Tensor, *indices: Tensor) -> Tensor:
    """Index a table, on the indices' device; an axis of size 1 answers for every index."""
    slots = (0 if size == 1 else index for size, index in zip(table.shape, indices, strict=True))
    answer = table.to(indices[-1].device)[tuple(slots)]
    return answer if answer.dim() else answer.clone()  # a single entry is a view: nobody may write through it


def _place(at: Tensor | int | None, batch: Tensor, token: Tensor) -> Tensor:
    """Say at which place a token is asked."""
    if at is None:
        return token
    if not isinstance(at, Tensor):
        return token + at
    return _look_up(at, token) if at.dim() == 1 else _look_up(at, batch, token)
