"""What is tried on a model: inputs of some lengths, which pairs are allowed there, and what was found."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attnmask._check import describe, not_a_mask_cause, type_error, value_error
from attnmask._trial import Trial, in_brief, measured, other_values
from attnmask._watch import AsItWas, Lookups, copy_of, too_large
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
    leaks: dict[str, Pairs] = field(default_factory=dict)
    suspects: dict[str, Pairs] = field(default_factory=dict)
    reached: dict[str, Tensor] = field(default_factory=dict)  # (batch, output, input)
    modules: dict[tuple[str, int, int, int, int], str] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)  # in which modules finish
    calls: dict[tuple[int, int], tuple[str, float, str]] = field(default_factory=dict)  # (sample, output)
    nan: dict[str, Pairs] = field(default_factory=dict)
    nan_at_once: dict[tuple[int, int], str] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)

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

    def first(self, inputs: Any, modes: list[str]) -> Scene:
        """Make the scene of the inputs as given; a lone sample gets company where the model can take it."""
        trial, rules, own = self._prepared(inputs)
        for mode in modes:
            set_mode(self.model, self.kept, mode)
            with suppress(Exception) if mode != modes[-1] else nullcontext():
                output_len, lookups = _watched(trial, self.kept)
                break
        scene = self._scene(trial, rules, own, output_len, lookups.sizes, lookups.compared)
        if len(trial.arguments) == len(scene.judged) == 1:
            (name,) = rules
            together = torch.cat([trial.arguments[name], scene.values(name, 1)[0]], trial.layouts[name].batch or 0)
            wider = _given(trial, name, together)
            with suppress(Exception):
                if _watched(wider, self.kept)[0] == output_len:
                    return replace(
                        self._scene(wider, rules, own, output_len, lookups.sizes, lookups.compared), samples=1
                    )
        return scene

    def others(
        self, first: Scene, maker: Callable[[int], Any] | None, lengths: list[int] | None, notes: dict[str, None]
    ) -> Iterator[Scene]:
        """Make scenes of other tokens, and of other lengths."""
        trial = first.trial
        if len(first.judged) == 1:
            notes["other samples in a batch (one sample was given, and no other could be added)"] = None
        for name in first.allowed:
            trial = _given(trial, name, _redrawn(first, name))
        yield replace(first, trial=trial)  # what is found goes to the same place
        if maker is None and len(first.trial.arguments) > 1:
            notes["other lengths (inputs can be a function of length)"] = None
            return
        for length in [max(1, first.length // 2), 2 * first.length + 1] if lengths is None else lengths:
            if length == first.length:
                continue
            try:
                inputs = maker(length) if maker else _stretched(first.trial, length, by_default=lengths is None)
                trial, rules, own = self._prepared(inputs)
                yield self._scene(trial, rules, own, _watched(trial, self.kept)[0], first.vocabularies, first.compared)
            except Exception as error:  # whatever a model raises
                notes[f"length {length} ({in_brief(error)})"] = None

    def _prepared(self, inputs: Any) -> tuple[Trial, dict[str, Allowed], str | None]:
        """Put a model's arguments together with what is allowed for each that is judged."""
        arguments = dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}
        allowed = self.allowed
        if callable(allowed) and not isinstance(allowed, Mask):
            try:
                allowed = allowed(inputs)
            except TypeError as error:
                wanted = "allowed to be a Mask, a bool tensor, one of them by name, or a function of the inputs"
                raise type_error(wanted, describe(allowed), not_a_mask_cause(allowed)) from error
        names = list(allowed) if isinstance(allowed, Mapping) else None
        if names is not None and not (names and set(names) <= set(arguments) and isinstance(inputs, Mapping)):
            cause = "a spelling slip, or names for a lone tensor, which has none"
            raise value_error(f"allowed for some of the inputs {list(arguments)}", f"{names}", cause)
        trial = Trial.of(self.model, inputs, names, self.position_axis, self.memory)
        if names is None and len(trial.layouts) > 1:
            wanted = f"allowed for each input by name, as the model takes {list(trial.layouts)}"
            cause = "one mask meant for one of them: allowed={name: mask}"
            raise value_error(wanted, describe(allowed), cause)
        rules = allowed if isinstance(allowed, Mapping) else dict.fromkeys(trial.layouts, allowed)
        return trial, dict(rules), self._own(arguments, isinstance(inputs, Mapping), list(rules))

    def _own(self, arguments: dict[str, Any], named: bool, rules: list[str]) -> str | None:
        """Return the name of the input that is the sequence of the output."""
        if isinstance(self.same_sequence, str):
            if self.same_sequence not in arguments:
                raise value_error(f"same_sequence among {list(arguments)}", self.same_sequence, "a spelling slip")
            return self.same_sequence
        candidates = rules
        with suppress(ValueError):
            candidates = measured(arguments, named, None)
        named_so = [name for name in candidates if any(part in name for part in _OWN)]
        return [*named_so, *candidates][0] if self.same_sequence else None

    def _scene(
        self,
        trial: Trial,
        rules: dict[str, Allowed],
        own: str | None,
        output_len: int,
        vocabularies: dict[str, int],
        compared: set[str],
    ) -> Scene:
        """Write the masks out at these lengths."""
        allowed: dict[str, Tensor] = {}
        padded: dict[str, Tensor] = {}
        judged = None
        for name, rule in rules.items():
            batch, input_len = trial.front(name).shape[:2]
            if (size := 32 * (batch * output_len) * (batch * input_len)) > trial.memory:
                raise too_large(f"tables of {size:,} bytes", trial.memory)
            allowed[name] = _table(name, rule, (batch, output_len, input_len), same=name == own)
            padded[name] = ~allowed[name].any(1)
            if name == own and output_len == input_len:
                judged = ~padded[name]
                allowed[name] = allowed[name] | torch.eye(output_len, dtype=torch.bool)
        judged = torch.ones(batch, output_len, dtype=torch.bool) if judged is None else judged
        if not bool(judged.any()):
            raise value_error("an output to judge", f"{rules[name]!r}", "a mask that lets no query look at any key")
        return Scene(trial, allowed, padded, judged, own, vocabularies, compared, samples=len(judged))


