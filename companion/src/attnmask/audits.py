"""Does a model obey its mask? `audit` tries every forbidden pair, `assert_allowed` says it in one line of a test."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attnmask._check import count, describe, not_a_mask_cause, type_error, value_error
from attnmask._examine import Pairs, Scene, Way, in_brief, way_label
from attnmask._trial import Trial, bar, measured
from attnmask._watch import AsItWas, Lookups, copy_of, too_large
from attnmask.masks import Mask, causal

Allowed = Mask | Tensor
_OWN = ("decoder", "target", "tgt", "query")  # how the output's own sequence is called where there are two
_WITH_GRADIENTS = {way_label(mode, True) for mode in ("eval", "train")}
_SHOWN = 5


class Leak(NamedTuple):
    """One output that depends on an input that it may not depend on.

    Attributes
    ----------
    output, input
        Positions; ``input`` is None where it is the call before that shows.
    of
        The name of the input where several are judged, else "".
    sample, from_sample
        The samples that hold them; they differ where samples of a batch mix.
    because
        Why the pair is forbidden, as a half-sentence.
    module
        The first module to finish whose output shows it; "" where none does.
    seen
        What saw it: a probe and the modes it ran in.
    size
        The largest change of the output, or the gradient as a share of the largest one;
        infinite where the output turns NaN, and NaN where it is so from the start.
    length
        How many inputs there were.

    Examples
    --------
    >>> print(Leak(1, 3, because="which is in its future", module="layers.0"))
    output 1 depends on input 3, which is in its future; first seen in layers.0
    """

    output: int
    input: int | None
    of: str = ""
    sample: int = 0
    from_sample: int = 0
    because: str = ""
    module: str = ""
    seen: tuple[str, ...] = ()
    size: float = 0.0
    length: int = 0

    def __str__(self) -> str:
        if math.isnan(self.size):
            return f"output {self.output} is NaN"
        source = "the call before" if self.input is None else f"input {self.input}"
        source += f" of {self.of}" if self.of else ""
        text = f"output {self.output} {'turns NaN with' if math.isinf(self.size) else 'depends on'} {source}"
        for part, sign in ((self.because, ", "), (self.module and f"first seen in {self.module}", "; ")):
            text += sign + part if part else ""
        return text


@dataclass(frozen=True)
class Audit:
    """What `audit` found. Its ``str`` says it in words.

    Attributes
    ----------
    ok
        True = no leak, and no number turned into NaN.
    leaks
        Each forbidden pair that is reached, with what saw it and where it first shows. Of
        other lengths than the one given, only those of another kind or module.
    suspects
        Differences that could not be told from rounding or chance; they leave ``ok`` True.
    nan
        Outputs that are NaN, or turn NaN when a forbidden input changes.
    missing
        Allowed pairs that nothing reached, as `Leak` without a reason; they leave ``ok`` True.
    allowed, found
        By input: what each output may depend on, and what it does depend on;
        Bool[Tensor, "batch output input"], at the length given.
    judged
        Which outputs were judged, at the length given; Bool[Tensor, "batch output"].
    tried, not_tried
        Sentences on what the answer rests on, and on what it does not.
    """

    leaks: tuple[Leak, ...]
    suspects: tuple[Leak, ...]
    nan: tuple[Leak, ...]
    missing: tuple[Leak, ...]
    allowed: Mapping[str, Tensor]
    found: Mapping[str, Tensor]
    judged: Tensor
    tried: tuple[str, ...]
    not_tried: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the model obeys its mask, as far as was tried."""
        return not (self.leaks or self.nan)

    def __str__(self) -> str:
        verdict = "The model obeys its mask" if self.ok else "The model does not obey its mask"
        lines = [f"{verdict}, as far as was tried."]
        for title, found in (("leak", self.leaks), ("NaN", self.nan), ("suspect", self.suspects)):
            first = {str(each): each for each in reversed(found)}  # of leaks that read alike, the first
            groups: dict[str, list[str]] = {}
            for text in dict.fromkeys(map(str, found)):
                groups.setdefault(_seen(first[text]), []).append(text)
            lines += [f"{len(first)} {title}{'s' * (len(first) > 1)}:"] * bool(found)
            for seen, texts in list(groups.items())[:_SHOWN]:
                lines += [f"  {text}" for text in texts[:_SHOWN]]
                lines += [f"  … and {len(texts) - _SHOWN} more"] * (len(texts) > _SHOWN)
                lines += [f"    seen by {seen}"]
            lines += ["  …"] * (len(groups) > _SHOWN)
        pairs = dict.fromkeys(f"{each.output} ← {each.input}" for each in self.missing)
        shown = ", ".join(list(pairs)[:_SHOWN]) + ", …" * (len(pairs) > _SHOWN)
        lines += [f"Allowed, but nothing reached them (output ← input): {shown}."] * bool(pairs)
        for title, parts in (("Tried", self.tried), ("Not tried", self.not_tried)):
            lines += [f"{title}: {'; '.join(parts)}."] * bool(parts)
        return "\n".join(lines)


