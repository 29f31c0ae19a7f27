"""How is the model called, and which tensor is its output?"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attnmask._check import count, kind_of, type_error, value_error
from attnmask._measure.lookups import LookupTracer
from attnmask._measure.snapshot import Snapshot, copy_of

_NOT_MEASURED = ("mask", "bias", "position", "token_type", "label")
_NOT_JUDGED = ("encoder", "hidden", "attention")


class Layout(NamedTuple):
    """Where a tensor keeps its batch (None: one sample, no such axis) and its positions."""

    batch: int | None
    position: int

    @classmethod
    def of(cls, name: str, tensor: Tensor, position: int) -> "Layout":
        """Read a tensor's layout off its dtype and axes, given the axis of its positions."""
        kinds = "(batch, position, feature) floats or (batch, position) token ids"
        if not isinstance(tensor, Tensor) or tensor.is_complex() or tensor.dtype == torch.bool:
            raise type_error(f"{name} to be {kinds}", kind_of(tensor), "a mask, or something that is no tensor")
        lone_sample = position == 0 and tensor.dim() == 1 + tensor.is_floating_point()
        most = tensor.dim() if tensor.is_floating_point() else 2
        fits = lone_sample or max(2, count("position_axis", position) + 1) <= tensor.dim() <= most
        if not fits or tensor.numel() == 0:
            raise value_error(
                f"{name} to be {kinds}, none of them empty, with positions on axis {position}",
                kind_of(tensor),
                "another axis holds the positions (position_axis=), one sample lacks its batch axis, "
                "or it is not to be measured (of= names what is; for an audit, allowed= by name)",
            )
        return cls(None if lone_sample else int(position == 0), position)

    def as_batch_position(self, tensor: Tensor, lead: int = 0) -> Tensor:
        """View a tensor as (batch, position, …), behind ``lead`` further axes."""
        if self.batch is None:
            return tensor.movedim(lead + self.position, lead).unsqueeze(lead)
        return tensor.movedim((lead + self.batch, lead + self.position), (lead, lead + 1))


