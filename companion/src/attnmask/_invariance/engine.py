"""In which order is what tried, and what is said of it?"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnmask._audit.modes import in_modes
from attnmask._audit.question import checked_modes
from attnmask._audit.records import Mode
from attnmask._audit.runner import is_nan
from attnmask._check import value_error
from attnmask._invariance.axes import Sequences, Trial, asked
from attnmask._invariance.causes import explained
from attnmask._invariance.runs import Difference, Runs
from attnmask._invariance.trials import chosen, sides, trials
from attnmask._measure.call import ModelCall
from attnmask._measure.compare import SURE
from attnmask._measure.float64 import in_float64, undropped
from attnmask._measure.progress import one_line, progress
from attnmask._measure.snapshot import Snapshot
from attnmask._measure.threads import suited_threads


@dataclass
class Answer:
    """What was found: how a sample differs ("" where none does), and what is to be said besides."""

    failure: str = ""
    notes: list[str] = field(default_factory=list)


def answer(
    model: Any, inputs: Any, keep: Any, modes: Any, position_axis: int | Mapping[str, int] | None, memory: int
) -> Answer:
    """Try the batch as it was given, then with less and with more padding, in each mode until a sample differs."""
    named = checked_modes(modes)
    sequences, call = asked(model, inputs, keep, position_axis, memory)
    notes = []
    empty = (~torch.stack([each.any(1) for each in sequences.keep.values()]).all(0)).nonzero().flatten().tolist()
    if empty:
        notes.append(f"not tried: samples {empty}, which have no real token")
    notes += _handed_over(sequences, call)
    with torch.inference_mode(False), Snapshot(model) as original:
        for name, snapshot in in_modes(call, named, original).items():
            snapshot.resume()
            mode = Mode(name, grad=name == "train")
            plain = _runs(sequences, call, snapshot, mode)
            with suited_threads(partial(plain.outputs, sequences.as_given)):
                found = snapshot.settled(partial(_in_mode, sequences, call, snapshot, mode))
            notes += [f"{note} ({mode.label})" for note in found.notes]
            if found.failure:
                return Answer(found.failure, notes)
    return Answer("", notes)


def _handed_over(sequences: Sequences, call: ModelCall) -> list[str]:
    """Say which position ids count padding: they are cut with a sample, which gets the same ones alone."""
    notes: dict[str, str] = {}
    for name, value in call.arguments.items():
        if "position" not in name or not isinstance(value, Tensor) or value.is_floating_point():
            continue
        for axis, sequence in sequences.axes_of(call, name, value).tokens.items():
            firsts = []  # of each sample: the column of its first real token, and that token's position
            for sample in range(sequences.batch):
                if columns := sequences.real(sequence, sample):
                    own = sequences.cut(call, sequences.alone(sample)).arguments[name]
                    firsts.append((sample, columns[0], int(own.select(axis, 0).flatten()[0])))
            start = next((place for _, column, place in firsts if column == 0), 0)
            for sample, column, place in firsts:
                if column > 0 and place == start + column:
                    first = f"the first real token of sample {sample} has {place}"
                    notes.setdefault(name, f"not judged: {name}, which count padding: {first}")
    return list(notes.values())


def _runs(sequences: Sequences, call: ModelCall, snapshot: Snapshot, mode: Mode) -> Runs:
    """Make runs of the model just as it is used."""
    runs = Runs(sequences, call, snapshot, mode.grad, exact=False)
    runs.fast = True
    return runs


def _in_mode(sequences: Sequences, call: ModelCall, snapshot: Snapshot, mode: Mode) -> Answer:
    """Try everything in float64 without chance, then what was given as the model is used."""
    samples = chosen(sequences)
    plain = _runs(sequences, call, snapshot, mode)
    if failure := _nan(plain, samples, mode):
        return Answer(failure)
    found, refused = Answer(), ""
    with in_float64(call, snapshot) as (exact_call, exact), undropped(exact) as calm:
        runs = Runs(sequences, exact_call, calm, mode.grad, exact=True)
        try:
            _ = runs.as_given
        except Exception as error:  # whatever a model raises
            refused = one_line(error)
        else:
            found = _try_all(runs, samples, f"{mode.label}, in float64")
    if refused:
        with undropped(snapshot) as calm:
            runs = Runs(sequences, call, calm, mode.grad, exact=False)
            dtype = str(runs.as_given[0].dtype).removeprefix("torch.")
            found = _try_all(runs, samples, f"{mode.label}, in {dtype}")
            found.notes.append(f"compared only to the rounding of {dtype}, since float64 fails: {refused}")
    elif runs.coarsest.eps > torch.finfo(torch.float64).eps:
        found.notes.append(
            f"compared only to {runs.tolerance(torch.float64):.2g} of the largest number, since the model rounds so"
        )
    if not found.failure and mode.name != "train":
        as_used = _as_used(plain, samples, mode)
        found = Answer(as_used.failure, found.notes + as_used.notes)
    return found


def _nan(runs: Runs, samples: list[int], mode: Mode) -> str:
    """Say where the batch as given is NaN at a real token."""
    given, padded = runs.sequences.as_given, runs.as_given
    for sample in samples:
        places = is_nan(runs.rows(given, sample, padded))[0].nonzero().flatten().tolist()
        if places:
            cause = "a query that may look at no key, whose softmax divides 0 by 0"
            where = f"sample {sample}, {_place(runs, Difference(given, sample, places[0], 0, 0))}"
            return f"{where}: NaN in the padded batch as given ({mode.label}). Likely cause: {cause}"
    return ""


def _try_all(runs: Runs, samples: list[int], how: str) -> Answer:
    """Compare the samples with themselves alone in each trial; end at the first that differs."""
    longer = all(each.device.type == "cpu" for each in runs.call.arguments.values() if isinstance(each, Tensor))
    errors, ran, compared = dict[str, str](), set[str](), False
    for trial in progress(list(trials(runs.sequences, samples, longer)), "padding"):
        try:
            padded = runs.as_given if trial == runs.sequences.as_given else runs.outputs(trial)
        except Exception as error:  # whatever a model raises; a shorter input may run
            errors.setdefault(trial.what, one_line(error))
            continue
        ran.add(trial.what)
        for sample in sorted(set(samples) & set(trial.samples)):
            try:
                runs.alone(sample)
            except Exception as error:  # whatever a model raises
                errors.setdefault(f"sample {sample} alone", one_line(error))
                continue
            compared = True
            if found := runs.difference(trial, sample, padded):
                return Answer(_failure(runs, found, how))
    if not compared:
        cause = "a model that is made for one size of batch or one length"
        raise value_error("a model that runs on one sample alone", next(iter(errors.values())), cause)
    return Answer(notes=[f"not tried: {what}: {error}" for what, error in errors.items() if what not in ran])


def _as_used(plain: Runs, samples: list[int], mode: Mode) -> Answer:
    """Compare what was given as the model is used, with PyTorch's fast paths, where float64 found no difference."""
    given = plain.sequences.as_given
    slow = Runs(plain.sequences, plain.call, plain.snapshot, plain.grad, exact=False)
    for sample in samples:
        try:
            found = plain.difference(given, sample, plain.as_given)
        except Exception:  # whatever a model raises: said already
            continue
        if found is None:
            continue
        rows, alone = slow.rows(given, sample, slow.as_given), slow.alone(sample)
        slow_size = float((rows[0].double() - alone[0].double()).abs().max())
        size = f"{found.size:.2g} of {found.scale:.2g}"
        if slow_size > SURE * torch.finfo(rows[0].dtype).eps * found.scale:
            return Answer(notes=[f"sample {sample} differs by {size}, which float64 without chance does not confirm"])
        where = f"sample {sample}, {_place(plain, found)}"
        return Answer(f"{where}: differs by {size} from the sample alone ({mode.label}), on PyTorch's fast path only")
    return Answer()