def _seen(leak: Leak) -> str:
    """Say what saw a leak, where it is not within the first sample, and at which length if that is told apart."""
    modes: dict[str, list[str]] = {}
    for label in leak.seen:
        probe, mode = label.split(": ", 1)
        modes.setdefault(probe, []).append(mode)
    text = ", ".join(f"{probe} ({'; '.join(each)})" for probe, each in modes.items())
    if leak.sample != leak.from_sample:
        return f"{text}, in sample {leak.sample} from sample {leak.from_sample}"
    return text + f", in sample {leak.sample}" * (leak.sample > 0)


def assert_allowed(
    model: Callable[..., Any],
    inputs: Tensor | Mapping[str, Any] | Callable[[int], Any],
    allowed: Allowed | Mapping[str, Allowed] | Callable[[Any], Any] | None = None,
    **options: Any,
) -> None:
    """Raise AssertionError, saying which output depends on which input, unless a model obeys its mask.

    Parameters
    ----------
    model, inputs, allowed, options
        As for `audit`, which this is, ended at the first mode that shows a leak.
        Suspects become a warning.

    Raises
    ------
    AssertionError
        The model leaks, or gives NaN.
    ValueError, TypeError
        As `audit` raises them.

    Examples
    --------
    >>> from attnmask.layers import Encoder
    >>> encoder = Encoder(layers=1, d_model=8)
    >>> assert_allowed(lambda x: encoder(x, causal()), torch.randn(1, 4, 8), allowed=causal())
    """
    __tracebackhide__ = True  # pytest shows the test that failed, not this function
    report = _audit(model, inputs, allowed, **options, until_leak=True)
    if not report.ok:
        raise AssertionError(str(report))
    if report.suspects:
        warnings.warn(str(report), stacklevel=2)


def audit(
    model: Callable[..., Any],
    inputs: Tensor | Mapping[str, Any] | Callable[[int], Any],
    allowed: Allowed | Mapping[str, Allowed] | Callable[[Any], Any] | None = None,
    *,
    same_sequence: bool | str = True,
    modes: Iterable[str] = ("eval", "train"),
    lengths: Iterable[int] | None = None,
    position_axis: int | Mapping[str, int] = 1,
    memory: int = 2**31,
) -> Audit:
    """Try to find an output of a model that depends on an input which its mask forbids.

    In each mode, with and without gradients recorded, the forbidden inputs are changed:
    one position after the other, and all that an output may not see at once, to small,
    large, huge, equal and swapped values; the other samples; the call before. No bit of
    the output may move. Gradients show what is too small for that. What moves by no
    gradient is tried again in float64, so that rounding is not taken for a leak.

    Parameters
    ----------
    model
        As for `influence`: any module or function.
    inputs
        As for `influence`, or a function of a length that gives them.
    allowed
        What each output may finally depend on: a `Mask`, a bool tensor
        (batch or 1, output, input) as `reach` gives it, or one for each input by name;
        default ``causal()``. Or a function of the inputs that gives one of these.
    same_sequence
        Which input is the sequence of the output: there, a position may always depend on
        itself, and where no position may look, it is padding, whose output is not judged.
        True = the only input, or the one whose name speaks of a decoder, target or query;
        a name = that one; False = none, as where labels come in and are shifted inside.
    modes
        ``"eval"``, ``"train"`` or both.
    lengths
        Which lengths to try. By default that of ``inputs`` (8 where it is a function),
        half of it, and one more than twice, where the inputs can be cut and repeated: a
        lone tensor under a mask that holds no length, and the longer one on a CPU only.
    position_axis, memory
        As for `influence`.

    Returns
    -------
    Audit
        ``.ok``, ``.leaks`` and more; print it. The model is left bit for bit as it was.

    Raises
    ------
    ValueError, TypeError
        As `influence` does. Besides: ``allowed`` of another shape, of another length than
        the output, or for an input that does not exist; a model whose runs differ
        though nothing was changed.

    Examples
    --------
    >>> from attnmask.layers import Encoder
    >>> encoder = Encoder(layers=2, d_model=8)
    >>> report = audit(lambda x: encoder(x, [causal(), None]), torch.randn(1, 4, 8))
    >>> print(report.ok, report.leaks[0])
    False output 0 depends on input 1, which is in its future; first seen in Encoder.layers.1.attention.out
    """
    return _audit(
        model,
        inputs,
        allowed,
        same_sequence=same_sequence,
        modes=modes,
        lengths=lengths,
        position_axis=position_axis,
        memory=memory,
    )


