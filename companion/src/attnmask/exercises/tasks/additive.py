"""How is a bool mask written as numbers that are added to scores?"""

import torch

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def additive(allowed, dtype):
    """Write a bool mask as one that is added to the scores.

    - allowed: bool, of any shape, True = may attend
    - dtype: float32, float16 or bfloat16

    Return a tensor of that dtype: 0 where the query may attend, the dtype's
    smallest finite number where it may not.
    """
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)


def spec(allowed, dtype):
    flat = [0.0 if entry else torch.finfo(dtype).min for entry in allowed.flatten().tolist()]
    return torch.tensor(flat, dtype=dtype).reshape(allowed.shape)


def cases(draw):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for shape in [(1, 2), (2, 3), (2, 1, 3, 3)]:
            allowed = draw.bools(*shape)
            allowed[..., 0], allowed[..., 1] = True, False
            yield {"allowed": allowed, "dtype": dtype}


def filled(allowed, dtype, number):
    return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, number)


TASK = Task(
    additive,
    spec,
    cases,
    chapter="09",
    place=10,
    hints=(
        "Begin with zeros of the shape of allowed, in the dtype that is asked for.",
        "torch.finfo(dtype).min is the smallest finite number of a dtype.",
    ),
    mistakes=(
        Mistake(names.OVERFLOW, lambda allowed, dtype: filled(allowed, dtype, -1e9)),
        Mistake(
            "minus infinity",
            lambda allowed, dtype: filled(allowed, dtype, -torch.inf),
            "-inf turns a row that is blocked as a whole into NaN. Asked for was the smallest finite number.",
        ),
        Mistake(
            "-1e9, made in float32",
            lambda allowed, dtype: filled(allowed, torch.float32, -1e9).to(dtype),
            "-1e9 is not the smallest number of any of the dtypes; cast to float16 it is -inf.",
        ),
        Mistake(
            "-1e4",
            lambda allowed, dtype: filled(allowed, dtype, -1e4),
            "-10000 fits every dtype, but it is not the smallest number; scores may be that large in float32.",
        ),
        Mistake(
            "float16's smallest number for every dtype",
            lambda allowed, dtype: filled(allowed, dtype, torch.finfo(torch.float16).min),
            "-65504 is float16's smallest number. Each dtype has its own: torch.finfo(dtype).min.",
        ),
        Mistake(
            "float32's smallest number for every dtype",
            lambda allowed, dtype: filled(allowed, torch.float32, torch.finfo(torch.float32).min).to(dtype),
            "float32's smallest number becomes -inf in a smaller dtype: torch.finfo(dtype).min.",
        ),
        Mistake(
            "the smallest positive number",
            lambda allowed, dtype: filled(allowed, dtype, torch.finfo(dtype).tiny),
            "tiny is the positive number nearest to 0. Yours has to be far below 0: min.",
        ),
        Mistake(
            "the largest number",
            lambda allowed, dtype: filled(allowed, dtype, torch.finfo(dtype).max),
            "A large positive number draws all attention to the blocked keys; a negative one keeps it away.",
        ),
        Mistake(
            "the allowed keys blocked",
            lambda allowed, dtype: filled(~allowed, dtype, torch.finfo(dtype).min),
            "allowed is True where the query may attend: those get 0.",
        ),
        Mistake(names.BOOL_FILLED, lambda allowed, dtype: allowed.masked_fill(~allowed, torch.finfo(dtype).min)),
        Mistake(
            "a bool mask filled with numbers, then cast",
            lambda allowed, dtype: allowed.masked_fill(~allowed, torch.finfo(dtype).min).to(dtype),
            "A bool tensor holds no numbers: filled with one, it says True. Cast first, or begin with zeros.",
        ),
        Mistake(
            "ones where the query may attend",
            lambda allowed, dtype: allowed.to(dtype).masked_fill(~allowed, torch.finfo(dtype).min),
            "The mask is added: 0 leaves a score as it is, 1 changes it. (Inside one row the softmax forgives "
            "that. Another mask added on top, or a comparison with 0, does not.)",
        ),
        Mistake(
            "zeros and ones", lambda allowed, dtype: allowed.to(dtype), "Added to the scores, 0 and 1 block nothing."
        ),
        Mistake(
            "minus infinity times 0",
            lambda allowed, dtype: (~allowed).to(dtype) * -torch.inf,
            "0 times -inf is NaN. masked_fill, or torch.where, writes the number only where it belongs.",
        ),
    ),
    groups={
        "float32": lambda case: case["dtype"] == torch.float32,
        "two axes": lambda case: case["allowed"].dim() == 2,
    },
)
