"""How is a model put back as it was, bit for bit?"""

import copy
import functools
import inspect
import operator
import random
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from attnmask._check import value_error

_LARGE = 4096  # numbers in a parameter, from which on it is watched by its version
_CONSTANTS = (bool, int, float, str)  # most attributes are, or None: passed over first, since all else takes longer
_CONTAINERS = (dict, OrderedDict, defaultdict, list, set, deque)  # others may refuse to be written into
Result = TypeVar("Result")


@dataclass(slots=True)
class _Kept:
    """What one tensor was: where it lay, what stood there, and what autograd knew of it."""

    tensor: Tensor
    place: Tensor  # the same storage
    values: Tensor  # a copy
    version: int
    is_leaf: bool
    requires_grad: bool
    grad: Tensor | None
    by_version: bool  # a large parameter, taken for unchanged while its version and its place are
    _bits: tuple[Tensor, Tensor] | None = None

    @property
    def bits(self) -> tuple[Tensor, Tensor]:
        """The bits that stand in the tensor's place, and those that stood there."""
        if self.values.dtype != self.place.dtype:
            return as_bits(self.place, self.values.to(self.place.dtype))
        self._bits = self._bits or as_bits(self.place, self.values)
        return self._bits

    def moved(self) -> bool:
        """Say whether the tensor lies elsewhere now, or is another view."""
        now, then = self.tensor, self.place
        return (now.shape, now.dtype, now.data_ptr()) != (then.shape, then.dtype, then.data_ptr())

    def put_back(self, in_full: bool) -> bool:
        """Put the tensor back; say whether it was written without a trace, and so never watched by version again."""
        tensor = self.tensor
        if self.is_leaf and not tensor.is_leaf:  # written into by the run, and so in its graph
            tensor.detach_()
        moved, touched = self.moved(), self.version != version_of(tensor)
        if moved:
            tensor.data = self.place
        look = moved or in_full or not self.by_version
        written = not touched and look and not torch.equal(*self.bits)
        if touched or written:
            with torch.no_grad():
                tensor.copy_(self.values)
            self.version = version_of(tensor)
        if tensor.is_leaf and not (tensor.requires_grad == self.requires_grad and tensor.grad is self.grad):
            tensor.requires_grad_(self.requires_grad).grad = self.grad
        silent = written and self.by_version
        self.by_version &= not silent
        return silent


class Snapshot:
    """What a model's run may change, remembered: put back after every run, in full after an error.

    That is: every module that the model is, holds, names or calls, with its tensors,
    attributes and the lists, dicts and sets in them; and the random generators. Objects
    of other classes are not looked into. Parameters of more than 4,096 numbers are put
    back where their version or place shows that they were written; what writes to them
    without a trace, as ``weight.data.add_`` does, is noticed by `settled`.

    >>> norm = nn.BatchNorm1d(2)
    >>> with Snapshot(norm) as kept, kept.run():
    ...     _ = norm(torch.randn(4, 2))
    >>> norm.num_batches_tracked.item()
    0
    """

    def __init__(
        self, model: Callable[..., Any], modules: Iterable[nn.Module] = (), like: "Snapshot | None" = None
    ) -> None:
        self.model, self.like = model, like
        self.modules: dict[nn.Module, dict[str, Any]] = {}
        self.containers: dict[int, tuple[Any, Any]] = {}
        self.tensors: dict[int, _Kept] = {}
        self.places: set[int] = set()
        self.runs = 0
        self.surprised = False  # by a parameter that was written without a trace
        self.generators: list[tuple[Callable[..., Any], Any]] = [
            (random.setstate, random.getstate()),
            (numpy.random.set_state, numpy.random.get_state()),
            (torch.set_rng_state, torch.get_rng_state()),
        ]
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is not None:
            device = torch.get_device_module(accelerator)
            self.generators.append((device.set_rng_state, device.get_rng_state()))
        self._remember(each for each in reachable_objects(model) if isinstance(each, nn.Module))
        for module in modules:
            self.add(module)

    def add(self, module: nn.Module, _: Any = None) -> None:
        """Remember a module and its parts."""
        if module not in self.modules:
            parts = [part for part in module.modules() if part not in self.modules]
            for part in parts:
                _check_weights(part)
            self.modules.update((part, dict(vars(part))) for part in parts)  # all of them first: none is entered twice
            for part in parts:
                self._remember(vars(part).values())
            self._remember(chain(module.parameters(), module.buffers()))

    def _remember(self, values: Any) -> None:
        for value in values:
            if value is None or isinstance(value, _CONSTANTS):
                continue
            if isinstance(value, Tensor) and plain(value) and id(value) not in self.tensors:
                self._remember_tensor(value)
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

    def _remember_tensor(self, tensor: Tensor) -> None:
        grad = tensor.grad if tensor.is_leaf else None
        large = isinstance(tensor, nn.Parameter) and tensor.numel() > _LARGE and version_of(tensor) >= 0
        before = self.like.tensors.get(id(tensor)) if self.like is not None and large else None
        values = tensor.detach() if before is None else before.values  # of another dtype where it was just turned
        if before is None or not (self._unwritten(before) or same_bits(tensor, values)):
            values = tensor.detach().clone()
        self.tensors[id(tensor)] = _Kept(
            tensor, tensor.detach(), values, version_of(tensor), tensor.is_leaf, tensor.requires_grad, grad,
            by_version=large and (before is None or before.by_version),
        )  # fmt: skip
        self.places.add(tensor.untyped_storage().data_ptr())
        self._remember([grad])

    def _unwritten(self, before: _Kept) -> bool:
        """Say whether a tensor still holds what an earlier snapshot found, or was just turned into another dtype."""
        same = not before.moved() and before.version == version_of(before.tensor)
        same &= self.like is None or not self.like.switching_writes
        return same or before.values.dtype != before.tensor.dtype

    # ---- putting back ----------------------------------------------------------------

    def __enter__(self) -> "Snapshot":
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        self.put_back(in_full=kind is not None or self.switching_writes)

    @property
    def switching_writes(self) -> bool:
        """Whether a module has a method of its own for switching its mode, which may write to its weights."""
        return any(type(part).train is not nn.Module.train for part in self.modules)

    def resume(self) -> None:
        """Put everything back, to go on from here after the model was in another mode."""
        self.put_back(in_full=self.switching_writes)

    @contextmanager
    def run(self) -> Iterator[None]:
        """For one run: compiled code runs as it was written, modules that are met are remembered, all is put back."""
        self.runs += 1
        compiles = "torch._dynamo" in sys.modules  # takes seconds to load; nothing is compiled without it
        meets_modules = not isinstance(self.model, nn.Module)  # a function may call some that it does not name
        hook = register_module_forward_pre_hook(self.add) if meets_modules else None
        try:
            with torch.compiler.set_stance("force_eager") if compiles else nullcontext():
                yield
        finally:
            if hook is not None:
                hook.remove()
            self.put_back()

    def settled(self, measure: Callable[[], Result]) -> Result:
        """Measure; and again, as long as a parameter turns out to have been written without a trace."""
        while True:
            self.surprised = False
            try:
                result = measure()
            except Exception:
                self.put_back(in_full=True)
                if not self.surprised:
                    raise
                continue
            self.put_back(in_full=True)
            if not self.surprised:
                return result

    def put_back(self, in_full: bool = False) -> None:
        """Put everything back, in full also what no version shows."""
        self.reseed()
        for part, attributes in self.modules.items():
            vars(part).clear()
            vars(part).update(attributes)
        for container, before in self.containers.values():
            if (container or before) and type(container) in _CONTAINERS and not _alike(container, before):
                container.clear()
                (container.update if isinstance(container, dict | set) else container.extend)(before)
        for kept in self.tensors.values():
            self.surprised |= kept.put_back(in_full)

    def reseed(self) -> None:
        """Put the random generators back alone."""
        for put_back, state in self.generators:
            put_back(state)


