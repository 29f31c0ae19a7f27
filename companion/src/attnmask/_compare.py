"""Two runs of one model, side by side: which outputs moved, and which module's output moved first."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import tree_leaves

from attnmask._check import value_error

Records = dict[tuple[str, int], Tensor]  # a module's name and which of its calls: (batch, position, feature)
_CHANNELS_FIRST = {f"torch.nn.modules.{kind}" for kind in ("conv", "batchnorm", "instancenorm", "pooling", "padding")}
_ROUNDING = 1e-11  # of the largest number that a module gives, in float64


class Flip(NamedTuple):
    """One cell (sample, input), and the outputs that moved when it alone changed, between two inputs."""

    cell: tuple[int, int]
    moved: Tensor
    size: Tensor
    before: dict[str, Tensor]
    after: dict[str, Tensor]


def moved_at(before: list[Tensor], after: list[Tensor]) -> Tensor:
    """Compare outputs bit for bit: return (batch, position). NaN equals nothing.

    >>> moved_at([torch.zeros(1, 2, 3)], [torch.tensor([[[0, 0, 0], [0, 1.0, 0]]])])
    tensor([[False,  True]])
    """
    if [one.shape for one in before] != [other.shape for other in after]:
        shapes = [[tuple(each.shape) for each in some] for some in (before, after)]
        cause = "a model whose output's shape depends on what is in its input"
        raise value_error(f"outputs of shapes {shapes[0]}, as before", f"{shapes[1]}", cause)
    return torch.stack([anywhere(one != other) for one, other in zip(before, after, strict=True)]).any(0)


def gaps(before: list[Tensor], after: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return (batch, position) by how much outputs differ, infinite if one is NaN, and which turned into NaN or back.

    >>> gaps([torch.zeros(1, 2)], [torch.tensor([[2, torch.nan]])])
    (tensor([[2., inf]], dtype=torch.float64), tensor([[False,  True]]))
    """
    far, turned = [], []
    for one, other in zip(before, after, strict=True):
        unlike = (one != other) & ~(one.isnan() & other.isnan())
        gap = torch.where(unlike, (one.double() - other.double()).abs().nan_to_num(torch.inf), 0)
        far.append((gap.flatten(2).amax(-1) if gap.dim() > 2 else gap).cpu())
        turned.append(anywhere(one.isnan() ^ other.isnan()))
    return torch.stack(far).amax(0), torch.stack(turned).any(0)


def largest(outputs: list[Tensor]) -> float:
    """Return the largest number among the outputs: rounding is a share of it."""
    numbers = [each[each.isfinite()].abs() for each in outputs]
    return max(float(each.max()) if each.numel() else 0.0 for each in numbers)


def anywhere(cells: Tensor) -> Tensor:
    """Reduce bools (batch, position, …) to (batch, position), on the CPU."""
    return cells.flatten(2).any(-1).cpu() if cells.dim() > 2 else cells.cpu()


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
    named = _names(model, modules)

    def record(module: nn.Module, _: Any, output: Any) -> None:
        rows = _rows(module, output, batch, outputs, position_axis)
        if rows is not None and module in named:
            times = sum(name == named[module] for name, _ in records)
            records[named[module], times] = rows.detach().clone()

    handle = register_module_forward_hook(record)  # hooks on single modules would switch fast paths off
    try:
        yield records
    finally:
        handle.remove()


def first_moved(before: Records, after: Records) -> Iterator[tuple[str, Tensor]]:
    """Yield the modules whose rows differ with these rows (batch, position), in the order in which they finish."""
    for key in before:
        if key in after and before[key].shape == after[key].shape and not torch.equal(before[key], after[key]):
            size, turned = gaps([before[key]], [after[key]])
            scale = float(before[key].abs().nan_to_num().max()) if before[key].dtype == torch.float64 else 0.0
            yield key[0], turned | (size > _ROUNDING * scale)


def _rows(module: nn.Module, output: Any, batch: int, outputs: int, position_axis: int) -> Tensor | None:
    """View the first tensor of floats that a module gives as (batch, position, feature), if it can be."""
    floats = [each for each in tree_leaves(output) if isinstance(each, Tensor) and each.is_floating_point()]
    if not floats or floats[0].is_nested or floats[0].dim() > 3:
        return None
    rows = floats[0]
    if type(module).__module__ in _CHANNELS_FIRST and rows.dim() == 3:
        rows = rows.transpose(1, 2)
    if position_axis == 0 and rows.shape[:2] == (outputs, batch):
        return rows.transpose(0, 1)
    if rows.shape[:2] == (batch, outputs):
        return rows
    if rows.shape[:2] == (outputs, batch):
        return rows.transpose(0, 1)
    return rows.reshape(batch, outputs, -1) if rows.dim() == 2 and len(rows) == batch * outputs else None


def _names(model: Any, modules: Iterable[nn.Module]) -> dict[nn.Module, str]:
    """Name modules by their paths; those of a function begin with the class of the outermost."""
    if isinstance(model, nn.Module):
        return {module: name or type(model).__name__ for name, module in model.named_modules()}
    modules = [*modules]
    inner = {id(each) for module in modules for each in module.modules() if each is not module}
    roots = [module for module in modules if id(module) not in inner]
    named = chain(*(root.named_modules(prefix=type(root).__name__) for root in roots))
    return {module: name for name, module in named}
