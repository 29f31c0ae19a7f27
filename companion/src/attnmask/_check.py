"""How an error reads: what was expected, what came, and the likely cause."""

import reprlib
from typing import Any

import torch
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
    return f"{reprlib.repr(value)} ({type(value).__name__})"


def not_a_mask_cause(value: Any) -> str:
    """Say what a value that should have been a Mask or a bool tensor most likely is.

    >>> import torch
    >>> not_a_mask_cause(torch.tensor([0.0, -torch.inf]))
    'this is an additive mask (0 = attend, a large negative number = blocked); compare it: mask == 0'
    """
    if not isinstance(value, Tensor):
        if hasattr(value, "dense"):
            return "this is a Mask already; pass it on as it is"
        if callable(value):
            return "forgotten parentheses: causal() makes a mask, causal is only its maker"
        return "a tensor was meant; torch.tensor(...) makes one"
    if value.dtype == torch.bool:
        return _READINGS.get(value.dim(), "an axis was lost or added on the way")
    if bool((value < 0).any()):
        return "this is an additive mask (0 = attend, a large negative number = blocked); compare it: mask == 0"
    if value.is_floating_point() and not bool(value.any()):
        return "all zeros: an additive mask that blocks nothing (write mask == 0), or zeros and ones without a one"
    if bool(((value == 0) | (value == 1)).all()):
        return (
            "this is a mask of zeros and ones; if 1 means 'may attend' write mask.bool(), "
            "if 1 means 'blocked' write ~mask.bool()"
        )
    return "these look like token ids; compare them with the pad id: ids != pad_id"


_READINGS = {
    1: "one sample without its batch axis; add it: keep[None]",
    2: "two readings fit, (batch, key) and (query, key); say which: padding(mask) or graph(mask)",
    3: "two readings fit, (batch, query, key) and (head, query, key); "
    "say which: from_dense(mask[:, None]) or from_dense(mask[None])",
    4: "this is (batch, head, query, key); wrap it in from_dense(...)",
}
