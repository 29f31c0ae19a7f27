"""How an error reads: what was expected, what came, and the likely cause."""

from typing import Any

from torch import Tensor


def complaint(expected: str, got: str, likely_cause: str) -> str:
    """Compose the one sentence form that every error of this package has.

    >>> complaint("a bool tensor", "a list", "the tensor was never made")
    'Expected a bool tensor; got a list. Likely cause: the tensor was never made.'
    """
    return f"Expected {expected}; got {got}. Likely cause: {likely_cause}."


def describe(value: Any) -> str:
    """Name a value the way a reader would: its kind, its dtype, its shape.

    >>> import torch
    >>> describe(torch.zeros(2, 5))
    'a float32 tensor of shape (2, 5)'
    >>> describe("D")
    "'D' (str)"
    """
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        article = "an" if dtype[0] in "aeiou" else "a"
        return f"{article} {dtype} tensor of shape {tuple(value.shape)}"
    return f"{value!r} ({type(value).__name__})"


def non_bool_cause(value: Any) -> str:
    """Say what a tensor that should have been a bool mask most likely is.

    >>> import torch
    >>> non_bool_cause(torch.tensor([0.0, -torch.inf]))
    'this is an additive mask (0 = attend, a large negative number = blocked); compare it: mask == 0'
    """
    if not isinstance(value, Tensor):
        return "a tensor was meant; torch.tensor(...) makes one"
    values = value.detach()
    if values.is_floating_point() and bool((values < 0).any()):
        return "this is an additive mask (0 = attend, a large negative number = blocked); compare it: mask == 0"
    if bool(((values == 0) | (values == 1)).all()):
        return (
            "this is a mask of zeros and ones; if 1 means 'may attend' write mask.bool(), "
            "if 1 means 'blocked' write ~mask.bool()"
        )
    return "these look like token ids; compare them with the pad id: ids != pad_id"
