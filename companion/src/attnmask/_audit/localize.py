"""Which module shows it first?"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import tree_leaves

from attnmask._audit.findings import Findings
from attnmask._audit.records import Counterexample, Finished, Inputs, Named, Perturbation
from attnmask._audit.runner import Runner, copies_of
from attnmask._measure.compare import SURE, max_abs, max_abs_diff
from attnmask._measure.values import Kind

Records = dict[tuple[str, int], Tensor]  # a module's name and which of its calls: (batch, position, feature)
_CHANNELS_FIRST = {f"torch.nn.modules.{kind}" for kind in ("conv", "batchnorm", "instancenorm", "pooling", "padding")}
_ROUNDING = 1e-11  # of the largest number that a module gives, in float64
_STRANGERS = 16  # inputs of other samples, of each of which a module is looked for


class Shown(NamedTuple):
    """Where (batch, position) a module's output differs between two runs, and where by more than rounding does."""

    module: str
    rows: Tensor
    surely: Tensor


def localize(
    runner: Runner, findings: Findings, examples: Iterable[Counterexample], positions: int | None = None
) -> Iterator[Named | Finished]:
    """Name for leaks without a module the first one whose output a change of that input moves.

    First where the counterexamples say, then by changing the inputs of each leak, of which at
    most ``positions`` are looked at. What differs by no more than rounding names nothing.
    """
    trace = _Trace(runner)
    unnamed = {name: findings.unnamed(name) for name in findings.leaks}
    for name, (sample, place), moved, _, before, after in examples:
        pairs = unnamed[name][..., place].clone()
        pairs &= moved[..., None] & (torch.arange(len(moved)) == sample)
        for named in trace.blame(name, place, pairs, before, after):
            unnamed[name][..., place] &= ~named.pairs
            yield named
    for name, stranger, place in _cells(unnamed, positions):
        cells = torch.zeros(unnamed[name].shape[2:], dtype=torch.bool)
        cells[slice(None) if stranger is None else stranger, place] = True
        same = torch.eye(len(cells), dtype=torch.bool)[:, None, :]
        for kind in (Kind.SMALL, Kind.LARGE, Kind.MOVED):
            pairs = unnamed[name][..., place] & (same if stranger is None else ~same & cells[:, place])
            if bool(pairs.any()):
                given = Perturbation(name, cells, kind, seed=place).apply(runner.case, runner.call)
                for named in trace.blame(name, place, pairs, {}, given):
                    unnamed[name][..., place] &= ~named.pairs
                    yield named
    yield Finished(tuple(trace.order), trace.blurred)


def _cells(unnamed: dict[str, Tensor], positions: int | None) -> Iterator[tuple[str, int | None, int]]:
    """Yield which inputs to change: their name, the sample (None: every one, for itself), the position."""
    for name, pairs in unnamed.items():
        same = torch.eye(len(pairs), dtype=torch.bool)[:, None, :, None]
        own = (pairs & same).flatten(0, 2).sum(0)
        places = [place for place in own.argsort(descending=True, stable=True).tolist() if own[place]]
        yield from ((name, None, place) for place in places[:positions])
        others = (pairs & ~same).flatten(0, 1).any(0).nonzero().tolist()[:_STRANGERS]
        yield from ((name, sample, place) for sample, place in others[:positions])


