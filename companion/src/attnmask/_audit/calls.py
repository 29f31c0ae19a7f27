"""With which arguments does a model call its modules?"""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from attnmask._audit.localize import module_names
from attnmask._measure.snapshot import copy_of


class Called(NamedTuple):
    """One call of a module: its arguments by name, and which of them are one and the same tensor as an earlier one."""

    name: str
    module: nn.Module
    arguments: dict[str, Any]
    same: dict[str, str]

    @property
    def states(self) -> dict[str, Tensor]:
        """The arguments that hold tokens, (batch, position, feature)."""
        return {name: each for name, each in self.arguments.items() if is_states(each)}

    def again(self, **given: Any) -> Any:
        """Call the module with all these arguments, some of which stand for several."""
        given |= {name: given[first] for name, first in self.same.items()}
        places = sorted((name for name in given if name.isdecimal()), key=int)
        unnamed = [given.pop(name) for name in places]
        return self.module(*unnamed, **given)


def is_states(value: Any) -> bool:
    """Say whether these are floats (batch, position, feature)."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 3


@contextmanager
def calls_of(model: Any, modules: Iterable[nn.Module]) -> Iterator[dict[str, Called]]:
    """While active, note with which arguments each module is called, the last time: in the order in which they start.

    >>> import torch
    >>> outer = nn.Sequential(nn.Linear(2, 2))
    >>> with calls_of(outer, [outer]) as calls:
    ...     _ = outer(torch.zeros(1, 3, 2))
    >>> list(calls), list(calls["0"].states)
    (['Sequential', '0'], ['input'])
    """
    names, calls = module_names(model, modules), dict[str, Called]()

    def note(module: nn.Module, arguments: Any, keywords: Any) -> None:
        given, firsts = _by_name(module, arguments, keywords), dict[int, str]()
        same = {name: first for name, each in given.items() if (first := firsts.setdefault(id(each), name)) != name}
        same = {name: first for name, first in same.items() if isinstance(given[name], Tensor)}
        kept = {name: copy_of(each) for name, each in given.items() if name not in same}
        calls.pop(names[module], None)
        calls[names[module]] = Called(names[module], module, kept, same)

    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in names]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _by_name(module: nn.Module, arguments: Any, keywords: Any) -> dict[str, Any]:
    """Return the arguments of a call by the names that a module has for them, or else by their places: "0", "1"."""
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # functions written in C have no signature
        parameters = []
    named = [each.name if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD else "" for each in parameters]
    names = [
        name or str(place) for place, name in zip(range(len(arguments)), named + [""] * len(arguments), strict=False)
    ]
    if any(name.isdecimal() for name in names):  # what has no name is given by its place, and so all before it
        names = [str(place) for place in range(len(arguments))]
    return dict(zip(names, arguments, strict=True)) | keywords
