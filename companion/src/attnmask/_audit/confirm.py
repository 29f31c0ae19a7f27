"""Leak, rounding, chance or padding?"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from attnmask._audit.findings import PairSizes
from attnmask._audit.probes import gradient_sizes
from attnmask._audit.records import (
    Case,
    Counterexample,
    Doubt,
    Evidence,
    Hit,
    Probe,
    Verdict,
)
from attnmask._audit.runner import Runner
from attnmask._audit.shrink import shrink
from attnmask._measure.compare import SURE, max_abs, max_abs_diff
from attnmask._measure.float64 import InFloat64
from attnmask._measure.progress import one_line

# In float64, rounding is 2e-9 times what it is in float32, and 2e-13 times what it is in float16.
_ROUNDING = 1e-5
_HALF = 1e-6  # below this, a dtype rounds less than half precision does
_STAYS = 0.5  # what is no rounding stays as large as it was


def confirm(runner: Runner, small: dict[str, Tensor], hits: list[Hit], leaks: dict[str, PairSizes]) -> list[Verdict]:
    """Tell leaks from rounding: what float64 does not make much smaller is real.

    Parameters
    ----------
    runner
        One case in one mode.
    small
        Forbidden gradients that may be rounding, as a share of the largest, (batch, output, batch, input).
    hits
        Changes that moved what they may not.
    leaks
        What is known already, and so explains what it moves.
    """
    nan = [each for hit in hits for each in _turned_nan(runner, hit)]
    hits = [hit for hit in hits if bool((hit.moved & ~hit.nan_changed).any())]
    if not (small or hits):
        return nan
    try:
        native = runner.base[0].dtype == torch.float64
        with runner.exactly() as exact:
            found = list(_small_gradients(exact, small, native))
            known = {name: pairs.known for name, pairs in leaks.items()}
            for each in found:
                if not each.evidence.doubts:
                    known[each.name] = known[each.name] | each.pairs
            return [*nan, *found, *_moved(exact, hits, known, native)]
    except Exception as error:  # whatever a model raises
        return [*nan, *_unconfirmed(runner, small, hits, one_line(error))]


def verdict(case: Case, example: Counterexample, evidence: Evidence) -> Verdict:
    """Write a counterexample as pairs."""
    batch, outputs, inputs = case.allowed[example.name].shape
    pairs = torch.zeros(batch, outputs, batch, inputs, dtype=torch.bool)
    pairs[:, :, example.cell[0], example.cell[1]] = example.moved
    return Verdict(example.name, pairs, example.size[..., None, None].expand(pairs.shape), evidence, example)


def _turned_nan(runner: Runner, hit: Hit) -> Iterator[Verdict]:
    turned = hit.moved & hit.nan_changed
    if bool(turned.any()):
        most = torch.full(turned.shape, torch.finfo(torch.float64).max, dtype=torch.float64)
        after = runner.run(hit.perturbation.apply(runner.case, runner.call))
        for example in shrink(runner, hit.perturbation, after, turned, most):
            yield verdict(runner.case, example, runner.evidence(Probe.VALUES))


def _small_gradients(exact: Runner, small: dict[str, Tensor], native: bool) -> Iterator[Verdict]:
    if not small:
        return
    with InFloat64():
        sizes, _ = gradient_sizes(exact, torch.stack([size.flatten(2).any(-1) for size in small.values()]).any(0))
    for name, size in small.items():
        stays = (size > 0) & (sizes[name] > _STAYS * size)
        if not native:
            yield Verdict(name, stays, size, exact.evidence(Probe.GRADIENT))
            stays = (size > 0) & (sizes[name] > _ROUNDING * size) & ~stays
        yield Verdict(name, stays, size, exact.evidence(Probe.GRADIENT, Doubt.ROUNDING))


class _Compared(NamedTuple):
    """What of a hit is left in float64: (batch, output) each."""

    real: Tensor
    tiny: Tensor  # as small as rounding
    by_chance: Tensor
    floor: Tensor
    after: list[Tensor]


def _moved(exact: Runner, hits: Iterable[Hit], known: dict[str, Tensor], native: bool) -> Iterator[Verdict]:
    for hit in hits:
        name, cells = hit.perturbation.name, hit.perturbation.cells
        fresh = hit.moved & ~hit.nan_changed & ~(known[name] & cells).flatten(2).any(-1)
        if not bool(fresh.any()):
            continue
        left = _compare(exact, hit, fresh, native)
        for example in shrink(exact, hit.perturbation, left.after, left.real, left.floor):
            by_chance, tiny = left.by_chance, left.tiny & ~left.by_chance
            rest, excused = ~left.by_chance & ~left.tiny, excuse(exact.case, example)
            for part, doubts in ((by_chance, (Doubt.DROPOUT,)), (tiny, (Doubt.ROUNDING,)), (rest, excused)):
                evidence = exact.evidence(Probe.VALUES, *doubts)
                found = verdict(exact.case, example._replace(moved=example.moved & part), evidence)
                if not doubts:
                    known[name] = known[name] | found.pairs
                if bool(found.pairs.any()):
                    yield found


def _compare(exact: Runner, hit: Hit, fresh: Tensor, native: bool) -> _Compared:
    """Run a hit in float64, where need be in a model kept from going back to float32, and without dropout."""
    given, floor = hit.perturbation.apply(exact.case, exact.call), torch.where(fresh, _ROUNDING * hit.size, torch.inf)
    after = exact.run(given)
    real = fresh & (max_abs_diff(exact.base, after)[0] > floor)
    tiny = real & (hit.size < (1e-9 if native else 1e-5) * max_abs(after))
    # Perhaps the model itself goes back to float32: of numbers in half precision that can be the whole difference.
    doubtful = tiny | (real & (torch.finfo(exact.case.output.dtype).eps > _HALF))
    if bool(doubtful.any()) and not native:
        with InFloat64():
            kept = max_abs_diff(exact.run({}), exact.run(given))[0]
        real &= ~doubtful | (kept > floor)
        tiny &= kept < _STAYS * hit.size
    by_chance = torch.zeros_like(real)
    if exact.mode.name == "train" and bool(real.any()):
        with exact.undropped() as calm:
            without = max_abs_diff(calm.base, calm.run(given))[0]
        by_chance = real & ~(without > floor)
    return _Compared(real, tiny, by_chance, floor, after)


def excuse(case: Case, example: Counterexample) -> tuple[Doubt, ...]:
    """Say why a change of padding need be no leak: the model may make its mask from what is in it."""
    tokens = case.call.as_batch_position(example.name)
    if not bool(case.padding[example.name][example.cell]):
        return ()
    if not tokens.is_floating_point():
        return (Doubt.FROM_IDS,) if case.tokens.may_make_masks_of(example.name, int(tokens[example.cell])) else ()
    return () if bool(tokens[example.cell].any()) else (Doubt.FROM_ZEROS,)


def _unconfirmed(runner: Runner, small: dict[str, Tensor], hits: list[Hit], error: str) -> Iterator[Verdict]:
    """Take for leaks what is too large for rounding, and suspect the rest."""
    unconfirmed = runner.evidence(Probe.GRADIENT, Doubt.UNCONFIRMED, error=error)
    for name, size in small.items():
        yield Verdict(name, size > 0, size, unconfirmed)
    for hit in hits:
        after = runner.run(hit.perturbation.apply(runner.case, runner.call))
        large = hit.size > SURE * torch.finfo(runner.base[0].dtype).eps * max_abs(after)
        fresh = hit.moved & ~hit.nan_changed
        for example in shrink(runner, hit.perturbation, after, fresh, torch.zeros(fresh.shape)):
            doubts = excuse(runner.case, example)
            sure_of = example.moved & large & (not doubts)
            doubted = runner.evidence(Probe.VALUES, Doubt.UNCONFIRMED, *doubts, error=error)
            for part, evidence in ((sure_of, runner.evidence(Probe.VALUES)), (example.moved & ~sure_of, doubted)):
                if bool(part.any()):
                    yield verdict(runner.case, example._replace(moved=part), evidence)
