"""What moves where nothing may?"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, suppress
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor

from attnmask._audit.budgets import Budget
from attnmask._audit.findings import Findings, PairSizes
from attnmask._audit.records import (
    FEW_IDS,
    Case,
    Effect,
    Hit,
    Inputs,
    Mixed,
    NotTried,
    Perturbation,
    Reached,
    Untried,
)
from attnmask._audit.runner import Runner, is_nan
from attnmask._check import value_error
from attnmask._measure.compare import SURE, any_feature, changed, max_abs_diff, same_numbers
from attnmask._measure.gradients import gradients
from attnmask._measure.progress import one_line
from attnmask._measure.values import Kind, seeded

FLOATS = (Kind.SMALL, Kind.HUGE, Kind.ZERO, Kind.REPEATED, Kind.EQUAL, Kind.OPPOSITE, Kind.MOVED, Kind.LARGE)
IDS = (Kind.SMALL, Kind.EQUAL, Kind.HUGE, Kind.REPEATED, Kind.ZERO, Kind.OPPOSITE)


_AHEAD = 16  # outputs whose gradients come first, where the first leak ends it
_FEW_PAIRS = 128  # at most so many times is an id of a small vocabulary put into a set of cells
_MIXED = 4  # large sets of cells that get, in turn, the ids which stand in the inputs


# ---- gradients ------------------------------------------------------------------------


def gradient_sizes(runner: Runner, rows: Tensor, stop_at_first: bool = False) -> tuple[dict[str, Tensor], int]:
    """Return the largest gradients of outputs in inputs, (batch, output, batch, input), as shares of the largest.

    ``rows``: of which outputs, (batch, output). With ``stop_at_first``, a few of them come first, and no others
    where these show what may not be. Also returns of how many outputs gradients were taken.
    """
    case = runner.case
    shape = case.judged.shape
    sizes = {name: torch.zeros(*shape, *table.shape[::2], dtype=torch.float64) for name, table in case.allowed.items()}
    taken = 0
    with closing(gradients(runner.call, runner.snapshot, rows, _AHEAD if stop_at_first else None)) as pieces:
        for samples, positions, found in pieces:
            taken += len(samples)
            for name, size in found.items():
                sizes[name][samples.cpu(), positions.cpu()] = size.detach().double().cpu()
            if stop_at_first and any(bool(sure(case, name, share).any()) for name, share in _shares(sizes).items()):
                break
    return _shares(sizes), taken


def _shares(sizes: dict[str, Tensor]) -> dict[str, Tensor]:
    top = max(float(size.max()) for size in sizes.values()) or 1.0
    return {name: size / top for name, size in sizes.items()}


def sure(case: Case, name: str, share: Tensor) -> Tensor:
    """Return the forbidden pairs (batch, output, batch, input) whose gradient is too large for rounding."""
    return (share * case.forbidden(name)) > SURE * torch.finfo(case.output.dtype).eps


# ---- values ---------------------------------------------------------------------------


def perturbations(case: Case, budget: Budget, unreached: dict[str, Tensor], seed: int) -> Iterator[Perturbation]:
    """Yield what to change: all that an output may not see, the other samples, single positions.

    ``unreached``: (input,) positions that something may depend on and, as far as is known, nothing does; they
    are changed alone.
    """
    chance = seeded(seed)
    for name, allowed in case.allowed.items():
        batch, _, inputs = allowed.shape
        kinds = FLOATS if case.call.arguments[name].is_floating_point() else IDS
        patterns = _patterns(case, name, chance)
        rows = max(budget.rows, len(patterns)) if budget.every_output else budget.rows
        for row in range(min(rows, len(patterns) * len(kinds))):
            kind = kinds[(row % len(patterns) + row // len(patterns)) % len(kinds)]
            yield Perturbation(name, patterns[row % len(patterns)], kind, seed + row)
        yield from _each_id(case, name, patterns, seed) if budget.every_output else ()
        for sample in range(min(batch, 4) if batch > 1 else 0):
            others = (torch.arange(batch) != sample)[:, None].expand(-1, inputs)
            yield from (Perturbation(name, others, kind, seed + sample) for kind in kinds[: budget.others])
        order = torch.randperm(inputs, generator=chance).tolist()
        for place in order[: budget.singles]:
            yield from (_single(case, name, place, kind, seed + place) for kind in (Kind.HUGE, Kind.OPPOSITE))
        for place in unreached[name].nonzero().flatten().tolist() if name in unreached else ():
            yield _single(case, name, place, Kind.SMALL, seed + place)


def _each_id(case: Case, name: str, patterns: list[Tensor], seed: int) -> Iterator[Perturbation]:
    """Yield changes to one id: all of a small vocabulary, else those that are compared with; and to those there."""
    size, ids = case.tokens.vocabulary.get(name, 0), case.special_ids(name)[:FEW_IDS]
    most = _FEW_PAIRS if size <= FEW_IDS else 2 * len(ids)
    for shift, place in islice(product(range(len(patterns)), range(len(ids))), most):
        yield Perturbation(name, patterns[(place + shift) % len(patterns)], Kind.EQUAL, seed=ids[place])
    large = sorted(patterns, key=lambda cells: -int(cells.sum()))
    for row in range(_MIXED) if large and size > FEW_IDS else ():
        yield Perturbation(name, large[row % len(large)], Kind.THERE, seed=row)


def singles(findings: Findings) -> Iterator[Perturbation]:
    """Yield changes of each position alone, of inputs that leak."""
    for name, pairs in findings.leaks.items():
        if bool(pairs.known.any()):
            yield from (_single(findings.case, name, place, Kind.SMALL, place) for place in range(pairs.size.shape[3]))


def _single(case: Case, name: str, place: int, kind: Kind, seed: int) -> Perturbation:
    batch, _, inputs = case.allowed[name].shape
    return Perturbation(name, (torch.arange(inputs) == place).expand(batch, -1), kind, seed, single=True)


def _patterns(case: Case, name: str, chance: torch.Generator) -> list[Tensor]:
    """Return the different sets of cells (batch, input) that an output may not see, in random order."""
    forbidden = ~case.allowed[name]
    order = torch.randperm(forbidden.shape[1], generator=chance).tolist()
    each = {forbidden[:, output].numpy().tobytes(): forbidden[:, output] for output in order}
    return [cells for cells in each.values() if bool(cells.any())]


def changes(
    runner: Runner, some: Iterable[Perturbation], known: dict[str, PairSizes], unbatched: int
) -> Iterator[Hit | Reached | Mixed | NotTried]:
    """Yield the changes that move an output which may depend on none of them, run at the shape that was given.

    The first ``unbatched`` are run so at once. The others are first looked at in batches of changed
    copies, against unchanged ones; what moves there is run again at the shape that was given, unless
    ``known`` leaks explain it. Besides, yields what single positions reach, and what could not be tried.
    """
    todo = []
    for each in some:
        if bool(each.cells.any()):
            runner.asked_of.add(each.name)
            try:
                given = each.apply(runner.case)
                same = runner.case.same_rows(given)
            except Exception as error:  # no lookup of just these ids, or whatever a function of the inputs raises
                yield NotTried(Untried.SOME_VALUES, runner.mode, runner.case.label, each.name, one_line(error))
                continue
            if not torch.equal(given[each.name], runner.case.call.arguments[each.name]):
                todo.append(each._replace(same=same))
    for each in todo[:unbatched]:
        yield from _at_given_shape(runner, each)
    for item in _in_batches(runner, todo[unbatched:], known):
        if not isinstance(item, Perturbation):
            yield item
            continue
        found = list(_at_given_shape(runner, item))
        yield from found
        if item.moved_a_copy and not any(isinstance(each, Hit) for each in found):
            yield Mixed(runner.copies(len(todo[unbatched:])))
    if "base" in vars(runner) and bool((runner.case.judged & ~runner.judged).any()):
        yield NotTried(Untried.NAN_OUTPUTS, label=runner.case.label)


def _in_batches(
    runner: Runner, some: list[Perturbation], known: dict[str, PairSizes]
) -> Iterator[Perturbation | Reached | Mixed | NotTried]:
    """Yield what has to be run at the shape that was given: what moves in a batch of copies, or all without one."""
    if not some:
        return
    case, copies = runner.case, runner.copies(len(some))
    try:
        reference = [] if runner.plain is False else runner.run_copies([{}] * copies)
    except Exception:  # whatever a model raises: one by one, nothing is left out
        yield from some
        return
    if runner.plain is None and runner.mode.name != "train":  # in training, chance makes copies differ
        runner.plain = runner.repeats_in(reference)
        if not runner.plain:
            yield Mixed(copies)
    if runner.plain is False:
        yield from some
        return
    if bool((case.judged & is_nan([each.flatten(0, 1) for each in reference])[: len(case.judged)]).any()):
        yield NotTried(Untried.NAN_OUTPUTS, label=case.label)
    for chunk in (some[at : at + copies] for at in range(0, len(some), copies)):
        given = [each.apply(case, runner.call) for each in chunk] + [{}] * (copies - len(chunk))
        try:
            outputs = runner.run_copies(given)
            moved = runner.moved_in_copies(reference, outputs)
        except Exception:  # one of them is what the model cannot take
            yield from chunk
            continue
        runner.bear_witness(given, outputs)
        runner.changed.update(each.name for each in chunk)
        mixed = bool(moved[len(chunk) :].any())  # what was not changed moved
        for each, where in zip(chunk, moved, strict=False):
            if each.single:
                yield Reached(each.name, where[..., None] & each.cells[:, None])
            fresh = where & each.same & ~case.may_change(each.name, each.cells)
            if not each.single:
                fresh &= ~known[each.name].explains(each.cells)
            if mixed or bool(fresh.any()):
                yield each._replace(moved_a_copy=True)


def _at_given_shape(runner: Runner, change: Perturbation) -> Iterator[Hit | Reached | NotTried]:
    """Run one change, and yield it if it moves an output which may depend on none of it."""
    case, base = runner.case, runner.base
    try:
        after = runner.run(change.apply(case, runner.call))
        moved = changed(base, after) & runner.judged
    except Exception as error:  # whatever a model raises
        yield NotTried(Untried.SOME_VALUES, runner.mode, case.label, change.name, one_line(error))
        if (fewer := _sparing_special_ids(case, change)) is not None:
            yield from _at_given_shape(runner, fewer)
        return
    runner.changed.add(change.name)
    if change.single:
        yield Reached(change.name, moved[..., None] & change.cells[:, None])
    may = case.may_change(change.name, change.cells) | ~change.same
    if bool((moved & ~may).any()):
        size, nan_changed = max_abs_diff(base, after)
        finite = torch.stack([any_feature(~each.isfinite()) for each in after]).any(0).logical_not()
        # Numbers too large for the model turn NaN where they stand; from there 0 times NaN reaches all rows.
        excused = nan_changed & ~(may & finite).any(-1)[:, None]
        if bool((moved & ~may & ~excused).any()):
            yield Hit(change, moved & ~may & ~excused, size, nan_changed)


def _sparing_special_ids(case: Case, change: Perturbation) -> Perturbation | None:
    """Return the change without the cells that hold ids which the model compares with, as it may count these."""
    special = case.tokens.compared.get(change.name, set()) | case.without
    ids = case.call.as_batch_position(change.name)
    if ids.is_floating_point() or not special:
        return None
    cells = change.cells & ~torch.isin(ids, torch.tensor(sorted(special)).to(ids)).cpu()
    fewer = change._replace(cells=cells)
    with suppress(Exception):  # whatever a function of the inputs raises
        if bool(cells.any()) and not torch.equal(cells, change.cells):
            return fewer._replace(same=case.same_rows(fewer.apply(case)))
    return None


# ---- repeats --------------------------------------------------------------------------


def check_repeatable(runner: Runner) -> None:
    """Raise unless the same run gives the same bits again."""
    if not same_numbers(runner.base, runner.run({})):
        cause = "chance or state of objects that are no modules, or an accelerator's atomic sums"
        wanted = f"two runs on the same input to agree bit for bit ({runner.mode.label})"
        raise value_error(wanted, "two outputs", cause)


def repeats(runner: Runner) -> tuple[Tensor, list[Inputs]]:
    """Return by how much outputs depend on what the call before was given, (batch, output), and two such calls."""
    case = runner.case
    whole = {name: torch.ones(table.shape[::2], dtype=torch.bool) for name, table in case.allowed.items()}
    earlier = [
        {name: Perturbation(name, whole[name], kind, seed).apply(case, runner.call)[name] for name in case.allowed}
        for seed, kind in enumerate((Kind.HUGE, Kind.SMALL))
    ]
    after = runner.run({}, call_before=earlier[0])
    if same_numbers(runner.base, after):
        return torch.zeros(runner.judged.shape), earlier
    size, _ = max_abs_diff(after, runner.run({}, call_before=earlier[1]))
    return size * runner.judged, earlier


# ---- mask arguments -------------------------------------------------------------------


def effects(runner: Runner, known: Collection[str]) -> Iterator[Effect]:
    """Yield for each mask among the arguments whether changing it moves any output, as far as changes of it run.

    ``known``: those of which it is known that they do.
    """
    judged = runner.case.allowed
    for name, value in runner.call.arguments.items():
        if name in known or name in judged or not ("mask" in name or "keep" in name) or not _is_mask(value):
            continue
        ran = moved = False
        for other in _other_masks(value):
            with suppress(Exception):  # whatever a model raises
                after = runner.run({name: other})
                ran, moved = True, not same_numbers(runner.base, after)
            if moved:
                break
        if ran:
            yield Effect(name, moved)


def _is_mask(value: Any) -> bool:
    """Say whether these are bools, zeros and ones, or numbers to add to scores."""
    if not isinstance(value, Tensor) or value.dim() < 2 or value.numel() == 0:
        return False
    return value.dtype == torch.bool or bool(((value == 0) | (value == 1)).all()) or bool((value <= 0).all())


def _other_masks(mask: Tensor) -> Iterator[Tensor]:
    """Yield a mask with the other value at one key for all queries, at the first, middle and last, then everywhere."""
    low = torch.finfo(mask.dtype).min if mask.is_floating_point() and bool((mask < 0).any()) else 1
    other = ~mask if mask.dtype == torch.bool else torch.where(mask == 0, low, 0).to(mask)
    for key in dict.fromkeys((0, mask.shape[-1] // 2, mask.shape[-1] - 1)):
        yield torch.where(torch.arange(mask.shape[-1], device=mask.device) == key, other, mask)
    yield other