def _audit(
    model: Callable[..., Any],
    inputs: Any,
    allowed: Any,
    *,
    same_sequence: bool | str = True,
    modes: Iterable[str] = ("eval", "train"),
    lengths: Iterable[int] | None = None,
    position_axis: int | Mapping[str, int] = 1,
    memory: int = 2**31,
    until_leak: bool = False,
) -> Audit:
    asked = [modes] if isinstance(modes, str) else list(modes)
    if not asked or not set(asked) <= {"eval", "train"}:
        raise value_error('modes among "eval" and "train"', f"{asked}", "a spelling slip")
    sizes = None if lengths is None else [count("a length", each) for each in lengths]
    maker = inputs if callable(inputs) else None
    notes: dict[str, None] = {}
    errors: list[Exception] = []
    starts: dict[str, AsItWas] = {}
    with torch.inference_mode(False), AsItWas(model) as kept:
        rule = causal() if allowed is None else allowed
        plan = _Plan(model, rule, same_sequence, position_axis, memory, AsItWas(model))
        first = plan.first(maker((sizes or [8])[0]) if maker else inputs, kept, asked)
        scenes = [first, *plan.others(first, maker, sizes, notes)]
        ways = [(mode, grad) for mode in asked for grad in (False, True)][: None if kept.modules else 2]
        steps = [(scene, way) for scene in scenes for way in ways if scene is first or way in (ways[0], ways[-1])]
        for scene, (mode, grad) in bar(steps, "audit"):
            _set_mode(model, kept, mode)
            if mode not in starts:
                starts[mode] = AsItWas.of(model, kept.modules)
            try:
                way = Way(scene, scene.trial, mode, grad, starts[mode])
            except Exception as error:  # whatever a model raises
                errors.append(error)
                notes[f"{way_label(mode, grad)} ({in_brief(error)})"] = None
                continue
            way.examine(thorough=scene is first, notes=notes)
            if until_leak and scene.failed:
                notes["anything after the first leak"] = None
                break
    if not first.runs:
        raise errors[0]
    return _report(scenes, notes)


# ---- what is run ------------------------------------------------------------------


class _Plan(NamedTuple):
    """What `audit` was asked, from which the scenes are made."""

    model: Callable[..., Any]
    allowed: Any
    same_sequence: bool | str
    position_axis: int | Mapping[str, int]
    memory: int
    start: AsItWas

    def first(self, inputs: Any, kept: AsItWas, modes: list[str]) -> Scene:
        """Make the scene of the inputs as given; a lone sample gets company where the model can take it."""
        trial, rules, own = self._prepared(inputs)
        for mode in modes:
            _set_mode(self.model, kept, mode)
            with suppress(Exception) if mode != modes[-1] else nullcontext():
                output_len, lookups = _watched(trial, self.start)
                break
        scene = self._scene(trial, rules, own, output_len, lookups.sizes, lookups.compared)
        if len(trial.arguments) == len(scene.judged) == 1:
            (name,) = rules
            together = torch.cat([trial.arguments[name], scene.values(name, 1)[0]], trial.layouts[name].batch or 0)
            wider = _given(trial, name, together)
            with suppress(Exception):
                if _watched(wider, self.start)[0] == output_len:
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
                yield self._scene(trial, rules, own, _watched(trial, self.start)[0], first.vocabularies, first.compared)
            except Exception as error:  # whatever a model raises
                notes[f"length {length} ({in_brief(error)})"] = None

    def _prepared(self, inputs: Any) -> tuple[Trial, dict[str, Allowed], str | None]:
        """Put a model's arguments together with what is allowed for each that is judged."""
        arguments = dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}
        allowed = self.allowed
        allowed = allowed(inputs) if callable(allowed) and not isinstance(allowed, Mask) else allowed
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


