"""Which module hides what it should not?"""

from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn

from attnmask._audit.calls import Called, calls_of
from attnmask._audit.runner import Runner
from attnmask._measure.call import ModelCall
from attnmask._measure.gradients import gradients

_EACH_ALONE = {f"torch.nn.modules.{kind}" for kind in ("linear", "normalization", "dropout", "sparse", "activation")}


def narrow_modules(runner: Runner, hidden: Tensor) -> list[str]:
    """Name the modules that mix the fewest of these pairs (batch, output, input), in the order in which they start.

    Each module that mixes tokens, or is called attention, is asked by itself: which of its
    outputs have a gradient in which of its tokens. Named are those that let through fewer
    of the pairs, or of all pairs, than others of their class do, or, where all are alike, all.
    """
    found = {}
    for called in _mixers(runner):
        with suppress(Exception):  # whatever a module raises that is called alone
            table = _mixes(runner, called)
            mixes = bool((table & ~torch.eye(table.shape[1], dtype=torch.bool)).any())
            if mixes or "attention" in type(called.module).__name__.lower():
                found[called.name] = type(called.module), (int((table & hidden).sum()), int(table.sum()))
    inner = {name: each for name, each in found.items() if not any(other.startswith(f"{name}.") for other in found)}
    through = {kind: {count for one, count in inner.values() if one is kind} for kind, _ in inner.values()}
    differ = [name for name, (kind, count) in inner.items() if count < max(through[kind])]
    return differ or [name for name, (_, (count, _)) in inner.items() if count < int(hidden.sum())]


def _mixers(runner: Runner) -> Iterator[Called]:
    """Run once and yield the calls of modules that take tokens and may mix them."""
    with calls_of(runner.call.model, runner.snapshot.modules) as calls, runner.snapshot.run(), torch.enable_grad():
        runner.call.outputs({})
    for called in calls.values():
        kind = type(called.module)
        of_torch = kind.__module__ in _EACH_ALONE and kind is not nn.MultiheadAttention
        tokens = [each.shape[:2] == runner.case.judged.shape for each in called.states.values()]
        if not of_torch and any(tokens):
            yield called


def _mixes(runner: Runner, called: Called) -> Tensor:
    """Return which outputs of a module depend on which of its tokens, (batch, output, input)."""
    name = next(name for name, each in called.states.items() if each.shape[:2] == runner.case.judged.shape)
    call = ModelCall.of(called.again, called.arguments, [name], None, runner.call.memory)
    batch, length = called.states[name].shape[:2]
    table = torch.zeros(batch, length, length, dtype=torch.bool)
    for samples, positions, sizes in gradients(call, runner.snapshot):
        samples, positions = samples.cpu(), positions.cpu()
        table[samples, positions] = (sizes[name][range(len(samples)), samples] > 0).cpu()
    return table
