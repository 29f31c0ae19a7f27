"""Where do two outputs differ, and by how much?"""

import torch
from torch import Tensor

from attnmask._check import value_error

SURE = 1e3  # times the dtype's rounding: no rounding is as large


def changed(before: list[Tensor], after: list[Tensor]) -> Tensor:
    """Compare outputs number by number: return (batch, position). NaN equals nothing.

    >>> changed([torch.zeros(1, 2, 3)], [torch.tensor([[[0, 0, 0], [0, 1.0, 0]]])])
    tensor([[False,  True]])
    """
    if [one.shape for one in before] != [other.shape for other in after]:
        shapes = [[tuple(each.shape) for each in some] for some in (before, after)]
        cause = "a model whose output's shape depends on what is in its input"
        raise value_error(f"outputs of shapes {shapes[0]}, as before", f"{shapes[1]}", cause)
    return torch.stack([any_feature(one != other) for one, other in zip(before, after, strict=True)]).any(0)


def same_numbers(before: list[Tensor], after: list[Tensor]) -> bool:
    """Say whether outputs agree number by number, NaN with NaN.

    >>> same_numbers([torch.tensor([torch.nan])], [torch.tensor([torch.nan])])
    True
    """
    pairs = list(zip(before, after, strict=False))
    return len(before) == len(after) and all(
        one.shape == other.shape
        and one.dtype == other.dtype
        and (torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all()))
        for one, other in pairs
    )


def max_abs_diff(before: list[Tensor], after: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return (batch, position) by how much outputs differ, infinite if one is NaN, and which turned into NaN or back.

    >>> max_abs_diff([torch.zeros(1, 2)], [torch.tensor([[2, torch.nan]])])
    (tensor([[2., inf]], dtype=torch.float64), tensor([[False,  True]]))
    """
    far, nan_changed = [], []
    for one, other in zip(before, after, strict=True):
        unlike = (one != other) & ~(one.isnan() & other.isnan())
        gap = torch.where(unlike, (one.double() - other.double()).abs().nan_to_num(torch.inf), 0)
        far.append((gap.flatten(2).amax(-1) if gap.dim() > 2 else gap).cpu())
        nan_changed.append(any_feature(one.isnan() ^ other.isnan()))
    return torch.stack(far).amax(0), torch.stack(nan_changed).any(0)


def max_abs(outputs: list[Tensor]) -> float:
    """Return the largest finite number among the outputs: rounding is a share of it.

    >>> max_abs([torch.tensor([-2.0, torch.inf])])
    2.0
    """
    return max(float(each.nan_to_num(0, 0, 0).abs().max()) if each.numel() else 0.0 for each in outputs)


def any_feature(cells: Tensor) -> Tensor:
    """Reduce bools (batch, position, …) to (batch, position), on the CPU.

    >>> any_feature(torch.tensor([[[False, True]]]))
    tensor([[True]])
    """
    return cells.flatten(2).any(-1).cpu() if cells.dim() > 2 else cells.cpu()
