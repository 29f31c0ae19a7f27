"""Where do token ids become vectors?"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from attnmask._check import in_vocabulary, value_error

_KEEP_ORDER = re.compile(
    "alias|as_tensor|asarray|clone|contiguous|cpu|cuda|detach|flatten|int|long|reshape|squeeze|to|type|type_as|unflatten"
    "|unsqueeze|view|view_as"
)


_COMPARISONS = re.compile("_*(eq|ne|lt|le|gt|ge|equal|not_equal|less|less_equal|greater|greater_equal|isin)_*")
_EQUALITY = re.compile("_*(eq|ne|equal|not_equal|isin)_*")
_MOST = 64  # numbers of a tensor that ids are compared with, beyond which it is no list of special ids


class Tokens(NamedTuple):
    """What a model does with token ids, by the name of the input."""

    vocabulary: dict[str, int]  # how many ids there are
    compared: dict[str, set[int]]  # numbers that they are compared with, as in ``ids != 0``
    branched_on: frozenset[str]  # inputs that the model compares or loses track of
    unclear: frozenset[str]  # of these, the ones that more than equality may decide about

    def may_make_masks_of(self, name: str, token: int) -> bool:
        """Say whether the model may tell this id of one of the inputs from others, as it does where a mask is made."""
        compared = self.compared.get(name, ())
        return name in self.branched_on and (name in self.unclear or not compared or token in compared)


class LookupTracer(TorchFunctionMode):
    """While active, follows token ids to the places where they become vectors.

    ``embedded`` holds these vectors, ``sizes`` the vocabularies they came from, ``untraced``
    the names of ids that reached floats on a way on which their places cannot be followed,
    ``branched_on`` those that a bool was made from, as ``ids != 0`` makes a mask.
    ``change`` may give the model other vectors than those looked up.

    >>> ids, table = torch.tensor([[2, 0]]), torch.eye(3)
    >>> with LookupTracer({"ids": ids}) as lookups:
    ...     vectors = table[ids.view(-1, 2)]
    >>> lookups.sizes, [(name, vectors.shape) for name, vectors in lookups.embedded]
    ({'ids': 3}, [('ids', torch.Size([1, 2, 3]))])
    """

    def __init__(self, given: dict[str, Tensor], change: Callable[[str, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.change = change
        # By identity: the ids and what is computed from them, with their version (-1: no longer in place) and names.
        ids = [(name, each) for name, each in given.items() if not each.is_floating_point()]
        self.ids = {id(each): (each, each._version, {name}) for name, each in ids}
        self.embedded: list[tuple[str, Tensor]] = []
        self.sizes: dict[str, int] = {}
        self.untraced: set[str] = set()
        self.branched_on: set[str] = set()
        self.unclear: set[str] = set()
        self.compared: dict[str, set[int]] = {}

    @property
    def tokens(self) -> Tokens:
        """What was seen."""
        branched_on = frozenset(self.branched_on | self.untraced)
        return Tokens(self.sizes, self.compared, branched_on, frozenset(self.unclear | self.untraced))

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind, kwargs = getattr(function, "__name__", "").split(".")[0], kwargs or {}
        given = [*args, *kwargs.values()]
        if any(isinstance(each, list | tuple | dict) for each in given):
            given = tree_leaves(given)
        tensors = [each for each in given if isinstance(each, Tensor)]
        known = [self.ids[id(each)] for each in tensors if id(each) in self.ids]
        if not known:
            return function(*args, **kwargs)
        names: set[str] = set().union(*(some for _, _, some in known))
        as_given = len(names) == 1 and all(version == ids._version for ids, version, _ in known)
        others = [each for each in tensors if id(each) not in self.ids and each.is_floating_point()]
        by_index = kind == "__getitem__" and isinstance(args[1], Tensor)
        by_row = kind == "index_select" and kwargs.get("dim", *args[1:2]) == 0
        looks_up = as_given and len(others) == 1 and len(tensors) == 2 and (kind == "embedding" or by_index or by_row)
        if looks_up:
            name, size = min(names), len(others[0])
            in_vocabulary(name, known[0][0], size, "the tokenizer of another model, or -100 left over from labels")
            self.sizes[name] = min(size, self.sizes.get(name, size))
        if _COMPARISONS.fullmatch(kind):
            numbers = [each for each in given if isinstance(each, int) and not isinstance(each, bool)]
            few = [each for each in tensors if id(each) not in self.ids and each.numel() <= _MOST]
            numbers += [number for each in few if _integers(each) for number in each.flatten().tolist()]
            for name in names:
                self.compared.setdefault(name, set()).update(numbers)
        result = function(*args, **kwargs)
        if not _EQUALITY.fullmatch(kind) and any(_bools(each) for each in tree_leaves(result)):
            self.unclear |= names
        if looks_up:
            vectors = result if result.requires_grad or not torch.is_grad_enabled() else result.requires_grad_()
            self.embedded.append((min(names), vectors))
            # Others than these, or a copy, since the model may write into it.
            return vectors.clone() if self.change is None else self.change(min(names), vectors)
        if kind in ("tolist", "numpy"):
            self.untraced |= names
        if not kind.startswith("new_") and not kind.endswith("_like"):
            made = args[0] if kind == "__setitem__" else result
            self._follow(made, names, in_place=as_given and bool(_KEEP_ORDER.fullmatch(kind)))
        return result

    def _follow(self, made: Any, names: set[str], in_place: bool) -> None:
        """Note what was made of ids: floats, bools, or ids again, each still in its place or not."""
        for each in tree_leaves(made):
            if not isinstance(each, Tensor):
                continue
            if each.is_floating_point():
                self.untraced |= names
            elif _bools(each):
                self.branched_on |= names
            else:
                self.ids[id(each)] = each, each._version if in_place else -1, names


def _bools(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bool


def _integers(tensor: Tensor) -> bool:
    return tensor.dtype != torch.bool and not (tensor.is_floating_point() or tensor.is_complex())


def no_lookup(name: str, others: Sequence[str] = ()) -> ValueError:
    """Make the error for ids that cannot be followed, where perhaps others can."""
    cause = "they are shifted, changed or turned into floats on the way, or not used"
    cause += "; " + "".join(f'of="{each}" leaves them out, ' for each in others[:1])
    cause += 'try probe="perturbation", or give the embedded tokens instead'
    return value_error(f"{name} that the model looks up in an embedding as they are", "no lookup of just these", cause)