class _Trace:
    """Runs of one runner with what each module gives, those on the unchanged inputs kept."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.order: dict[str, None] = {}  # in which modules finish
        self.blurred = False
        self.unchanged: dict[bool, Records] = {}  # by whether gradients are recorded

    def blame(self, name: str, position: int, pairs: Tensor, before: Inputs, after: Inputs) -> Iterator[Named]:
        """Name the modules for pairs (batch, output, batch) of one input position."""
        case = self.runner.case
        outputs, inputs = case.allowed[name].shape[1:]
        if name != case.output_sequence and outputs == inputs and len(case.call.arguments) > 1:
            # Rows of an encoder may pass for rows of the output: those of padding, save its own, hold for both.
            pairs = pairs & case.padding[name][:, position]
            pairs[:, position] = False
        for grad in (True, False):  # while gradients are recorded, no fast path hides the parts of a layer
            if not bool(pairs.any()):
                return
            try:
                shown = list(first_shown(self.records(before, grad), self.records(after, grad)))
            except Exception:  # whatever a model raises: some run on the fast path only, or do not take these values
                continue
            for module, rows, surely in shown:
                named = pairs & surely[..., None]
                if bool(named.any()):
                    yield Named(name, position, named, module)
                self.blurred |= bool((pairs & (rows & ~surely)[..., None]).any())
                pairs = pairs & ~rows[..., None]

    def records(self, given: Inputs, grad: bool, call_before: Inputs | None = None) -> Records:
        """Run and record what each module gives, in the order in which they finish; the unchanged inputs once."""
        if not given and call_before is None and grad in self.unchanged:
            return self.unchanged[grad]
        runner = self.runner
        arguments = runner.call.arguments
        given = {name: values.to(arguments[name].dtype, copy=True) for name, values in given.items()}
        batch, outputs = runner.judged.shape
        call = runner.call
        watched = recorded(call.model, runner.snapshot.modules, batch, outputs, call.output_axis)
        with watched as records, runner.snapshot.run(), torch.set_grad_enabled(grad):
            if call_before is not None:
                call.outputs(copies_of(call_before))
                runner.snapshot.reseed()
                records.clear()
            call.outputs(given)
        self.order.update(dict.fromkeys(name for name, _ in records))
        if not given and call_before is None:
            self.unchanged[grad] = records
        return records


def blame_memory(runner: Runner, earlier: list[Inputs]) -> list[Shown]:
    """Return which modules differ after two different calls before, in the order in which they finish."""
    trace = _Trace(runner)
    return list(first_shown(*(trace.records({}, runner.mode.grad, given) for given in earlier)))


def blame_nan(runner: Runner) -> dict[tuple[int, int], str]:
    """Return by (sample, output) the first module to finish whose output is NaN there."""
    found: dict[tuple[int, int], str] = {}
    with suppress(Exception):  # off a fast path, some models do not run
        for (module, _), rows in _Trace(runner).records({}, grad=True).items():
            for sample, output in rows.isnan().flatten(2).any(-1).nonzero().tolist():
                found.setdefault((sample, output), module)
    return found


def first_shown(before: Records, after: Records) -> Iterator[Shown]:
    """Yield the modules whose outputs differ, in the order in which they finish."""
    for key in before:
        if key in after and before[key].shape == after[key].shape and not torch.equal(before[key], after[key]):
            size, nan_changed = max_abs_diff([before[key]], [after[key]])
            exact = before[key].dtype == torch.float64
            rounding = _ROUNDING if exact else SURE * torch.finfo(before[key].dtype).eps
            surely = nan_changed | (size > rounding * max_abs([before[key]]))
            yield Shown(key[0], surely if exact else nan_changed | (size > 0), surely)


@contextmanager
def recorded(
    model: Any, modules: Iterable[nn.Module], batch: int, outputs: int, position_axis: int = 1
) -> Iterator[Records]:
    """While active, record what each module gives for each position, in the order in which they finish.

    >>> linear = nn.Linear(3, 2)
    >>> with recorded(nn.Sequential(linear), [linear], 1, 4) as records:
    ...     _ = linear(torch.zeros(1, 4, 3))
    >>> [(key, tuple(each.shape)) for key, each in records.items()]
    [(('0', 0), (1, 4, 2))]
    """
    records: Records = {}
    named = module_names(model, modules)

    def record(module: nn.Module, _: Any, output: Any) -> None:
        rows = as_rows(module, output, batch, outputs, position_axis)
        if rows is not None and module in named:
            times = sum(name == named[module] for name, _ in records)
            records[named[module], times] = rows.detach().clone()

    handle = register_module_forward_hook(record)  # hooks on single modules would switch fast paths off
    try:
        yield records
    finally:
        handle.remove()


def as_rows(module: nn.Module, output: Any, batch: int, outputs: int, position_axis: int) -> Tensor | None:
    """View the first tensor of floats that a module gives as (batch, position, feature), if it can be."""
    floats = [each for each in tree_leaves(output) if isinstance(each, Tensor) and each.is_floating_point()]
    if not floats or floats[0].is_nested or floats[0].dim() > 3:
        return None
    rows = floats[0]
    if type(module).__module__ in _CHANNELS_FIRST and rows.dim() == 3 and rows.shape[2] == outputs:
        rows = rows.transpose(1, 2)
    if position_axis == 0 and rows.shape[:2] == (outputs, batch):
        return rows.transpose(0, 1)
    if rows.shape[:2] == (batch, outputs):
        return rows
    if rows.shape[:2] == (outputs, batch):
        return rows.transpose(0, 1)
    return rows.reshape(batch, outputs, -1) if rows.dim() == 2 and len(rows) == batch * outputs else None


def module_names(model: Any, modules: Iterable[nn.Module]) -> dict[nn.Module, str]:
    """Name modules by their paths; those of a function begin with the class of the outermost."""
    if isinstance(model, nn.Module):
        return {module: name or type(model).__name__ for name, module in model.named_modules()}
    modules = [*modules]
    inner = {id(each) for module in modules for each in module.modules() if each is not module}
    roots = [module for module in modules if id(module) not in inner]
    named = chain(*(root.named_modules(prefix=type(root).__name__) for root in roots))
    return {module: name for name, module in named}
