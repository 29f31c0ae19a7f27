"""Where does a difference show first, and what can be shown to cause it?"""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.module import register_module_forward_pre_hook

from attnmask._audit.localize import Records, as_rows, module_names, recorded
from attnmask._invariance.axes import Trial, is_mask_argument, side_of
from attnmask._invariance.runs import Difference, Runs
from attnmask._measure.compare import max_abs, max_abs_diff, same_numbers


class Shown(NamedTuple):
    """The first module to finish whose output at real tokens differs, and whether its input there agrees."""

    name: str
    module: nn.Module | None
    input_agrees: bool


def first_module(runs: Runs, trial: Trial, sample: int) -> Shown | None:
    """Run a trial and the sample alone, and compare what each module gives at the sample's real tokens."""
    alone = runs.sequences.alone(sample)
    before, after = (_given_by_modules(runs, each, sample) for each in (alone, trial))
    modules = {name: module for module, name in module_names(runs.call.model, runs.snapshot.modules).items()}
    for key in dict.fromkeys(key for records in after.values() for key in records):
        # Where sequences are equally long, rows of one may pass for rows of another: all readings have to differ.
        readings = [_differ(runs, before[each].get(key), after[each].get(key)) for each in after]
        if True in readings and False not in readings:
            name, time = key
            inputs = [_taken_by(modules[name], time, runs, each, sample) for each in (alone, trial)]
            agrees = any(_differ(runs, inputs[0].get(each), inputs[1].get(each)) is False for each in after)
            return Shown(name, modules[name], agrees)
    return None


def explained(runs: Runs, found: Difference) -> tuple[Shown | None, list[str]]:
    """Return the first module that shows a difference, and what experiments show of its cause."""
    single = found.trial._replace(samples=(found.sample,))
    company = len(found.trial.samples) > 1 and _vanishes(runs, single, found.sample)
    shown = None
    with suppress(Exception):  # whatever a model raises: some run on the fast path only
        shown = first_module(runs, found.trial if company else single, found.sample)
    if not company:
        return shown, list(_causes(runs, found, single, shown))
    causes = ["other samples of the batch: without them, but as much padding, it gives what it gives alone"]
    return shown, causes + ["batch statistics"] * isinstance(shown and shown.module, _BatchNorm)


def _causes(runs: Runs, found: Difference, single: Trial, shown: Shown | None) -> Iterator[str]:
    """Yield what experiments show of the cause, the surest first."""
    module = shown.module if shown else None
    yield from _masks(runs, found)
    remedies = list(_remedies(runs, found))
    yield from remedies
    if remedies:
        return
    if isinstance(module, _BatchNorm):
        yield "batch statistics, which count the padding"
    elif isinstance(module, nn.Embedding):
        yield "positions: an embedding gives other rows for the same tokens"
    elif shown is not None and shown.input_agrees and isinstance(module, _ConvNd) and max(module.kernel_size) > 1:
        yield "a convolution, which reads into the padding"
    elif shown is not None and shown.input_agrees and isinstance(module, nn.RNNBase):
        yield "a recurrence, which runs through the padding"
    else:
        with suppress(Exception):  # whatever a model raises
            yield from _contents(runs, single, found.sample)


def _masks(runs: Runs, found: Difference) -> Iterator[str]:
    """Say of each mask whether it blocks nothing, or is not used: letting all through changes no bit."""
    sequences, call = runs.sequences, runs.call
    for name in call.arguments:
        if not is_mask_argument(sequences, call, name):
            continue
        mask, axes = call.arguments[name], sequences.axes_of(call, name, call.arguments[name])
        cell = [0] * mask.dim()
        for axis, sequence in axes.tokens.items():
            cell[axis] = sequences.real(sequence, found.sample)[0]
        if axes.batch is not None:
            cell[axes.batch] = found.sample
        open_mask = torch.full_like(mask, mask[tuple(cell)].item())
        if torch.equal(open_mask, mask):
            yield f"{name} blocks nothing: it is the same everywhere"
            continue
        with suppress(Exception):  # whatever a model raises
            opened = runs.with_call(call.replaced({name: open_mask})).as_given
            if same_numbers(runs.as_given, opened):
                yield f"{name} is not used at all: without any blocked entry, the outputs are the same bit for bit"


def _remedies(runs: Runs, found: Difference) -> Iterator[str]:
    """Give arguments that the model takes and that were not given; say which make the difference vanish."""
    call, options = runs.call, dict[str, tuple[str, Tensor]]()
    for sequence, keep in runs.sequences.keep.items():
        lead = "decoder_" if len(runs.sequences.keep) > 1 and side_of(sequence) == "target" else ""
        real = keep.long()
        options[f"{lead}attention_mask"] = f"{_named(runs, sequence)}.long()", real
        positions = (real.cumsum(1) - 1).clamp(min=0)
        options[f"{lead}position_ids"] = f"({_named(runs, sequence)}.long().cumsum(1) - 1).clamp(min=0)", positions
    takes = _parameters(call.model) if call.named else set()
    options = {name: each for name, each in options.items() if name in takes and call.arguments.get(name) is None}
    tried = [[name] for name in options] + ([list(options)] if len(options) > 1 else [])
    device = next(iter(runs.call.layouts))
    for names in tried:
        given = {name: options[name][1].to(call.arguments[device].device) for name in names}
        if _vanishes(runs.with_call(call.replaced(given)), found.trial, found.sample):
            what = " and ".join(f"{name} = {options[name][0]}" for name in names)
            cause = "positions; with" if names[-1].endswith("position_ids") else "no mask; with"
            yield f"{cause} {what} nothing differs"
            return