def _failure(runs: Runs, found: Difference, how: str) -> str:
    """Say which token differs, by how much, with which padding, where it shows first and why."""
    shown, likely = explained(runs, found)
    by = "turns into NaN, or back," if math.isinf(found.size) else f"differs by {found.size:.2g}"
    share = "" if math.isinf(found.size) else f" ({found.size / found.scale:.2g} of the largest number)"
    padding = f"{_padding(runs.sequences, found.trial, found.sample)} in a batch of {len(found.trial.samples)}"
    text = f"sample {found.sample}, {_place(runs, found)}: {by}{share} from what the sample gives alone"
    text += f", {found.trial.what}: {padding} ({how})"
    if shown is not None:
        text += f"; first seen in {shown.name}"
    return f"{text}. Likely cause: {'; '.join(likely)}" if likely else text


def _place(runs: Runs, found: Difference) -> str:
    own = runs.sequences.own
    place = runs.sequences.places(own, found.trial, found.sample)[found.token]
    return f"real token {found.token} (column {place} of its batch)"


def _padding(sequences: Sequences, trial: Trial, sample: int) -> str:
    """Say how much padding a sample has on which side."""
    said = []
    for name, columns in trial.columns.items():
        for side, padded in sides(sequences, name, sample).items():
            if amount := sum(columns.count(column) for column in padded):
                of = f" of {name}" if len(trial.columns) > 1 else ""
                said.append(f"{amount} column{'s' * (amount > 1)} of padding {side}{of}")
    return " and ".join(said) or "no padding"
