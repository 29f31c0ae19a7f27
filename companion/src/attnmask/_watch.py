"""What measuring a model takes of PyTorch: watch its lookups, count its memory, leave it as it was."""

import copy
import functools
import inspect
import operator
import random
import re
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import chain
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from attnmask._check import in_vocabulary, kind_of, value_error

_KEEP_ORDER = re.compile(
    "alias|as_tensor|asarray|clone|contiguous|cpu|cuda|detach|flatten|int|long|reshape|squeeze|to|type|type_as|unflatten"
    "|unsqueeze|view|view_as"
)


class Lookups(TorchFunctionMode):
    """While active, follows token ids to the places where they become vectors.

    ``found`` holds these vectors, ``sizes`` the vocabularies they came from, ``lost`` the
    names of ids that reached floats on a way on which their places cannot be followed,
    ``compared`` those that a bool was made from, as ``ids != 0`` makes a mask.

    >>> ids, table = torch.tensor([[2, 0]]), torch.eye(3)
    >>> with Lookups({"ids": ids}) as lookups:
    ...     vectors = table[ids.view(-1, 2)]
    >>> lookups.sizes, [(name, found.shape) for name, found in lookups.found]
    ({'ids': 3}, [('ids', torch.Size([1, 2, 3]))])
    """

    def __init__(self, given: dict[str, Tensor]) -> None:
        super().__init__()
        # By identity: the ids and what is computed from them, with their version (-1: no longer in place) and names.
        ids = [(name, each) for name, each in given.items() if not each.is_floating_point()]
        self.ids = {id(each): (each, each._version, {name}) for name, each in ids}
        self.found: list[tuple[str, Tensor]] = []
        self.sizes: dict[str, int] = {}
        self.lost: set[str] = set()
        self.compared: set[str] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind, kwargs = getattr(function, "__name__", "").split(".")[0], kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        known = [self.ids[id(each)] for each in tensors if id(each) in self.ids]
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
        result = function(*args, **kwargs)
        if looks_up:
            vectors = result if result.requires_grad or not torch.is_grad_enabled() else result.requires_grad_()
            self.found.append((min(names), vectors))
            return vectors.clone()  # the model may write into it
        if kind in ("tolist", "numpy"):
            self.lost |= names
        if names and not kind.startswith("new_") and not kind.endswith("_like"):
            for each in tree_leaves(args[0] if kind == "__setitem__" else result):
                if isinstance(each, Tensor) and each.is_floating_point():
                    self.lost |= names
                elif isinstance(each, Tensor) and each.dtype == torch.bool:
                    self.compared |= names
                elif isinstance(each, Tensor):
                    self.ids[id(each)] = each, each._version if as_given and _KEEP_ORDER.fullmatch(kind) else -1, names
        return result


class InFloat64(TorchFunctionMode):
    """While active, a model that turns its numbers into float32 gets float64."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(lambda each: torch.float64 if each is torch.float32 else each, (args, kwargs or {}))
        return (Tensor.double if function is Tensor.float else function)(*args, **kwargs)


class WithoutDropout(TorchFunctionMode):
    """While active, functions that drop numbers by chance drop none."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        if "dropout" in name and function.__module__ == "torch.nn.functional":
            return args[0] if args else kwargs["input"]
        if name == "scaled_dot_product_attention":
            args, kwargs = args[:4], dict(zip(("dropout_p", "is_causal"), args[4:], strict=False)) | kwargs
            return function(*args, **(kwargs | {"dropout_p": 0.0}))
        return function(*args, **kwargs)


def drops(part: nn.Module, name: str) -> bool:
    """Say whether an attribute is a chance of dropout."""
    value = vars(part)[name]
    return isinstance(value, float) and value > 0 and "drop" in name


