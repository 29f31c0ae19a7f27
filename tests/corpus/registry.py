"""Where the cases are written down: `fault` and `clean`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from corpus.case import ALWAYS, Case, Cells, Inputs, Witness, differs, tensor_of
from corpus.inputs import altered, kept, right_padded, token_ids

FAULTS: list[Case] = []
CLEAN: list[Case] = []
FIRST, LAST, TINY = "layers.0.attention.out", "layers.1.attention.out", torch.float64


def later(sample: int, position: int, length: int) -> Cells:
    return [(sample, other) for other in range(position + 1, length)]


def padded_cells(sample: int, keep: Tensor) -> Cells:
    return [(sample, int(position)) for position in (~keep[sample]).nonzero()]


def fault(
    name: str,
    why: str,
    make: Callable[[int], Any],
    *,
    at: tuple[int, int] = (0, 1),
    cells: Cells | Callable[[Inputs], Cells] | None = None,
    pair: Callable[[int], tuple[Inputs, Inputs]] | None = None,
    search: bool = False,
    dtype: torch.dtype = torch.float32,
    inputs: Callable[[int], Inputs] = token_ids,
    shown_on: Callable[[int], Inputs] | None = None,
    leaks_in: frozenset[tuple[str, bool]] = ALWAYS,
    **rest: Any,
) -> None:
    """Register a fault: its witness changes `cells` (by default all later positions), or is `pair`.

    With `search`, the witness tries random changes until the output at `at` differs. It is made
    from `shown_on` where the inputs that the audit is given are of a size that does not leak.
    """
    case = Case(name, why, make, inputs, leaks_in=leaks_in, **rest)
    mode, grad_enabled = min(leaks_in)

    def witness(seed: int) -> Witness:
        if pair is not None:
            return Witness(*pair(seed), mode, grad_enabled, dtype, at)
        for attempt in range(300):
            before = (shown_on or inputs)(seed + 1000 * (attempt // 30))  # after 30 changes, start from another input
            chosen = cells(before) if callable(cells) else cells or later(*at, tensor_of(before, case.of).shape[1])
            after = altered(before, case.of, chosen, seed + 1000 * attempt)
            found = Witness(before, after, mode, grad_enabled, dtype, at)
            if not search or differs(case, found, seed):
                return found
        raise AssertionError(f"{name}: no change among 300 shows the leak for seed {seed}")

    FAULTS.append(replace(case, witness=witness))


def clean(
    name: str, why: str, make: Callable[[int], Any], *, inputs: Callable[[int], Inputs] = token_ids, **rest: Any
) -> None:
    CLEAN.append(Case(name, why, make, inputs, **rest))


PADDED = {"inputs": right_padded, "of": "ids", "allowed": kept}
PAD_CELLS = {"cells": lambda inputs: padded_cells(0, inputs["keep"])}
