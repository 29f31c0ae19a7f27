"""Which mistakes explain what came? Those whose result, in every case, is what the answer gave.

An explanation is a set of names. The empty set means: the answer is right.
"""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor

from attnmask.exercises import mistakes as names
from attnmask.exercises.calls import Outcome

Explanation = frozenset[str]
RIGHT: Explanation = frozenset()


def explain(results: Sequence[tuple[str | None, Outcome]], came: Outcome) -> set[Explanation]:
    """Say in which ways an outcome comes from one of the results.

    Parameters
    ----------
    results
        The right result under the name None, and what each mistake makes of the same case.
    came
        What the answer made of it.

    Returns
    -------
    set of Explanation
        Empty if nothing explains it.
    """
    changed = {names.MUTATED} if came.changed else set()
    found = set()
    for name, result in results:
        start = changed | ({name} if name else set())
        if result.error or came.error:
            if _same_error(result.error, came.error):
                found.add(frozenset(start))
        else:
            with contextlib.suppress(
                Exception
            ):  # sparse, nested, without data: what cannot be compared explains nothing
                found |= {frozenset(start | more) for more in distortions(result.value, came.value)}
    return found


def distortions(expected: Any, got: Any) -> Iterator[Explanation]:
    """Say in which ways one value is another with something wrong: its dtype, its axes, its polarity."""
    if isinstance(expected, dict):
        yield from _of_each_entry(expected, got)
    elif not isinstance(expected, Tensor):
        if type(got) is type(expected) and got == expected:
            yield RIGHT
    else:
        for by_kind, tensor in _as_tensor(got):
            for by_dtype, cast in _cast(tensor, expected):
                for by_value, target in _turned(expected):
                    for by_shape in _aligned(cast, target):
                        yield by_kind | by_dtype | by_value | by_shape


def _same_error(expected: BaseException | None, got: BaseException | None) -> bool:
    return type(expected) is type(got) and str(expected) == str(got)


def _of_each_entry(expected: dict[str, Any], got: Any) -> Iterator[Explanation]:
    """Explain a dict by its entries; a name that holds for each tensor is said once, else with its entry."""
    if not isinstance(got, dict) or got.keys() != expected.keys():
        return
    tensors = [key for key, value in expected.items() if isinstance(value, Tensor)]
    for chosen in product(*(list(distortions(expected[key], got[key])) for key in expected)):
        by_key = dict(zip(expected, chosen, strict=True))
        everywhere = frozenset.intersection(*(by_key[key] for key in tensors)) if tensors else RIGHT
        yield everywhere | {f"{name} ({key})" for key in expected for name in by_key[key] - everywhere}


def _as_tensor(got: Any) -> Iterator[tuple[Explanation, Tensor]]:
    if isinstance(got, Tensor):
        yield RIGHT, got.detach()
        return
    try:
        yield frozenset({names.NOT_A_TENSOR}), torch.as_tensor(got)
    except (TypeError, ValueError, RuntimeError):
        return


def _cast(got: Tensor, expected: Tensor) -> Iterator[tuple[Explanation, Tensor]]:
    """Read a tensor in the expected dtype, in each way that its values allow."""
    integers = not (got.is_floating_point() or got.is_complex() or got.dtype == torch.bool)
    if got.dtype == expected.dtype or (expected.dtype == torch.int64 and integers):
        yield RIGHT, got.to(expected.dtype)
    elif expected.dtype == torch.bool:
        if bool(((got == 0) | (got == 1)).all()):
            yield frozenset({names.DTYPE}), got == 1
        if got.is_floating_point() and bool(((got == 0) | (got < -1e3)).all()):
            yield frozenset({names.ADDITIVE}), got == 0
    elif got.dtype != torch.bool and not got.is_complex():
        cast = got.to(expected.dtype)
        if expected.is_floating_point() or torch.equal(cast.double(), got.double()):
            yield frozenset({names.DTYPE}), cast


def _turned(expected: Tensor) -> Iterator[tuple[Explanation, Tensor]]:
    """Yield what a mask becomes with its polarity inverted, its last two axes swapped, or both."""
    yield RIGHT, expected
    if expected.dtype != torch.bool:
        return
    yield frozenset({names.INVERTED}), ~expected
    if expected.dim() >= 2:
        yield frozenset({names.TRANSPOSED}), expected.mT
        yield frozenset({names.TRANSPOSED, names.INVERTED}), ~expected.mT


def _aligned(got: Tensor, expected: Tensor) -> Iterator[Explanation]:
    """Compare two tensors whose axes may differ: an axis of size 1 too few, too many, elsewhere; values repeated."""
    if _equal(got, expected):
        yield RIGHT
    elif got.shape != expected.shape:
        names_of = {-1: names.MISSING_AXIS, 0: names.MISPLACED_AXIS, 1: names.EXTRA_AXIS}
        difference = got.dim() - expected.dim()
        by_rank = names_of[(difference > 0) - (difference < 0)]
        if got.squeeze().shape == expected.squeeze().shape and _equal(got.reshape(expected.shape), expected):
            yield frozenset({by_rank})
        elif any(_equal(got, placed.expand(got.shape)) for placed in _placed(expected, got.shape)):
            yield frozenset({names.MATERIALISED} if difference == 0 else {names.MATERIALISED, by_rank})


def _placed(expected: Tensor, shape: torch.Size) -> Iterator[Tensor]:
    """Yield the tensor with axes of size 1 taken away or put in, wherever it then broadcasts to the shape."""
    difference = len(shape) - expected.dim()
    ones = [axis for axis, size in enumerate(expected.shape) if size == 1]
    if difference > 0:
        reshaped = (_unsqueezed(expected, axes) for axes in combinations(range(len(shape)), difference))
    else:
        reshaped = (expected.squeeze(axes) for axes in combinations(ones, -difference))
    for tensor in reshaped:
        if all(size in (1, wanted) for size, wanted in zip(tensor.shape, shape, strict=True)):
            yield tensor


def _unsqueezed(tensor: Tensor, axes: tuple[int, ...]) -> Tensor:
    for axis in axes:
        tensor = tensor.unsqueeze(axis)
    return tensor


def _equal(got: Tensor, expected: Tensor) -> bool:
    if got.shape != expected.shape:
        return False
    if not expected.is_floating_point():
        return torch.equal(got, expected)
    tolerance = 1e-4 if expected.dtype in (torch.float32, torch.float64) else 1e-2
    return torch.allclose(got.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True)
