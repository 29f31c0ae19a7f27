"""What is tried on a model: inputs of some lengths, which pairs are allowed there, and what was found."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attnmask._check import kind_of, not_a_mask_cause, type_error, value_error
from attnmask._trial import Trial, in_brief, measured, other_values
from attnmask._watch import AsItWas, Lookups, too_large
from attnmask.masks import Mask

Allowed = Mask | Tensor
_OWN = ("decoder", "target", "tgt", "query")  # how the output's own sequence is called where there are two


class Pairs:
    """Forbidden pairs that were reached, (batch, output, batch, input): how large the effect was, and what saw it."""

    def __init__(self, batch: int, outputs: int, inputs: int) -> None:
        self.size = torch.zeros(batch, outputs, batch, inputs, dtype=torch.float64)
        self.seen: dict[str, Tensor] = {}

    def add(self, pairs: Tensor, size: Tensor, label: str) -> None:
        """Note pairs with their sizes."""
        if bool(pairs.any()):
            self.seen[label] = self.seen.get(label, torch.zeros_like(pairs)) | pairs
            self.size = torch.where(pairs, torch.maximum(self.size, size), self.size)


@dataclass(eq=False)
class Scene:
    """Inputs of one length, which pairs are allowed there, and what was found."""

    trial: Trial
    allowed: dict[str, Tensor]  # (batch, output, input), a position's own included
    padded: dict[str, Tensor]  # (batch, input): where no output may look
    judged: Tensor  # (batch, output)
    own: str | None
    vocabularies: dict[str, int]
    compared: set[str]
    samples: int  # how many of them were given, others added
    again: Callable[[Trial], dict[str, Tensor]] | None = None  # what is allowed for other inputs, where that depends
    place: str = ""  # what tells these inputs from those as given, in words
    leaks: dict[str, Pairs] = field(default_factory=dict)
    suspects: dict[str, Pairs] = field(default_factory=dict)
    reached: dict[str, Tensor] = field(default_factory=dict)  # (batch, output, input)
    modules: dict[tuple[str, int, int, int, int], str] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)  # in which modules finish
    calls: dict[tuple[int, int], tuple[str, float, str]] = field(default_factory=dict)  # (sample, output)
    nan: dict[str, Pairs] = field(default_factory=dict)
    nan_at_once: dict[tuple[int, int], str] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    ways: dict[str, None] = field(default_factory=dict)  # what was tried to the end

    def __post_init__(self) -> None:
        for name, table in self.allowed.items():
            for kind in (self.leaks, self.suspects, self.nan):
                kind.setdefault(name, Pairs(*table.shape))
            self.reached.setdefault(name, torch.zeros_like(table))

    @property
    def length(self) -> int:
        """How many inputs there are, of the first that is judged."""
        return next(iter(self.allowed.values())).shape[2]

    @property
    def failed(self) -> bool:
        """Whether there is a leak, or a NaN."""
        found = [*self.leaks.values(), *self.nan.values()]
        return bool(self.calls or self.nan_at_once or any(bool(each.size.any()) for each in found))

    def forbidden(self, name: str) -> Tensor:
        """Return the pairs that may not be, (batch, output, batch, input): other samples always."""
        same = torch.eye(len(self.judged), dtype=torch.bool)[:, None, :, None]
        return self.judged[:, :, None, None] & ~(self.allowed[name][:, :, None] & same)

    def quiet(self, name: str, cells: Tensor) -> Tensor:
        """Return the judged outputs that may depend on none of these inputs, (batch, output)."""
        return self.judged & ~(self.allowed[name] & cells[:, None]).any(-1)

    def values(self, name: str, seed: int = 0) -> list[Tensor]:
        """Return other values for one of the inputs."""
        return other_values(name, self.trial.arguments[name], self.vocabularies.get(name), seed)


# ---- from what was asked ----------------------------------------------------------


class Plan(NamedTuple):
    """What `audit` was asked, from which the scenes are made."""

    model: Callable[..., Any]
    allowed: Any
    same_sequence: bool | str
    position_axis: int | Mapping[str, int]
    memory: int
    kept: AsItWas

    def first(self, inputs: Any, modes: list[str]) -> tuple[Scene, Scene | None]:
        """Make the scene of the inputs as given, and if it is a lone sample that can have company, that without."""
        trial = self._trial(inputs)
        for mode in modes:
            set_mode(self.model, self.kept, mode)
            with suppress(Exception) if mode != modes[-1] else nullcontext():
                output_len, lookups = _watched(trial, self.kept)
                break
        scene = self._scene(trial, output_len, lookups.sizes, lookups.compared | lookups.lost)
        if len(trial.arguments) > 1 or len(scene.judged) > 1:
            return scene, None
        (name,) = scene.allowed
        together = torch.cat([trial.arguments[name], scene.values(name, 1)[0]], trial.layouts[name].batch or 0)
        with suppress(Exception):
            wider = _given(trial, name, together)
            if _watched(wider, self.kept)[0] == output_len:
                both = self._scene(wider, output_len, scene.vocabularies, scene.compared)
                return replace(both, samples=1), scene
        return scene, None

    def others(
        self, first: Scene, maker: Callable[[int], Any] | None, lengths: list[int] | None, notes: dict[str, None]
    ) -> Iterator[Scene]:
        """Make scenes of other tokens, and of other lengths."""
        trial, outputs = first.trial, first.judged.shape[1]
        if len(first.judged) == 1:
            notes["other samples in a batch (one sample was given, and no other could be added)"] = None
        left_out = [name for name in self._measured(trial) if name not in first.allowed]
        if left_out:
            notes[f"what depends on {', '.join(left_out)} (allowed says nothing about it)"] = None
        for name in first.allowed:
            trial = _given(trial, name, _redrawn(first, name))
        redrawn = self._scene(trial, outputs, first.vocabularies, first.compared)
        alike = all(torch.equal(table, first.allowed[name]) for name, table in redrawn.allowed.items())
        # Where the masks are alike, what is found goes to the same place.
        yield replace(first if alike else redrawn, trial=trial, place=", with other values")
        if maker is None and len(first.trial.arguments) > 1:
            notes["other lengths (inputs can be a function of length)"] = None
            return
        for length in [max(1, first.length // 2), 2 * first.length + 1] if lengths is None else lengths:
            if length == first.length:
                continue
            try:
                inputs = maker(length) if maker else _stretched(first.trial, length, by_default=lengths is None)
                trial = self._trial(inputs)
                scene = self._scene(trial, _watched(trial, self.kept)[0], first.vocabularies, first.compared)
                yield replace(scene, place=f", at length {length}")
            except Exception as error:  # whatever a model raises
                notes[f"length {length} ({in_brief(error)})"] = None

    def _asked(self, inputs: Any) -> Any:
        """Return what is allowed for these inputs."""
        if not callable(self.allowed) or isinstance(self.allowed, Mask):
            return self.allowed
        with suppress(ValueError):  # functions written in C have no signature
            try:
                inspect.signature(self.allowed).bind(inputs)
            except TypeError as error:
                wanted = "allowed to be a Mask, a bool tensor, one of them by name, or a function of the inputs"
                raise type_error(wanted, kind_of(self.allowed), not_a_mask_cause(self.allowed)) from error
        return self.allowed(inputs)

    def _trial(self, inputs: Any) -> Trial:
        """Put a model's arguments together, those to be changed by their names."""
        allowed = self._asked(inputs)
        names = list(allowed) if isinstance(allowed, Mapping) else None
        there = list(inputs) if isinstance(inputs, Mapping) else []
        if names is not None and not (names and set(names) <= set(there)):
            cause = "a spelling slip, or names for a lone tensor, which has none"
            raise value_error(f"allowed for some of the inputs {there}", f"{names}", cause)
        trial = Trial.of(self.model, inputs, names, self.position_axis, self.memory)
        if names is None and len(trial.layouts) > 1:
            wanted = f"allowed for each input by name, as the model takes {list(trial.layouts)}"
            cause = "one mask meant for one of them: allowed={name: mask}"
            raise value_error(wanted, kind_of(allowed), cause)
        return trial

    def _measured(self, trial: Trial) -> list[str]:
        """Return the names of the arguments that can be sequences."""
        with suppress(ValueError):
            return measured(trial.arguments, trial.named, None)
        return list(trial.layouts)

    def _own(self, trial: Trial, tables: dict[str, Tensor]) -> str | None:
        """Return the name of the input that is the sequence of the output."""
        names = self._measured(trial)
        if isinstance(self.same_sequence, str):
            if self.same_sequence not in trial.arguments:
                raise value_error(f"same_sequence among {list(trial.arguments)}", self.same_sequence, "a spelling slip")
            return self.same_sequence
        if not isinstance(self.same_sequence, bool):
            cause = "a name, True or False was meant"
            raise type_error("same_sequence to be a name or a bool", kind_of(self.same_sequence), cause)
        named_so = [name for name in names if any(part in name for part in _OWN)]
        if not self.same_sequence or len(names) == 1 or named_so:
            return [*named_so, *names][0] if self.same_sequence else None
        square = {name: table for name, table in tables.items() if table.shape[1] == table.shape[2]}
        if not all(bool(table.diagonal(dim1=1, dim2=2).all()) for table in square.values()):
            cause = "names that do not speak of a decoder, target or query; name the one, or write same_sequence=False"
            raise value_error("same_sequence to name the input that the output belongs to", f"one of {names}", cause)
        return next(iter(square), None)

    def _scene(self, trial: Trial, output_len: int, vocabularies: dict[str, int], compared: set[str]) -> Scene:
        """Write the masks out at these lengths."""
        allowed = self._tables(trial, output_len)
        own = self._own(trial, allowed)
        # Where all outputs may look at the same places, the others are padding.
        padded = {name: ~table[:, 0] & (table == table[:, :1]).all(1).all(1, True) for name, table in allowed.items()}
        judged = torch.ones(len(next(iter(allowed.values()))), output_len, dtype=torch.bool)
        if own in allowed and allowed[own].shape[1] == allowed[own].shape[2]:
            # In the output's own sequence, what nobody may see is padding, unless no position may see itself.
            padded[own] = ~allowed[own].any(1) & allowed[own].diagonal(dim1=1, dim2=2).any(-1, keepdim=True)
            judged = ~padded[own]
        elif own in allowed and isinstance(rule := self._asked(trial.inputs), Mask) and rule.query_len is None:
            wanted, lengths = f"as many outputs as inputs under {rule!r}", allowed[own].shape
            cause = "an output that is pooled, shortened or the last one only; give allowed as a bool tensor"
            raise value_error(wanted, f"{lengths[1]} for {lengths[2]}", cause)
        tables = {name: self._and_itself(table, name == own) for name, table in allowed.items()}
        if not any(bool(table.any()) for table in allowed.values()):
            cause = "a mask that lets no query look at any key"
            raise value_error("an output to judge", f"{self._asked(trial.inputs)!r}", cause)

        def again(changed: Trial) -> dict[str, Tensor]:
            found = self._tables(changed, output_len)
            return {name: self._and_itself(table, name == own) for name, table in found.items()}

        depends = again if callable(self.allowed) and not isinstance(self.allowed, Mask) else None
        return Scene(trial, tables, padded, judged, own, vocabularies, compared, len(judged), depends)

    def _tables(self, trial: Trial, output_len: int) -> dict[str, Tensor]:
        allowed = self._asked(trial.inputs)
        rules = allowed if isinstance(allowed, Mapping) else dict.fromkeys(trial.layouts, allowed)
        tables = {}
        for name, rule in rules.items():
            batch, input_len = trial.front(name).shape[:2]
            if (size := 32 * (batch * output_len) * (batch * input_len)) > trial.memory:
                raise too_large(f"tables of {size:,} bytes", trial.memory)
            tables[name] = _table(name, rule, (batch, output_len, input_len))
        return tables

    @staticmethod
    def _and_itself(table: Tensor, same: bool) -> Tensor:
        """Let each position see itself, where outputs and inputs are one sequence."""
        if not same or table.shape[1] != table.shape[2]:
            return table
        return table | torch.eye(table.shape[1], dtype=torch.bool)


