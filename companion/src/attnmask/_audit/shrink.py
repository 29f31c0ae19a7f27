"""Which single cell moves it?"""

from collections.abc import Iterator

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
            middle = (below + above) // 2
            some = torch.zeros_like(perturbation.cells)
            some[tuple(torch.tensor(cells[:middle]).T)] = True
            given[middle] = perturbation._replace(cells=some).apply(runner.case, runner.call)
            outputs[middle] = runner.run(given[middle])
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