class Saved:
    """Counts the bytes that a forward pass saves for its backward pass: each storage once, the model's own not."""

    def __init__(self, own: set[int], limit: int) -> None:
        self.own, self.limit, self.bytes, self.counted = own, limit, 0, set[int]()

    def pack(self, tensor: Tensor) -> tuple[Tensor, int]:
        """Count a tensor; hold it by a new name, since a node that holds its own output is never freed."""
        if (
            _plain(tensor)
            and (place := tensor.untyped_storage().data_ptr()) not in self.counted
            and place not in self.own
        ):
            self.counted.add(place)
            self.bytes += tensor.nbytes
            if self.bytes > self.limit:
                raise too_large(f"more than {self.limit:,} bytes saved in the forward pass", self.limit)
        return tensor.detach(), tensor._version

    @staticmethod
    def unpack(packed: tuple[Tensor, int]) -> Tensor:
        """Return a tensor, unless it was changed since: hooks switch PyTorch's own check off."""
        tensor, version = packed
        if tensor._version != version:
            cause = 'the model writes into it later, and so cannot be trained; try probe="perturbation"'
            raise value_error("what the backward pass needs unchanged", f"{kind_of(tensor)} changed in place", cause)
        return tensor


def too_large(what: str, limit: int) -> ValueError:
    """Make the error for what does not fit into memory."""
    cause = "a long sequence or a large model; a shorter input mostly shows the same, or give it more memory"
    return value_error(f"a measurement that fits into memory={limit:,} bytes", what, cause)