def _table(name: str, rule: Any, shape: tuple[int, int, int]) -> Tensor:
    """Write out what is allowed, (batch, output, input)."""
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


def _watched(trial: Trial, kept: AsItWas) -> tuple[int, Lookups]:
    """Run twice: to see where token ids go, and how long the output is."""
    start = AsItWas.of(trial.model, kept.modules)
    lookups = trial.watched(start)
    with start, torch.no_grad():
        return trial.run({}).shape[1], lookups


def _given(trial: Trial, name: str, values: Tensor) -> Trial:
    return trial._replace(arguments=trial.arguments | {name: values})


def _redrawn(scene: Scene, name: str) -> Tensor:
    """Return new values everywhere but in the padding; floats are large in every other sample."""
    values, old = scene.values(name, 7)[0], scene.trial.front(name)
    front, padded = scene.trial.front(name, values), scene.padded[name].to(values.device)
    if values.is_floating_point():
        front[::2] *= 30
    else:
        padded = padded | torch.isin(front, old[padded])  # a new token that looks like padding might become one
    front[padded] = old[padded]
    return values


def _stretched(trial: Trial, length: int, by_default: bool) -> Any:
    """Cut or repeat a lone argument."""
    ((name, values),) = trial.arguments.items()
    axis = trial.layouts[name].position
    if by_default and values.device.type != "cpu" and length > values.shape[axis]:
        raise value_error("a CPU", f"{values.device.type}", "positions beyond a table end the process there")
    places = torch.arange(length, device=values.device) % values.shape[axis]
    stretched = values.index_select(axis, places)
    return {name: stretched} if trial.named else stretched


def set_mode(model: Callable[..., Any], kept: AsItWas, mode: str) -> None:
    for module in [model] if isinstance(model, nn.Module) else list(kept.modules):
        module.train(mode == "train")