def _check_weights(part: nn.Module) -> None:
    """Refuse weights that hold no numbers, and those that are put together from several places while the model runs."""
    wanted, cause = "a model whose weights are plain tensors", "sharding or quantisation; measure the model before"
    if any(each.__name__ == "FSDPModule" for each in type(part).__mro__):
        raise value_error(wanted, f"{type(part).__name__}, made by fully_shard", f"{cause}: its masks are the same")
    for name, weight in part._parameters.items():
        if weight is None:
            continue
        where = f"{name} of {type(part).__name__}"
        if is_lazy(weight):
            raise value_error("a model whose weights are made", "lazy ones", "it has not run yet; run it once")
        if weight.is_meta:
            got = f'{where} on the device "meta"'
            raise value_error("a model whose weights hold numbers", got, "they are still to be loaded")
        if is_traceable_wrapper_subclass(weight):
            raise value_error(wanted, f"{where}, a {type(weight).__name__}", f"{cause}: its masks are the same")


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written to, as far as PyTorch counts; -1 where it was made in inference mode."""
    try:
        return tensor._version
    except RuntimeError:
        return -1


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Say whether two tensors of one dtype agree bit for bit: 0.0 is not -0.0, and NaN is NaN.

    >>> same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    False
    """
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*as_bits(one, other))


def as_bits(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """View two tensors of one dtype and shape as integers of the same bits.

    >>> as_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    (tensor([0], dtype=torch.int32), tensor([-2147483648], dtype=torch.int32))
    """
    if not one.is_floating_point():
        return one, other
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[one.dtype.itemsize]
    if one.is_contiguous() and other.is_contiguous() and one.nbytes % 8 == 0:
        one, other, bits = one.reshape(-1), other.reshape(-1), torch.int64  # several numbers at once
    return one.detach().view(bits), other.detach().view(bits)


def plain(tensor: Tensor) -> bool:
    """Say whether a tensor has a storage and values of its own to compare."""
    return tensor.layout is torch.strided and not (tensor.is_nested or tensor.is_meta or is_lazy(tensor))


def _alike(one: Any, other: Any) -> bool:
    """Say whether two containers hold the same things, in the same order."""
    alike = len(one) == len(other) and all(map(operator.is_, one, other))
    return alike and (not isinstance(one, dict) or all(map(operator.is_, one.values(), other.values())))


def reachable_objects(model: Callable[..., Any]) -> list[Any]:
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
