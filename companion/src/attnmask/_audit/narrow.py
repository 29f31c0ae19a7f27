"""Which module hides what it should not?"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import tree_leaves, tree_map

from attnmask._audit.localize import names_of
from attnmask._audit.runner import Runner
from attnmask._measure.call import ModelCall
from attnmask._measure.gradients import gradients

_EACH_ALONE = {f"torch.nn.modules.{kind}" for kind in ("linear", "normalization", "dropout", "sparse", "activation")}


class Called(NamedTuple):
    """One call of a module that takes and gives (batch, position, feature)."""

    name: str
    module: nn.Module
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    states: Tensor  # of the arguments, the tokens


def narrow_modules(runner: Runner, hidden: Tensor) -> list[str]:
    """Name the modules that mix the fewest of these pairs (batch, output, input), in the order in which they run.

    Each module that mixes tokens, or is called attention, is asked by itself: which of its outputs have a gradient
    in which of its tokens. Named are those that let through fewer of the pairs than others
    of their class do, or, where all are alike, all of them.
    """
    found = {}
    for called in _calls(runner):
        with suppress(Exception):  # whatever a module raises that is called alone
            table = _mixes(runner, called)
            mixes = bool((table & ~torch.eye(table.shape[1], dtype=torch.bool)).any())
            if mixes or "attention" in type(called.module).__name__.lower():
                found[called.name] = type(called.module), int((table & hidden).sum())
    inner = {name: each for name, each in found.items() if not any(other.startswith(f"{name}.") for other in found)}
    through = {kind: {count for one, count in inner.values() if one is kind} for kind, _ in inner.values()}
    differ = [name for name, (kind, count) in inner.items() if count < max(through[kind])]
    return differ or [name for name, (_, count) in inner.items() if count < int(hidden.sum())]


def _mixes(runner: Runner, called: Called) -> Tensor:
    """Return which outputs of a module depend on which of its tokens, (batch, output, input)."""

    def alone(states: Tensor) -> Any:
        arguments, keywords = tree_map(
            lambda each: states if each is called.states else each, (called.arguments, called.keywords)
        )
        return called.module(*arguments, **keywords)

    call = ModelCall.of(alone, {"states": called.states}, ["states"], 1, runner.call.memory)
    batch, length = called.states.shape[:2]
    table = torch.zeros(batch, length, length, dtype=torch.bool)
    for samples, positions, sizes in gradients(call, runner.snapshot):
        samples, positions = samples.cpu(), positions.cpu()
        table[samples, positions] = (sizes["states"][range(len(samples)), samples] > 0).cpu()
    return table


def _calls(runner: Runner) -> Iterator[Called]:
    """Run once and yield the calls of modules that take and give tokens, of each module the last."""
    with _watched(runner) as calls, runner.snapshot.run(), torch.enable_grad():
        runner.call.outputs({})
    yield from list(calls.values())


@contextmanager
def _watched(runner: Runner) -> Iterator[dict[str, Called]]:
    names = names_of(runner.call.model, runner.snapshot.modules)
    tokens = runner.case.judged.shape
    calls: dict[str, Called] = {}

    def note(module: nn.Module, arguments: Any, keywords: Any, output: Any) -> None:
        states = [each for each in tree_leaves((arguments, keywords)) if _is_states(each, tokens)]
        mixes = type(module).__module__ not in _EACH_ALONE or isinstance(module, nn.MultiheadAttention)
        if mixes and module in names and states and any(_is_states(each, tokens) for each in tree_leaves(output)):
            given = tree_map(lambda each: each.detach() if isinstance(each, Tensor) else each, (arguments, keywords))
            again = [each for each in tree_leaves(given) if _is_states(each, tokens)]
            calls[names[module]] = Called(names[module], module, given[0], given[1], again[0])

    handle = register_module_forward_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def _is_states(value: Any, tokens: tuple[int, ...]) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 3 and value.shape[:2] == tokens
