"""What was asked, checked once?"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnmask._check import count, kind_of, not_a_mask_cause, type_error, value_error
from attnmask._measure.call import ModelCall, measured, too_large
from attnmask.masks import Mask, causal

Allowed = Mask | Tensor
_OUTPUT_SEQUENCE = ("decoder", "target", "tgt", "query")  # how the output's own sequence is called where there are two


@dataclass(frozen=True, eq=False)
class Question:
    """Does this model, on these inputs, obey what is allowed?"""

    model: Callable[..., Any]
    make_inputs: Callable[[int], Any] | None  # where inputs are a function of length
    inputs: Any
    allowed: Any
    same_sequence: bool | str
    modes: tuple[str, ...]
    lengths: tuple[int, ...] | None  # None: those that come by themselves
    position_axis: int | Mapping[str, int] | None
    memory: int
    stop_at_first: bool
    without_ids: tuple[int, ...] = ()
    exact: bool = False

    @classmethod
    def of(
        cls,
        model: Callable[..., Any],
        inputs: Any,
        allowed: Any,
        modes: Iterable[str],
        lengths: Iterable[int] | int | None,
        without_ids: Iterable[int] | int,
        **others: Any,
    ) -> "Question":
        """Check what can be checked before anything runs."""
        lengths = [lengths] if isinstance(lengths, int) else lengths
        sizes = None if lengths is None else tuple(count("a length", each) for each in lengths)
        ids = [without_ids] if isinstance(without_ids, int) else without_ids
        without = tuple(count("an id of without_ids", each) for each in ids)
        maker = inputs if callable(inputs) else None
        given = maker((sizes or (8,))[0]) if maker else inputs
        rule = causal() if allowed is None else allowed
        return cls(model, maker, given, rule, modes=checked_modes(modes), lengths=sizes, without_ids=without, **others)

    @property
    def allowed_depends(self) -> bool:
        """Whether what is allowed is a function of the inputs."""
        return callable(self.allowed) and not isinstance(self.allowed, Mask)

    def allowed_for(self, inputs: Any) -> Any:
        """Return what is allowed for these inputs."""
        if not self.allowed_depends:
            return self.allowed
        with suppress(ValueError):  # functions written in C have no signature
            try:
                inspect.signature(self.allowed).bind(inputs)
            except TypeError as error:
                wanted = "allowed to be a Mask, a bool tensor, one of them by name, or a function of the inputs"
                raise type_error(wanted, kind_of(self.allowed), not_a_mask_cause(self.allowed)) from error
        return self.allowed(inputs)

    def holds_a_length(self) -> str:
        """Return "allowed" where it is made for one length, else ""."""
        rules = (
            ()
            if self.allowed_depends
            else self.allowed.values()
            if isinstance(self.allowed, Mapping)
            else [self.allowed]
        )
        held = [not isinstance(rule, Mask) or (rule.query_len, rule.key_len) != (None, None) for rule in rules]
        return "allowed" * any(held)

    def call(self, inputs: Any) -> ModelCall:
        """Put a model's arguments together, those to be changed by their names."""
        allowed = self.allowed_for(inputs)
        names = list(allowed) if isinstance(allowed, Mapping) else None
        there = list(inputs) if isinstance(inputs, Mapping) else []
        if names is not None and not (names and set(names) <= set(there)):
            cause = "a spelling slip, or names for a lone tensor, which has none"
            raise value_error(f"allowed for some of the inputs {there}", f"{names}", cause)
        call = ModelCall.of(self.model, inputs, names, self.position_axis, self.memory)
        if names is None and len(call.layouts) > 1:
            wanted = f"allowed for each input by name, as the model takes {list(call.layouts)}"
            cause = "one mask meant for one of them: allowed={name: mask}"
            raise value_error(wanted, kind_of(allowed), cause)
        return call

    def tables(self, call: ModelCall, output_len: int) -> dict[str, Tensor]:
        """Write out what is allowed for each input, (batch, output, input)."""
        allowed = self.allowed_for(call.inputs)
        rules = allowed if isinstance(allowed, Mapping) else dict.fromkeys(call.layouts, allowed)
        tables = {}
        for name, rule in rules.items():
            batch, input_len = call.as_batch_position(name).shape[:2]
            if (size := 32 * (batch * output_len) * (batch * input_len)) > call.memory:
                raise too_large(f"tables of {size:,} bytes", call.memory)
            tables[name] = _table(name, rule, (batch, output_len, input_len))
        return tables

    def output_sequence(self, call: ModelCall, tables: dict[str, Tensor]) -> str | None:
        """Return the name of the input that is the sequence of the output."""
        names = sequences(call)
        if isinstance(self.same_sequence, str):
            if self.same_sequence not in call.arguments:
                raise value_error(f"same_sequence among {list(call.arguments)}", self.same_sequence, "a spelling slip")
            return self.same_sequence
        if not isinstance(self.same_sequence, bool):
            cause = "a name, True or False was meant"
            raise type_error("same_sequence to be a name or a bool", kind_of(self.same_sequence), cause)
        named_so = [name for name in names if any(part in name for part in _OUTPUT_SEQUENCE)]
        if not self.same_sequence or len(names) == 1 or named_so:
            return [*named_so, *names][0] if self.same_sequence else None
        square = {name: table for name, table in tables.items() if table.shape[1] == table.shape[2]}
        if not all(bool(table.diagonal(dim1=1, dim2=2).all()) for table in square.values()):
            cause = "names that do not speak of a decoder, target or query; name the one, or write same_sequence=False"
            raise value_error("same_sequence to name the input that the output belongs to", f"one of {names}", cause)
        return next(iter(square), None)


def checked_modes(modes: Any) -> tuple[str, ...]:
    """Return the modes that were asked for, one or several."""
    asked = [modes] if isinstance(modes, str) else list(modes) if isinstance(modes, Iterable) else [modes]
    if not asked or not all(mode in ("eval", "train") for mode in asked):
        raise value_error('modes among "eval" and "train"', f"{asked}", "a spelling slip")
    return tuple(asked)


def sequences(call: ModelCall) -> list[str]:
    """Return the names of the arguments that can be sequences."""
    with suppress(ValueError):
        return measured(call.arguments, call.named, None)
    return list(call.layouts)


def _table(name: str, rule: Any, shape: tuple[int, int, int]) -> Tensor:
    """Write out what is allowed for one input, (batch, output, input)."""
    batch, outputs, inputs = shape
    wanted = f"allowed for {name} to be a Mask or a bool tensor of shape ({batch} or 1, {outputs}, {inputs})"
    if isinstance(rule, Mask):
        try:
            return rule.dense(outputs, inputs, batch=batch, device="cpu").any(1).expand(shape).clone()
        except (ValueError, RuntimeError) as error:
            wanted = f"allowed for {name} to hold {batch} samples of {outputs} outputs and {inputs} inputs"
            cause = "a mask made from other inputs, or an output that is pooled, shortened or the last one only"
            raise value_error(wanted, f"{rule!r}", cause) from error
    if not isinstance(rule, Tensor) or rule.dtype != torch.bool:
        raise type_error(wanted, kind_of(rule), not_a_mask_cause(rule))
    if rule.dim() != 3 or rule.shape[0] not in (1, batch) or rule.shape[1:] != shape[1:]:
        cause = "reach(...) at another length, or an output that is pooled or shortened"
        raise value_error(wanted, kind_of(rule), cause if rule.dim() == 3 else not_a_mask_cause(rule))
    return rule.detach().cpu().expand(shape).clone()