def _table(name: str, rule: Any, shape: tuple[int, int, int], same: bool) -> Tensor:
    """Write out what is allowed, (batch, output, input)."""
    batch, outputs, inputs = shape
    wanted = f"allowed for {name} to be a Mask or a bool tensor of shape ({batch} or 1, {outputs}, {inputs})"
    if isinstance(rule, Mask):
        if same and outputs != inputs and rule.query_len is None:
            cause = "an output that is pooled, shortened or the last one only; give allowed as a bool tensor"
            raise value_error(f"as many outputs as inputs under {rule!r}", f"{outputs} for {inputs}", cause)
        try:
            dense = rule.dense(outputs, inputs, batch=batch, device="cpu")
        except ValueError as error:
            wanted = f"allowed for {name} to hold {batch} samples of {outputs} outputs and {inputs} inputs"
            cause = "a mask made from other inputs, or an output that is pooled, shortened or the last one only"
            raise value_error(wanted, f"{rule!r}", cause) from error
        return dense.any(1).expand(shape).clone()
    if not isinstance(rule, Tensor) or rule.dtype != torch.bool:
        raise type_error(wanted, describe(rule), not_a_mask_cause(rule))
    if rule.dim() != 3 or rule.shape[0] not in (1, batch) or rule.shape[1:] != shape[1:]:
        cause = "reach(...) at another length, or an output that is pooled or shortened"
        raise value_error(wanted, describe(rule), cause if rule.dim() == 3 else not_a_mask_cause(rule))
    return rule.detach().cpu().expand(shape).clone()


def _watched(trial: Trial, kept: AsItWas) -> tuple[int, Lookups]:
    """Run twice: to see where token ids go, and how long the output is."""
    given = {name: copy_of(trial.arguments[name]) for name in trial.layouts}
    lookups, start = Lookups(given), AsItWas.of(trial.model, kept.modules)
    with start, torch.no_grad(), lookups if lookups.ids else nullcontext(), suppress(RuntimeError):
        trial.run(given)
    with start, torch.no_grad():  # watching shuts PyTorch's fast paths
        output_len = trial.run({}).shape[1]
    return output_len, lookups


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
