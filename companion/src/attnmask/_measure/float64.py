"""What does the model do without rounding, and without chance?"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from attnmask._measure.call import ModelCall
from attnmask._measure.snapshot import Snapshot

_DRAWS = {"rand", "rand_like", "randn", "randn_like", "bernoulli", "normal"}
_DRAWS |= {"bernoulli_", "exponential_", "normal_", "uniform_"}  # in place


class InFloat64(TorchFunctionMode):
    """While active, a model that turns its numbers into float32 gets float64."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(lambda each: torch.float64 if each is torch.float32 else each, (args, kwargs or {}))
        return (Tensor.double if function is Tensor.float else function)(*args, **kwargs)


@contextmanager
def grouped_products_in_float64() -> Iterator[None]:
    """While active, mixtures of experts multiply in float64 too, group by group: PyTorch's kernel refuses it.

    The functions themselves are exchanged, since a mode would switch fast paths off.
    """
    kernels = [(torch, "_grouped_mm"), (torch.nn.functional, "grouped_mm")]
    there = [(place, name, getattr(place, name)) for place, name in kernels if hasattr(place, name)]

    def either(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def multiply(*given: Any, **named: Any) -> Tensor:
            doubles = any(isinstance(each, Tensor) and each.dtype == torch.float64 for each in given)
            return (grouped_product if doubles else kernel)(*given, **named)

        return multiply

    try:
        for place, name, kernel in there:
            setattr(place, name, either(kernel))
        yield
    finally:
        for place, name, kernel in there:
            setattr(place, name, kernel)


def grouped_product(
    rows: Tensor, weights: Tensor, offs: Tensor | None = None, bias: Tensor | None = None, out_dtype: Any = None
) -> Tensor:
    """Multiply each group of rows (row, in) with a matrix of its own (group, in, out); groups end at ``offs``.

    >>> grouped_product(torch.ones(3, 1), torch.tensor([[[2.0]], [[5.0]]]), torch.tensor([1, 3])).flatten()
    tensor([2., 5., 5.])
    """
    groups = rows if offs is None else torch.tensor_split(rows, offs[:-1].tolist())
    products = [group @ weight for group, weight in zip(groups, weights, strict=True)]
    return torch.stack(products) if offs is None else torch.cat(products)


class WithoutDropout(TorchFunctionMode):
    """While active, functions that drop numbers by chance drop none, and those that draw any draw one and the same."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        if "dropout" in name and function.__module__ == "torch.nn.functional":
            return args[0] if args else kwargs["input"]
        if name in _DRAWS:
            return function(*args, **kwargs).fill_(0.5)
        if name == "scaled_dot_product_attention":
            args, kwargs = args[:4], dict(zip(("dropout_p", "is_causal"), args[4:], strict=False)) | kwargs
            return function(*args, **(kwargs | {"dropout_p": 0.0}))
        return function(*args, **kwargs)


@contextmanager
def undropped(snapshot: Snapshot) -> Iterator[Snapshot]:
    """While active, neither functions nor the chances that modules hold drop anything; yields what keeps it so."""
    try:
        for part in snapshot.modules:
            vars(part).update({name: 0.0 for name in vars(part) if _is_chance(part, name)})
        with WithoutDropout():
            yield Snapshot(snapshot.model, snapshot.modules, like=snapshot)
    finally:
        snapshot.put_back()


def _is_chance(part: nn.Module, name: str) -> bool:
    value = vars(part)[name]
    return isinstance(value, float) and value > 0 and "drop" in name


@contextmanager
def in_float64(call: ModelCall, snapshot: Snapshot) -> Iterator[tuple[ModelCall, Snapshot]]:
    """Turn a model and its arguments into float64 for a while; yields the call and what puts the model back so."""

    def exact(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    modules, default = list(snapshot.modules), torch.get_default_dtype()
    with torch.no_grad():
        try:
            torch.set_default_dtype(torch.float64)
            for module in modules:
                for parameter in module._parameters.values():
                    if parameter is not None and parameter.is_floating_point():
                        parameter.data = parameter.data.double()
                for place in (module._buffers, vars(module)):
                    for name, each in list(place.items()):
                        place[name] = exact(each)
            arguments = {name: tree_map(exact, each) for name, each in call.arguments.items()}
            with torch.enable_grad(), grouped_products_in_float64():
                yield call.replaced(arguments), Snapshot(call.model, modules, like=snapshot)
        finally:
            torch.set_default_dtype(default)
            snapshot.put_back()