class AsItWas:
    """While active, runs compiled code as it was written; then puts back, bit for bit, what a model's run changes.

    That is: every module that the model is, holds, names or calls, with its tensors,
    attributes and the lists, dicts and sets in them; and the random generators. Objects
    of other classes are not looked into.

    >>> norm = nn.BatchNorm1d(2)
    >>> with AsItWas(norm):
    ...     _ = norm(torch.randn(4, 2))
    >>> norm.num_batches_tracked.item()
    0
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        self.modules: dict[nn.Module, dict[str, Any]] = {}
        self.containers: dict[int, tuple[Any, Any]] = {}
        self.tensors: dict[int, tuple[Tensor, Tensor, Tensor, int, bool, bool, Tensor | None]] = {}
        self.places: set[int] = set()
        self.generators: list[tuple[Callable[..., Any], Any]] = [
            (random.setstate, random.getstate()),
            (numpy.random.set_state, numpy.random.get_state()),
            (torch.set_rng_state, torch.get_rng_state()),
        ]
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is not None:
            device = torch.get_device_module(accelerator)
            self.generators.append((device.set_rng_state, device.get_rng_state()))
        self._remember(each for each in _named_by(model) if isinstance(each, nn.Module))
        self.meets_modules = not isinstance(model, nn.Module)  # a function may call some that it does not name

    @classmethod
    def of(cls, model: Callable[..., Any], modules: Iterable[nn.Module]) -> "AsItWas":
        """Remember a model, and modules that it is known to call."""
        start = cls(model)
        for module in modules:
            start.add(module)
        return start

    def add(self, module: nn.Module, _: Any = None) -> None:
        """Remember a module and its parts."""
        if module not in self.modules:
            parts = [part for part in module.modules() if part not in self.modules]
            self.modules.update((part, dict(vars(part))) for part in parts)  # all of them first: none is entered twice
            for part in parts:
                self._remember(vars(part).values())
            self._remember(chain(module.parameters(), module.buffers()))

    def _remember(self, values: Any) -> None:
        for value in values:
            if value is None or isinstance(value, _CONSTANTS):
                continue
            if isinstance(value, Tensor) and _plain(value) and id(value) not in self.tensors:
                grad = value.grad if value.is_leaf else None
                version = -1 if value.is_inference() else value._version
                state = (version, value.is_leaf, value.requires_grad, grad)
                self.tensors[id(value)] = value, value.detach(), value.detach().clone(), *state
                self.places.add(value.untyped_storage().data_ptr())
                self._remember([grad])
            elif isinstance(value, nn.Module):
                self.add(value)
            elif isinstance(value, tuple):
                self._remember(value)
            elif isinstance(value, _CONTAINERS):
                if id(value) not in self.containers:
                    self.containers[id(value)] = value, value.copy() if type(value) in _CONTAINERS else copy.copy(value)
                    if value:
                        self._remember(value.values() if isinstance(value, dict) else value)
            elif isinstance(value, torch.Generator):
                self.generators.append((value.set_state, value.get_state()))

    def __enter__(self) -> "AsItWas":
        compiles = "torch._dynamo" in sys.modules  # takes seconds to load; nothing is compiled without it
        self.stance = torch.compiler.set_stance("force_eager") if compiles else nullcontext()
        self.stance.__enter__()
        self.hook = register_module_forward_pre_hook(self.add) if self.meets_modules else None
        return self

    def __exit__(self, *error: Any) -> None:
        if self.hook is not None:
            self.hook.remove()
        self.stance.__exit__(*error)
        self.reseed()
        for part, attributes in self.modules.items():
            vars(part).clear()
            vars(part).update(attributes)
        for container, before in self.containers.values():
            if (container or before) and type(container) in _CONTAINERS and not _alike(container, before):
                container.clear()
                (container.update if isinstance(container, dict | set) else container.extend)(before)
        for tensor, place, values, version, is_leaf, requires_grad, grad in self.tensors.values():
            if is_leaf and not tensor.is_leaf:  # written into by the run, and so in its graph
                tensor.detach_()
            if (tensor.shape, tensor.dtype, tensor.data_ptr()) != (place.shape, place.dtype, place.data_ptr()):
                tensor.data = place
            if version != (-1 if tensor.is_inference() else tensor._version) or not torch.equal(tensor, values):
                with torch.no_grad():
                    tensor.copy_(values)
            if tensor.is_leaf and not (tensor.requires_grad == requires_grad and tensor.grad is grad):
                tensor.requires_grad_(requires_grad).grad = grad

    def reseed(self) -> None:
        """Put the random generators back alone."""
        for put_back, state in self.generators:
            put_back(state)


_CONSTANTS = (bool, int, float, str)  # most attributes are, or None: passed over first, since all else takes longer
_CONTAINERS = (dict, OrderedDict, defaultdict, list, set, deque)  # others may refuse to be written into


def _alike(one: Any, other: Any) -> bool:
    """Say whether two containers hold the same things, in the same order."""
    alike = len(one) == len(other) and all(map(operator.is_, one, other))
    return alike and (not isinstance(one, dict) or all(map(operator.is_, one.values(), other.values())))


def _plain(tensor: Tensor) -> bool:
    """Say whether a tensor has a storage and values of its own to compare."""
    return tensor.layout is torch.strided and not (tensor.is_nested or tensor.is_meta or is_lazy(tensor))


def _named_by(model: Callable[..., Any]) -> list[Any]:
    """Return what a model has at hand by name, through methods, partials and functions of its own file."""
    found, queue = {id(model): model}, [model]
    while queue:
        each, more = queue.pop(), []
        if isinstance(each, functools.partial):
            more = [each.func, *each.args, *each.keywords.values()]
        elif inspect.ismethod(each):
            more = [each.__self__, each.__func__]
        elif inspect.isfunction(each) and (each is model or each.__module__ == getattr(model, "__module__", "")):
            scope = inspect.getclosurevars(each)
            more = [*scope.nonlocals.values(), *scope.globals.values()]
        elif isinstance(each, list | tuple | dict):
            more = list(each.values() if isinstance(each, dict) else each)
        elif each is model and not isinstance(each, nn.Module):
            more = list(getattr(each, "__dict__", {}).values())
        queue += [one for one in more if id(one) not in found]
        found |= {id(one): one for one in more}
    return list(found.values())


class _Detached(TorchFunctionMode):
    """While active, ``deepcopy`` takes tensors out of their graph, where it would else refuse to copy them."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[1].setdefault(id(args[0]), args[0].detach().clone())
        return function(*args, **(kwargs or {}))


def copy_of(value: Any) -> Any:
    """Copy an argument, so that a model can do with it what it likes; tensors leave their graph.

    >>> x = torch.zeros(2, requires_grad=True)
    >>> copy_of([2 * x])[0].requires_grad
    False
    """
    if isinstance(value, Tensor):
        return value.detach().clone()
    try:
        with _Detached():
            return copy.deepcopy(value)
    except TypeError:  # a lock, a file, a generator
        return value
