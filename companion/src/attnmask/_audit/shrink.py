"""Which single cell moves it?"""

from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor

from attnmask._audit.records import Counterexample, Inputs, Perturbation
from attnmask._audit.runner import Runner
from attnmask._measure.compare import max_abs_diff

_MOST = 8  # counterexamples of one perturbation


def shrink(
    runner: Runner, perturbation: Perturbation, after: list[Tensor], fresh: Tensor, floor: Tensor
) -> Iterator[Counterexample]:
    """Find single cells that move these outputs by more than ``floor`` while nothing else changes.

    ``after`` is what the perturbation as a whole gives; ``fresh`` and ``floor`` are
    (batch, output). The cells are changed one after the other. Between some step and the
    next the output moves: bisection finds one, as in delta debugging.
    """
    cells = perturbation.cells.nonzero().tolist()
    left = fresh.clone()
    for _ in range(_MOST):
        if not bool(left.any()):
            return
        at = tuple(left.nonzero()[0].tolist())
        below, above = 0, len(cells)
        given: dict[int, Inputs] = {0: {}, above: perturbation.apply(runner.case, runner.call)}
        outputs = {0: runner.base, above: after}
        while above - below > 1:
            middle = _run_between(runner, perturbation, cells, (below, above), at, given, outputs)
            if middle is None:  # the model takes nothing in between
                break
            if max_abs_diff(runner.base, outputs[middle])[0][at] > floor[at]:
                above = middle
            else:
                below = middle
        size = max_abs_diff(outputs[below], outputs[above])[0]
        moved = (size > floor) & fresh
        moved[at] = True
        cell = cells[below][0], cells[below][1]
        yield Counterexample(perturbation.name, cell, moved, size, given[below], given[above])
        left &= ~moved


def _run_between(
    runner: Runner,
    perturbation: Perturbation,
    cells: list[list[int]],
    between: tuple[int, int],
    at: tuple[int, ...],
    given: dict[int, Inputs],
    outputs: dict[int, list[Tensor]],
) -> int | None:
    """Run with the first cells only: as many as lie in the middle, or else another number that the model takes."""
    below, above = between
    for middle in sorted(range(below + 1, above), key=lambda number: abs(2 * number - below - above)):
        some = torch.zeros_like(perturbation.cells)
        some[tuple(torch.tensor(cells[:middle]).T)] = True
        values = perturbation._replace(cells=some).apply(runner.case, runner.call)
        with suppress(Exception):  # whatever a model raises
            if bool(runner.case.same_rows(values)[at]):
                given[middle], outputs[middle] = values, runner.run(values)
                return middle
    return None
