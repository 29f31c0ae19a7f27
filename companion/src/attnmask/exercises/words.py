"""How is a case written down, and what was expected beside what came? As plain text."""

import inspect
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from attnmask._check import kind_of
from attnmask.exercises.calls import Outcome
from attnmask.exercises.task import Case

SHORT = 24  # tensors of more entries are described by their shape


def spell(case: Case) -> str:
    """Write the arguments of a call.

    >>> spell({"keep": torch.tensor([[True, False]]), "size": 3})
    'keep = [[1, 0]], size = 3'
    """
    return ", ".join(f"{name} = {_spell_value(value)}" for name, value in case.items())


def _spell_value(value: Any) -> str:
    if isinstance(value, Tensor):
        if value.numel() > SHORT or value.is_floating_point():
            return kind_of(value)
        return str((value.int() if value.dtype == torch.bool else value).tolist())
    return f"a {type(value).__name__}" if isinstance(value, nn.Module) else str(value)


def side_by_side(expected: Outcome, came: Outcome) -> str:
    """Write what was expected on the left and what came on the right; where that does not fit, say it.

    >>> print(side_by_side(Outcome(torch.eye(2) == 1), Outcome(torch.eye(2) == 0)))
      expected    yours
      1 0         0 1
      0 1         1 0
    """
    if came.error is not None:
        said = " ".join(str(came.error).split())
        return f"  yours raised {type(came.error).__name__}: {said[:200]}"
    tables = table_of(expected, came)
    where, wanted, got = _first_difference(expected.value, came.value)
    lines = []
    if tables is None or _describe(wanted) != _describe(got) or where:
        lines.append(f"  expected {_describe(wanted)}; yours is {_describe(got)}{where}")
    if tables is not None and not torch.equal(*tables):
        left, right = (_lines(table) for table in tables)
        width = max(10, *(len(line) + 2 for line in left))
        rows = zip_longest(["expected", *left], ["yours", *right], fillvalue="")
        lines += [f"  {one:{width}}  {other}".rstrip() for one, other in rows]
    return "\n".join(lines)


def table_of(expected: Outcome, came: Outcome) -> tuple[Tensor, Tensor] | None:
    """Return the first two tables that differ, expected and yours; None where there is nothing to lay side by side."""
    _, wanted, got = _first_difference(expected.value, came.value)
    if not (isinstance(wanted, Tensor) and _is_plain(got)) or wanted.shape != got.shape or not wanted.numel():
        return None
    tables = [
        value.detach().cpu().reshape(-1, *value.shape[-2:]) if value.dim() > 2 else value.detach().cpu()[None]
        for value in (wanted, got)
    ]
    unequal = [
        not torch.allclose(one.double(), other.double(), rtol=1e-4, atol=1e-4, equal_nan=True)
        for one, other in zip(*tables, strict=True)
    ]
    place = unequal.index(True) if any(unequal) else 0
    one, other = (table[place] for table in tables)
    if max(one.shape, default=1) > 12:
        return None
    return one.reshape(-1, one.shape[-1] if one.dim() else 1), other.reshape(-1, one.shape[-1] if one.dim() else 1)


def _is_plain(value: Any) -> bool:
    """Is it a tensor whose numbers can be laid out?"""
    if not isinstance(value, Tensor) or value.is_nested or value.layout != torch.strided:
        return False
    return not (value.is_complex() or value.is_quantized or value.device.type == "meta")


def _first_difference(expected: Any, got: Any) -> tuple[str, Any, Any]:
    """Go down to the first entry that differs, if both are dicts of the same names; say which it is."""
    if isinstance(expected, dict) and isinstance(got, dict):
        if expected.keys() != got.keys():
            return "", expected, got
        for key, value in expected.items():
            other = got[key]
            both = isinstance(value, Tensor) and _is_plain(other) and value.dtype == other.dtype
            same = (
                both and value.shape == other.shape and torch.allclose(value.double(), other.double(), equal_nan=True)
            )
            if not same and not (value is None and other is None):
                return f" ({key})", value, other
    return "", expected, got


def _describe(value: Any) -> str:
    if type(value).__module__.startswith("attnmask"):
        return f"a {type(value).__name__}; ask it for its tensor: .dense(...)"
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    if inspect.isgenerator(value):
        return "a generator; write return instead of yield"
    if isinstance(value, Tensor) and value.is_nested:
        return "a nested tensor"
    return "None" if value is None else kind_of(value)


def _lines(table: Tensor) -> list[str]:
    cells = [[_write(number) for number in row] for row in table.tolist()]
    width = max(len(cell) for row in cells for cell in row)
    return [" ".join(cell.rjust(width) for cell in row) for row in cells]


def _write(number: float | int | bool) -> str:
    if isinstance(number, int):  # a bool too
        return str(int(number))
    return f"{number:.2f}" if abs(number) < 1e5 else f"{number:.1e}"
