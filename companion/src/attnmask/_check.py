"""How does an error read? What was expected, what came, and the likely cause; and the checks that modules share."""

import operator
import reprlib
from typing import Any

import torch
from torch import Tensor


def sentence(expected: str, got: str, likely_cause: str) -> str:
    """Compose the one sentence form that every error of this package has.

    >>> sentence("a bool tensor", "a list", "the tensor was never made")
    'Expected a bool tensor; got a list. Likely cause: the tensor was never made.'
    """
    return f"Expected {expected}; got {got}. Likely cause: {likely_cause}."


def value_error(expected: str, got: str, likely_cause: str) -> ValueError:
    """Make the error for a value that does not fit, with its sentence."""
    return ValueError(sentence(expected, got, likely_cause))


def type_error(expected: str, got: str, likely_cause: str) -> TypeError:
    """Make the error for a thing of the wrong kind, with its sentence."""
    return TypeError(sentence(expected, got, likely_cause))


def kind_of(value: Any) -> str:
    """Name a value the way a reader would: its kind, its dtype, its shape.

    >>> import torch
    >>> kind_of(torch.zeros(2, 5))
    'a float32 tensor of shape (2, 5)'
    >>> kind_of("D")
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


_FAR = 2**62  # the difference of two smaller integers cannot overflow


def count(name: str, value: int) -> int:
    """Check that a size or a place is an integer from 0 to below 2**62.

    >>> count("left", 3)
    3
    """
    plain = isinstance(value, int | torch.SymInt)  # else one of NumPy's integers, perhaps
    if isinstance(value, bool | Tensor) or not (plain or hasattr(value, "__index__")):
        raise type_error(
            f"{name} to be an integer", kind_of(value), "a float, a bool or a tensor where a count was meant"
        )
    number = value if plain else operator.index(value)
    if number < 0:
        raise value_error(f"{name} to be 0 or more", f"{number}", "a sign slip; sizes and places count from 0")
    if number >= _FAR:
        raise value_error(f"{name} to be less than 2**62", f"{number}", "a number where None was meant")
    return number


def in_range(name: str, ids: Tensor) -> Tensor:
    """Check that integers are small enough to be subtracted from each other.

    >>> in_range("ids", torch.tensor([3]))
    tensor([3])
    """
    if bool(((ids >= _FAR) | (ids <= -_FAR)).any()):
        raise value_error(f"{name} between -2**62 and 2**62", "larger numbers", "hashes where places were meant")
    return ids


def bool_table(name: str, table: Tensor, *axes: str) -> Tensor:
    """Check a bool table's dtype and rank; return a copy that nobody else can change.

    >>> bool_table("keep", torch.tensor([[True]]), "batch, key")
    tensor([[True]])
    """
    wanted = f"{name} to be a bool tensor, True = may attend, of shape ({') or ('.join(axes)})"
    if not isinstance(table, Tensor) or table.dtype != torch.bool:
        raise type_error(wanted, kind_of(table), not_a_mask_cause(table))
    if table.dim() not in [text.count(",") + 1 for text in axes]:
        raise value_error(wanted, kind_of(table), not_a_mask_cause(table))
    return table.detach().clone()


def in_vocabulary(name: str, ids: Tensor, size: int, likely_cause: str) -> None:
    """Check that token ids are rows of an embedding of ``size`` rows.

    >>> in_vocabulary("ids", torch.tensor([[0, 4]]), 5, "")
    """
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
        expected = f"{name} from 0 to {size - 1}, as the embedding has {size} rows"
        raise value_error(expected, f"ids from {int(ids.min())} to {int(ids.max())}", likely_cause)


def integer_table(name: str, ids: Tensor, *axes: str) -> Tensor:
    """Check an integer table's dtype and rank; return a copy in int64.

    >>> integer_table("ids", torch.tensor([3], dtype=torch.uint8), "token")
    tensor([3])
    """
    wanted = f"{name} to be an integer tensor of shape ({') or ('.join(axes)})"
    if not isinstance(ids, Tensor):
        raise type_error(wanted, kind_of(ids), "a tensor was meant; torch.tensor(...) makes one")
    if ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex():
        raise type_error(wanted, kind_of(ids), "a mask or an embedding where integers were meant")
    if ids.dim() not in [text.count(",") + 1 for text in axes]:
        raise value_error(wanted, kind_of(ids), "an axis too few or too many; one sample of ids is ids[None]")
    return ids.detach().to(torch.int64, copy=True)
