"""What may an unknown tensor mean as a mask? `describe` lists every reading that fits."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnmask import conventions
from attnmask._check import count, kind_of, not_a_mask_cause, type_error
from attnmask.conventions.entries import BLOCKS, as_tensor
from attnmask.masks import Mask, causal, documents, from_dense, graph, padding

_NAMES = {
    "causal": causal,
    "documents": documents,
    "from_dense": from_dense,
    "graph": graph,
    "padding": padding,
    "torch": torch,
} | {name: each for name, each in vars(conventions).items() if name.startswith("from_")}


@dataclass(frozen=True, eq=False)
class Reading:
    """One way to read a tensor as a mask.

    Attributes
    ----------
    meaning
        What its entries say: ``"True = may attend"``, ``"True = blocked"``, ``"added to the scores"`` …
    axes
        What its axes are.
    call
        The line that turns it into a `Mask`, where ``mask`` is the tensor; `causal`,
        `padding` and others come from `attnmask`, ``from_…`` from `attnmask.conventions`.
    mask
        The `Mask` which that line gives.
    says
        What it allows, read like this: empty rows, the diagonal, later keys.

    Examples
    --------
    >>> blocked = torch.tensor([False, True])
    >>> print(describe(blocked).readings[1])
    True = blocked, axes (key,): from_multihead(key_padding_mask=mask)
         1 of 2 keys allowed
    """

    meaning: str
    axes: str
    call: str
    mask: Mask
    says: str

    def __str__(self) -> str:
        return f"{self.meaning}, axes {self.axes}: {self.call}\n     {self.says}"


@dataclass(frozen=True, eq=False)
class Description:
    """All readings of a tensor, the likelier ones first; its ``str`` is meant to be read.

    Attributes
    ----------
    tensor
        Its dtype and shape, in words.
    readings
        Every reading that fits; more than one where only its maker can tell.
    why_none
        Where there is no reading: what the tensor is instead.

    Examples
    --------
    >>> print(describe(torch.tensor([[5, 6, 0]])))
    an int64 tensor of shape (1, 3): no mask. These look like token ids; compare them with the pad id: ids != pad_id.
    """

    tensor: str
    readings: tuple[Reading, ...]
    why_none: str = ""

    def __str__(self) -> str:
        if not self.readings:
            return f"{self.tensor}: no mask. {self.why_none}."
        if len(self.readings) == 1:
            return f"{self.tensor}: one reading.\n  1. {self.readings[0]}"
        head = f"{self.tensor}: {len(self.readings)} readings fit, and only its maker can tell which is meant."
        return "\n".join([head, *(f"  {place}. {each}" for place, each in enumerate(self.readings, start=1))])


def describe(
    tensor: Any,
    *,
    batch: int | None = None,
    heads: int | None = None,
    query_len: int | None = None,
    key_len: int | None = None,
) -> Description:
    """List every reading of an unknown mask that fits its values and its shape.

    Parameters
    ----------
    tensor
        A mask from anywhere: a tensor, or an array of any framework.
    batch, heads, query_len, key_len
        What you know of the attention it is for; readings of other sizes are left out.

    Returns
    -------
    Description
        The readings, each with its polarity, its axes, the call that makes a `Mask` of it,
        and that mask; those without empty rows, and in which queries see themselves, first.

    Raises
    ------
    TypeError
        A `Mask`, or a function: what they mean is known.

    Examples
    --------
    >>> print(describe(torch.ones(2, 2).tril(), query_len=2, batch=1))
    a float32 tensor of shape (2, 2): 2 readings fit, and only its maker can tell which is meant.
      1. 1 = may attend, axes (query, key): graph(mask.bool())
         3 of 4 pairs allowed; every query sees itself; no query sees a later key
      2. 1 = blocked, axes (query, key): from_multihead(attn_mask=mask.bool())
         1 of 4 pairs allowed; 1 of 2 rows is empty; no query sees itself
    """
    if callable(tensor):
        cause = "its meaning is known: a Mask is True where a query may look; a mask_mod is read by from_flex"
        raise type_error("a tensor", kind_of(tensor), cause)
    made = "" if isinstance(tensor, Tensor) else "mask = torch.as_tensor(mask), "
    tensor = as_tensor("the mask", tensor)
    sizes = {"batch": batch, "heads": heads, "query_len": query_len, "key_len": key_len}
    sizes = {axis: count(axis, size) for axis, size in sizes.items() if size is not None}
    if tensor.dim() == 3 and batch and heads is None:
        heads = tensor.shape[0] // batch
    readings, candidates = [], list(_candidates(tensor, heads))
    for meaning, axes, call in candidates:
        mask = eval(call, _NAMES | {"mask": tensor})  # the very text that the reader gets, so that it cannot lie
        if all(mask.fits(axis, size) for axis, size in sizes.items()):
            facts = _facts(mask)
            readings.append((_unlikely(facts), Reading(meaning, axes, call, mask, _says(mask, facts))))
    readings.sort(key=lambda each: each[0])
    why_none = "Its sizes are not those given" if candidates else _why_none(tensor)
    return Description(made + kind_of(tensor), tuple(reading for _, reading in readings), why_none)


def _candidates(tensor: Tensor, heads: int | None) -> Iterator[tuple[str, str, str]]:
    """Give meaning, axes and call of each reading that the values and the rank allow."""
    numbers = tensor.dtype != torch.bool
    zeros_and_ones = not numbers or bool(((tensor == 0) | (tensor == 1)).all())
    if _is_cumulative(tensor):
        packed = "documents(torch.repeat_interleave(torch.arange(len(mask) - 1), mask.diff())[None])"
        yield "cumulative lengths", "(sequences + 1,)", packed
        yield "cumulative lengths, causal", "(sequences + 1,)", f"causal() & {packed}"
    if zeros_and_ones:
        entry, keep = ("1", "mask.bool()") if numbers else ("True", "mask")
        for axes, call in _ALLOWING.get(tensor.dim(), {}).items():
            yield f"{entry} = may attend", axes, call.format(keep)
        for axes, call in _blocking(tensor, heads):
            yield f"{entry} = blocked", axes, call.format(keep)
    if tensor.is_floating_point() and bool(((tensor == 0) | (tensor <= BLOCKS)).all()):
        for axes, call in _blocking(tensor, heads):
            yield "added to the scores", axes, call.replace("from_dense(~{}", "from_additive({}").format("mask")


_LARGE = 2**25  # pairs: more take seconds to look at
_ALLOWING = {
    1: {"(key,)": "padding({}[None])"},
    2: {"(batch, key)": "padding({})", "(query, key)": "graph({})"},
    3: {"(batch, query, key)": "from_keras({})", "(head, query, key)": "from_dense({}[None])"},
    4: {"(batch, head, query, key)": "from_dense({})"},
}
_BLOCKING = {
    1: {"(key,)": "from_multihead(key_padding_mask={})"},
    2: {"(batch, key)": "from_multihead(key_padding_mask={})", "(query, key)": "from_multihead(attn_mask={})"},
    4: {"(batch, head, query, key)": "from_dense(~{})"},
}


def _blocking(tensor: Tensor, heads: int | None) -> Iterator[tuple[str, str]]:
    """Give axes and call of each reading in which an entry blocks; three axes hide a number of heads."""
    if tensor.dim() != 3:
        yield from _BLOCKING.get(tensor.dim(), {}).items()
        return
    for each in range(1, tensor.shape[0] + 1) if heads is None else [heads]:
        if each and tensor.shape[0] % each == 0:
            yield f"(batch * heads, query, key) of {each} heads", f"from_multihead(attn_mask={{}}, heads={each})"


def _is_cumulative(tensor: Tensor) -> bool:
    """Say whether these are integers that rise from 0, as cu_seqlens do; a sequence may be empty."""
    if tensor.dtype not in (torch.int32, torch.int64) or tensor.dim() != 1 or len(tensor) < 2:
        return False
    return int(tensor[0]) == 0 < int(tensor[-1]) and bool((tensor.diff() >= 0).all())


_Facts = tuple[Tensor, Tensor | None] | None


def _facts(mask: Mask) -> _Facts:
    """Return the mask written out, and its diagonal where that has a meaning; None if it is too large."""
    query_len, key_len = (1 if size is None else size for size in (mask.query_len, mask.key_len))
    if query_len * key_len > _LARGE:
        return None
    allowed = mask.dense(query_len, key_len)
    square = mask.query_len is not None and mask.query_len == mask.key_len
    return allowed, allowed.diagonal(dim1=-2, dim2=-1) if square else None


def _unlikely(facts: _Facts) -> tuple[bool, bool]:
    """Return what speaks against a reading; the less, the further up it comes."""
    if facts is None:
        return False, False
    allowed, own = facts
    return not bool(allowed.any(dim=-1).all()), own is not None and not bool(own.all())


def _says(mask: Mask, found: _Facts) -> str:
    """Return what the mask allows, in words."""
    if found is None:
        return "too many pairs to look at each"
    allowed, own = found
    if not allowed.numel():
        return "no pairs at all"
    facts = [f"{int(allowed.sum())} of {allowed.numel()} {'keys' if mask.query_len is None else 'pairs'} allowed"]
    empty = ~allowed.any(dim=-1)
    if empty.any():
        facts.append(f"{int(empty.sum())} of {empty.numel()} rows {'is' if empty.sum() == 1 else 'are'} empty")
    if own is not None:
        share = float(own.double().mean())
        sees = {1.0: "every query sees itself", 0.0: "no query sees itself"}
        facts.append(sees.get(share, "some queries do not see themselves"))
        if not bool(allowed.triu(1).any()):
            facts.append("no query sees a later key")
    return "; ".join(facts)


def _why_none(tensor: Tensor) -> str:
    if not 1 <= tensor.dim() <= 4:
        return "A mask has one to four axes"
    if bool(tensor.isnan().any()):
        return "It holds NaN: an empty row went through a softmax, or minus infinity was multiplied by 0"
    if tensor.is_floating_point():
        return (
            "Its numbers are neither zeros and ones nor zeros and large negative ones: scores, or a bias such as ALiBi"
        )
    return not_a_mask_cause(tensor).capitalize()