def _contents(runs: Runs, single: Trial, sample: int) -> Iterator[str]:
    """Change what stands in the padding, and where the padding stands, of one sample."""
    sequences, call = runs.sequences, runs.call
    cut = sequences.cut(call, single)
    filled = {}
    for name in call.layouts:
        sequence = sequences.axes_of(call, name, call.arguments[name]).tokens[call.layouts[name].position]
        places = sequences.places(sequence, single, sample)
        padding = sorted(set(range(len(single.columns[sequence]))) - set(places))
        filled[name] = cut.arguments[name].clone()
        front = cut.as_batch_position(name, filled[name])
        front[:, padding] = front[:, places[-1:]]
    if all(torch.equal(each, cut.arguments[name]) for name, each in filled.items()):
        return
    with runs.watched():
        before = [each.detach() for each in cut.outputs({})]
    with runs.watched():
        after = [each.detach() for each in cut.outputs(filled)]
    before, after = (runs.rows(single, sample, each) for each in (before, after))
    if _differ(runs, before[0], after[0]) is not False:
        yield "what stands in the padding is read: other tokens there change the outputs"
        return
    behind = {
        name: (*(real := sequences.real(name, sample)), *(each for each in columns if each not in real))
        for name, columns in single.columns.items()
    }
    if behind != single.columns and _vanishes(runs, single._replace(columns=behind), sample):
        yield "where the padding stands, which positions or a state count: behind the tokens, the same changes nothing"
    else:
        yield "what stands in the padding does not matter, only how much of it there is"


def _vanishes(runs: Runs, trial: Trial, sample: int) -> bool:
    """Say whether a sample in a trial gives what it gives alone; no, where the model does not run."""
    try:
        return runs.difference(trial, sample) is None
    except Exception:  # whatever a model raises
        return False


def _given_by_modules(runs: Runs, trial: Trial, sample: int) -> dict[str, Records]:
    """Record what each module gives at the real tokens of a sample, its rows read as those of each sequence."""
    call, batch = runs.sequences.cut(runs.call, trial), len(trial.samples)
    with ExitStack() as stack:
        records = {
            name: stack.enter_context(
                recorded(call.model, runs.snapshot.modules, batch, len(columns), call.output_axis)
            )
            for name, columns in trial.columns.items()
        }
        with runs.watched(grad=True):  # no fast path hides the parts of a layer
            call.outputs({})
    return {
        name: {key: _at_real(runs, name, trial, sample, rows) for key, rows in some.items()}
        for name, some in records.items()
    }


def _taken_by(module: nn.Module, time: int, runs: Runs, trial: Trial, sample: int) -> dict[str, Tensor]:
    """Return what a module takes, the time that it is called, at the real tokens of a sample, for each sequence."""
    call, taken = runs.sequences.cut(runs.call, trial), list[list[Tensor]]()

    def note(called: nn.Module, args: Any) -> None:
        if called is module:
            taken.append(
                [each.detach().clone() for each in args if isinstance(each, Tensor) and each.is_floating_point()]
            )

    handle = register_module_forward_pre_hook(note)
    try:
        with runs.watched(grad=True):
            call.outputs({})
    finally:
        handle.remove()
    found = {}
    for name, columns in trial.columns.items() if time < len(taken) else ():
        rows = as_rows(module, taken[time], len(trial.samples), len(columns), call.output_axis)
        if rows is not None:
            found[name] = _at_real(runs, name, trial, sample, rows)
    return found


def _at_real(runs: Runs, name: str, trial: Trial, sample: int, rows: Tensor) -> Tensor:
    """Return the rows (1, real token, …) of a sample's real tokens."""
    places = torch.tensor(runs.sequences.places(name, trial, sample), device=rows.device)
    row = trial.samples.index(sample)
    return rows[row : row + 1].index_select(1, places)


def _differ(runs: Runs, before: Tensor | None, after: Tensor | None) -> bool | None:
    """Say whether two tensors differ by more than rounding; None where they cannot be compared."""
    if before is None or after is None or before.shape != after.shape:
        return None
    size, nan_changed = max_abs_diff([before], [after])
    return bool((nan_changed | (size > runs.tolerance(after.dtype) * max_abs([before, after]))).any())


def _parameters(model: Any) -> set[str]:
    """Return the names of what a model takes."""
    try:
        return set(inspect.signature(model.forward if isinstance(model, nn.Module) else model).parameters)
    except ValueError:  # functions written in C have no signature
        return set()


def _named(runs: Runs, sequence: str) -> str:
    """Write the keep of a sequence as a user does."""
    return "keep" if len(runs.sequences.keep) == 1 else f'keep["{sequence}"]'