class ModelCall(NamedTuple):
    """A model, its arguments, and where those to be measured keep their positions."""

    model: Callable[..., Any]
    arguments: dict[str, Any]
    named: bool
    layouts: dict[str, Layout]
    output_axis: int
    memory: int

    @classmethod
    def of(
        cls,
        model: Callable[..., Any],
        inputs: Tensor | Mapping[str, Any],
        names: Iterable[str] | None,
        position_axis: int | Mapping[str, int] | None,
        memory: int,
    ) -> "ModelCall":
        """Check the arguments of a measurement and put them together."""
        if not callable(model) or isinstance(model, type):
            raise type_error("a model: a module or a function", kind_of(model), "a class that was not called yet")
        named = isinstance(inputs, Mapping)
        given = dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}
        arguments = {name: each.detach() if isinstance(each, Tensor) else each for name, each in given.items()}
        places = [*arguments, "output"]
        axes: dict[str, int] = {}
        if position_axis is not None:
            axes = dict(position_axis if isinstance(position_axis, Mapping) else dict.fromkeys(places, position_axis))
        if not set(axes) <= set(places):
            raise value_error(f"position_axis for {places}", f"{list(axes)}", "a spelling slip")
        picked = measured(arguments, named, names)
        for name in set(picked) - set(axes):
            _refuse_many_axes(name, arguments[name])
        layouts = {name: Layout.of(name, arguments[name], axes.get(name, 1)) for name in picked}
        return cls(model, arguments, named, layouts, axes.get("output", 1), count("memory", memory))

    @property
    def inputs(self) -> Any:
        """The arguments as they were given: by name, or the lone one."""
        return self.arguments if self.named else next(iter(self.arguments.values()))

    def replaced(self, given: Mapping[str, Any]) -> "ModelCall":
        """Return the same call with some arguments replaced."""
        return self._replace(arguments=self.arguments | dict(given))

    def resampled(self, samples: list[int]) -> "ModelCall":
        """Return a call with these samples of the batch, in this order.

        Of the tensors that are not measured, those of several axes whose first one is the batch are taken apart too.
        """
        fronts = [self.as_batch_position(name) for name in self.layouts]
        batch, lengths, many = len(fronts[0]), {front.shape[1] for front in fronts} - {1}, {}
        for name, value in self.arguments.items():
            axis = self.layouts[name].batch if name in self.layouts else 0
            whole = isinstance(value, Tensor) and value.dim() > 1 and len(value) == batch
            if axis is None:
                raise value_error(f"a batch axis in {name}", "one sample without it", "position_axis=0")
            if name not in self.layouts and whole and batch in lengths:
                cause = "as many samples as positions, so that its first axis may be either"
                raise value_error(f"a batch axis in {name}", f"one of {batch}", cause)
            if name in self.layouts or whole:
                many[name] = value.index_select(axis, torch.tensor(samples, device=value.device))
        return self.replaced(many)

    def as_batch_position(self, name: str, tensor: Tensor | None = None) -> Tensor:
        """View one of the arguments, or a tensor like it, as (batch, position, …)."""
        return self.layouts[name].as_batch_position(self.arguments[name] if tensor is None else tensor)

    def outputs(self, given: Mapping[str, Tensor]) -> list[Tensor]:
        """Run the model on copies of its arguments, some of them replaced.

        Returns the output as (batch, position, …), and each further one that has a name
        of its own and the same axes.
        """
        copies = {name: given[name] if name in given else copy_of(value) for name, value in self.arguments.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*there are global hooks")  # ours
            result = self.model(**copies) if self.named else self.model(*copies.values())
        first = self._pick(result)
        if first.layout is not torch.strided or first.is_nested or first.is_meta or first.numel() == 0:
            raise value_error("an output with numbers, densely stored", kind_of(first), "a sparse, nested or empty one")
        output = self._front(first)
        self._check_sizes(output)
        named = result.items() if isinstance(result, Mapping) else ()
        others = [each for name, each in named if each is not first and not any(part in name for part in _NOT_JUDGED)]
        fronts = [self._front(each) for each in others if _floats(each) and each.dim() == first.dim()]
        return [output, *(each for each in fronts if each.shape[:2] == output.shape[:2])]

    def _check_sizes(self, output: Tensor) -> None:
        samples = {len(self.as_batch_position(name)) for name in self.layouts}
        if samples != {len(output)}:
            raise value_error(
                "as many samples in the output as in each input",
                f"{len(output)} out, {sorted(samples)} in",
                "batch and position axes swapped, as position_axis can say, or the batch folded into the positions",
            )
        for name in self.layouts:
            if (size := output.shape[:2].numel() * self.as_batch_position(name).shape[1]) > self.memory:
                raise too_large(f"a result of {size:,} bytes", self.memory)

    @property
    def batched(self) -> bool:
        """Whether every input has a batch axis."""
        return all(layout.batch is not None for layout in self.layouts.values())

    def _front(self, output: Tensor) -> Tensor:
        layout = Layout(int(self.output_axis == 0) if self.batched else None, self.output_axis)
        return layout.as_batch_position(output)

    def _pick(self, result: Any) -> Tensor:
        """Return the first tensor that can be the output."""
        result = vars(result) if is_dataclass(result) and not isinstance(result, Mapping | type) else result
        found = list(result.values()) if isinstance(result, Mapping) else result
        tensors = [each for each in (found if isinstance(found, list | tuple) else [found]) if isinstance(each, Tensor)]
        for tensor in tensors:
            if _floats(tensor) and tensor.dim() >= max(2 + self.batched, self.output_axis + 1):
                return tensor
        axes = f"({'batch, ' * self.batched}position, feature)"
        wanted = f"an output {axes} of floats, positions on axis {self.output_axis}"
        got = " and ".join(map(kind_of, tensors)) or kind_of(result)
        if tensors and not any(map(_floats, tensors)):
            raise type_error(wanted, got, "predictions; have the model return the scores they were chosen from")
        cause = "a pooled output; have the model return the one before pooling"
        raise value_error(wanted, got, f"{cause}. One number a position needs an axis: output[..., None]")

    def trace_lookups(self, snapshot: Snapshot) -> LookupTracer:
        """Run once to see where token ids go. Tracing shuts PyTorch's fast paths: what fails off them is let pass."""
        given = {name: copy_of(self.arguments[name]) for name in self.layouts}
        lookups = LookupTracer(given)
        if lookups.ids:
            with snapshot.run(), torch.no_grad(), lookups, suppress(RuntimeError):
                self.outputs(given)
        return lookups


def measured(arguments: dict[str, Any], named: bool, of: Iterable[str] | None) -> list[str]:
    """Return the names of the arguments to measure."""
    if not named:
        return list(arguments)
    numbers = [name for name, each in arguments.items() if isinstance(each, Tensor) and each.dtype != torch.bool]
    names = [name for name in numbers if not any(part in name for part in _NOT_MEASURED)]
    names = names if of is None else [of] if isinstance(of, str) else list(of)
    if not names or not set(names) <= set(arguments):
        raise value_error(f"inputs to measure, among {list(arguments)}", f"{names}", "a spelling slip, or only masks")
    return names


def _refuse_many_axes(name: str, tensor: Any) -> None:
    """Refuse floats of more than three axes where nobody says which one counts the positions."""
    if _floats(tensor) and tensor.dim() > 3:
        cause = "heads, as in (batch, head, position, d), whose position_axis is 2; or an image, which has no axis of "
        cause += "positions: measure what follows its patches"
        raise value_error(f"position_axis for {name}, which has {tensor.dim()} axes", kind_of(tensor), cause)


def too_large(what: str, limit: int) -> ValueError:
    """Make the error for what does not fit into memory."""
    cause = "a long sequence or a large model; a shorter input mostly shows the same, or give it more memory"
    return value_error(f"a measurement that fits into memory={limit:,} bytes", what, cause)


def _floats(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.is_floating_point()