def _watched(trial: Trial, start: AsItWas) -> tuple[int, Lookups]:
    """Run twice: to see how long the output is, and where token ids go."""
    given = {name: copy_of(trial.arguments[name]) for name in trial.layouts}
    lookups = Lookups(given)
    with start, torch.no_grad():
        output_len = trial.run({}).shape[1]
    with start, torch.no_grad(), lookups if lookups.ids else nullcontext(), suppress(RuntimeError):
        trial.run(given)
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


def _set_mode(model: Callable[..., Any], kept: AsItWas, mode: str) -> None:
    for module in [model] if isinstance(model, nn.Module) else list(kept.modules):
        module.train(mode == "train")


# ---- what is said -----------------------------------------------------------------


def _report(scenes: Sequence[Scene], notes: Iterable[str]) -> Audit:
    first, _, *others = scenes
    labels = [label for scene in [first, *others] for label in scene.runs]
    lengths = [str(scene.length) for scene in [first, *others] if scene.runs]
    lines = [f"{len(labels)} runs with changed inputs"]
    lines += ["gradients"] * any(label in labels for label in _WITH_GRADIENTS) + [*dict.fromkeys(labels)]
    lines += [f"length{'s' * (len(lengths) > 1)} {', '.join(lengths)}"]
    lines += [f"{len(first.judged)} sample{'s' * (len(first.judged) > 1)}"]
    leaks: list[Leak] = []
    suspects: list[Leak] = []
    nan: list[Leak] = []
    for scene in [first, *others]:
        for name in scene.allowed:
            for found, pairs in ((leaks, scene.leaks), (suspects, scene.suspects), (nan, scene.nan)):
                found += _leaks(scene, name, pairs[name])
        for (sample, output), (label, size, module) in scene.calls.items():
            leaks.append(Leak(output, None, "", sample, sample, "", module, (label,), size, scene.length))
        for (sample, output), label in scene.nan_at_once.items():
            seen = (f"running it: {label}",)
            nan.append(Leak(output, None, "", sample, sample, "", "", seen, math.nan, scene.length))
    kinds = {(each.of, each.because, each.module) for each in leaks if each.length == first.length}
    leaks = [each for each in leaks if each.length == first.length or (each.of, each.because, each.module) not in kinds]
    missing = []
    for name, allowed in first.allowed.items():
        for sample, output, place in (allowed & ~first.reached[name] & first.judged[..., None]).nonzero().tolist():
            missing.append(
                Leak(output, place, name if len(first.allowed) > 1 else "", sample, sample, length=first.length)
            )
    return Audit(
        leaks=tuple(leaks),
        suspects=tuple(suspects),
        nan=tuple(nan),
        missing=tuple(missing),
        allowed=first.allowed,
        found={name: first.reached[name] | _own_sample(first.leaks[name]) for name in first.allowed},
        judged=first.judged,
        tried=tuple(lines),
        not_tried=tuple(notes),
    )


def _own_sample(pairs: Pairs) -> Tensor:
    return (pairs.size > 0).diagonal(dim1=0, dim2=2).movedim(-1, 0)


def _leaks(scene: Scene, name: str, pairs: Pairs) -> Iterator[Leak]:
    """Put the pairs of one input into words."""
    for at in (pairs.size > 0).nonzero().tolist():
        sample, output, source, place = at
        seen = tuple(label for label, where in pairs.seen.items() if bool(where[tuple(at)]))
        if source != sample:
            because = "which is in another sample of the batch"
        elif bool(scene.padded[name][sample, place]) and (name == scene.own or _for_keys_alone(scene.allowed[name])):
            because = "which is padding"
        elif name == scene.own and place > output:
            because = "which is in its future"
        else:
            because = "which its mask blocks"
        of = name if len(scene.allowed) > 1 else ""
        module = scene.modules.get((name, *at), "")
        yield Leak(output, place, of, sample, source, because, module, seen, float(pairs.size[tuple(at)]), scene.length)


def _for_keys_alone(allowed: Tensor) -> bool:
    return bool((allowed == allowed[:, :1]).all())
