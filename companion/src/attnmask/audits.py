"""Does a model obey its mask? `audit` tries every forbidden pair, `assert_allowed` says it in one line of a test."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attnmask._check import count, value_error
from attnmask._examine import Way, way_label
from attnmask._scene import Allowed, Pairs, Plan, Scene, set_mode
from attnmask._trial import bar, in_brief
from attnmask._watch import AsItWas
from attnmask.masks import causal

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
        Each forbidden pair that is reached, with what saw it and where it first shows;
        first those of the modules that finish first. Of other lengths than the one given,
        only those of another kind or module.
    suspects
        Differences that could not be told from rounding, from chance or from a mask that the
        model makes of its inputs; they leave ``ok`` True.
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

    Examples
    --------
    >>> report = audit(lambda x: x.cumsum(1), torch.randn(2, 3, 4))
    >>> report.ok, report.found["inputs"][0].int().tolist()
    (True, [[1, 0, 0], [1, 1, 0], [1, 1, 1]])
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
        length = next(iter(self.allowed.values())).shape[2]
        for title, found in (("leak", self.leaks), ("NaN", self.nan), ("suspect", self.suspects)):
            first = {str(each): each for each in reversed(found)}  # of leaks that read alike, the first
            groups: dict[str, list[str]] = {}
            for text in dict.fromkeys(map(str, found)):
                groups.setdefault(_seen(first[text], length), []).append(text)
            by = f", by {max(each.size for each in found):.0e} at most" if found and found is self.suspects else ""
            lines += [f"{len(first)} {title}{'s' * (len(first) > 1)}{by}:"] * bool(found)
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


def _seen(leak: Leak, length: int) -> str:
    """Say what saw a leak, where it is not within the first sample, and at which length if that is told apart."""
    modes: dict[str, list[str]] = {}
    for label in leak.seen:
        probe, mode = label.split(": ", 1)
        modes.setdefault(probe, []).append(mode)
    text = ", ".join(f"{probe} ({'; '.join(each)})" for probe, each in modes.items())
    text += f", at length {leak.length}" * (leak.length != length)
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
    report = audit(model, inputs, allowed, **options, until_leak=True)
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
    until_leak: bool = False,
) -> Audit:
    """Try to find an output of a model that depends on an input which its mask forbids.

    In each mode, with and without gradients recorded, the forbidden inputs are changed:
    one position after the other, and all that an output may not see at once, to small,
    large, huge, equal and swapped values; the other samples; in eval, the call before. No
    bit of the output may move. Gradients show what is too small for that. What moves by no
    gradient is tried again in float64, so that rounding is not taken for a leak. Judged are
    the first fitting tensor of the output, and others of its axes that have a name.

    Parameters
    ----------
    model
        As for `influence`: any module or function.
    inputs
        As for `influence`, or a function of a length that gives them.
    allowed
        What each output may finally depend on: a `Mask`, a bool tensor
        (batch or 1, output, input) as `reach` gives it, or one for each input by name;
        default ``causal()``. Or a function of the inputs that gives one of these: the way to
        say it where the model itself makes its mask from its inputs, as from ``ids != 0``,
        since changed inputs then change the mask.
    same_sequence
        Which input is the sequence of the output: there, a position may always depend on
        itself, and where no position may look, it is padding, whose output is not judged.
        True = the only input, or the one whose name speaks of a decoder, target or query;
        a name = that one; False = none, as where labels come in and are shifted inside.
    modes
        ``"eval"``, ``"train"`` or both; all modules are switched, those kept in eval too.
    lengths
        Which lengths to try. By default that of ``inputs`` (8 where it is a function),
        half of it, and one more than twice, where the inputs can be cut and repeated: a
        lone tensor under a mask that holds no length, and the longer one on a CPU only.
    position_axis, memory
        As for `influence`.
    until_leak
        Whether to end after the first mode that shows a leak.

    Returns
    -------
    Audit
        ``.ok``, ``.leaks`` and more; print it. Modules, inputs and random state are left bit
        for bit as they were, also after an error; objects of other classes are not looked into.

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
    >>> print(report.ok, "-", report.leaks[0])
    False - output 0 depends on input 1, which is in its future; first seen in Encoder.layers.1.attention.part.W_O
    """
    asked = [modes] if isinstance(modes, str) else list(modes) if isinstance(modes, Iterable) else [modes]
    if not asked or not all(mode in ("eval", "train") for mode in asked):
        raise value_error('modes among "eval" and "train"', f"{asked}", "a spelling slip")
    lengths = [lengths] if isinstance(lengths, int) else lengths
    sizes = None if lengths is None else [count("a length", each) for each in lengths]
    maker = inputs if callable(inputs) else None
    notes: dict[str, None] = {}
    failed: dict[str, Exception] = {}
    starts: dict[str, AsItWas] = {}
    with torch.inference_mode(False), AsItWas(model) as kept:
        rule = causal() if allowed is None else allowed
        plan = Plan(model, rule, same_sequence, position_axis, memory, kept)
        first, alone = plan.first(maker((sizes or [8])[0]) if maker else inputs, asked)
        scenes = [first, *([alone] if alone else []), *plan.others(first, maker, sizes, notes)]
        ways = [(mode, grad) for mode in (asked if kept.modules else ["as it is"]) for grad in (False, True)]
        steps = [(scene, way) for scene in scenes for way in ways if scene is first or way in (ways[0], ways[-1])]
        for scene, (mode, grad) in bar(steps, "audit"):
            if way_label(mode, grad) in failed:
                continue
            set_mode(model, kept, mode)
            if mode not in starts:
                starts[mode] = AsItWas.of(model, kept.modules)
            try:
                way = Way(scene, scene.trial, mode, grad, starts[mode])
            except Exception as error:  # whatever a model raises
                notes[f"{way_label(mode, grad)}{scene.place} ({in_brief(error)})"] = None
                if scene is first:
                    failed[way_label(mode, grad)] = error
                continue
            way.examine(thorough=scene is first, notes=notes)
            if until_leak and scene.failed:
                notes["anything after the first leak"] = None
                break
    if not first.ways:
        raise next(iter(failed.values()))
    return _report(scenes, notes)


# ---- what is said -----------------------------------------------------------------


def _report(scenes: Sequence[Scene], notes: Iterable[str]) -> Audit:
    first = scenes[0]
    leaks: dict[tuple[Any, ...], Leak] = {}
    suspects: dict[tuple[Any, ...], Leak] = {}
    nan: dict[tuple[Any, ...], Leak] = {}
    for scene in scenes:
        for name in scene.allowed:
            for found, pairs in ((leaks, scene.leaks), (suspects, scene.suspects), (nan, scene.nan)):
                for leak in _leaks(scene, name, pairs[name]):
                    found.setdefault((*leak[:5], leak.length), leak)
        for (sample, output), (label, size, module) in scene.calls.items():
            leak = Leak(output, None, "", sample, sample, "", module, (label,), size, scene.length)
            leaks.setdefault((*leak[:5], leak.length), leak)
        for (sample, output), label in scene.nan_at_once.items():
            seen = (f"running it: {label}",)
            leak = Leak(output, None, "", sample, sample, "", "", seen, math.nan, scene.length)
            nan.setdefault((*leak[:5], leak.length), leak)
    ordered = sorted(
        leaks.values(),
        key=lambda each: (each.length != first.length, first.order.get(each.module, len(first.order))),
    )
    kinds = {(each.of, each.because, each.module) for each in ordered if each.length == first.length}
    told = [
        each for each in ordered if each.length == first.length or (each.of, each.because, each.module) not in kinds
    ]
    missing = []
    for name, allowed in first.allowed.items():
        for sample, output, place in (allowed & ~first.reached[name] & first.judged[..., None]).nonzero().tolist():
            missing.append(
                Leak(output, place, name if len(first.allowed) > 1 else "", sample, sample, length=first.length)
            )
    ways = dict.fromkeys(way for scene in scenes for way in scene.ways)
    lengths = [str(length) for length in dict.fromkeys(scene.length for scene in scenes if scene.ways)]
    count = len(first.judged)
    tried = [f"{sum(len(runs) for runs in {id(scene.runs): scene.runs for scene in scenes}.values())} runs", *ways]
    tried += [f"length{'s' * (len(lengths) > 1)} {', '.join(lengths)}", f"{count} sample{'s' * (count > 1)}"]
    return Audit(
        leaks=tuple(told),
        suspects=tuple(suspects.values()),
        nan=tuple(nan.values()),
        missing=tuple(missing),
        allowed=first.allowed,
        found={name: first.reached[name] | _own_sample(first.leaks[name]) for name in first.allowed},
        judged=first.judged,
        tried=tuple(tried),
        not_tried=tuple(notes),
    )


def _own_sample(pairs: Pairs) -> Tensor:
    return (pairs.size > 0).diagonal(dim1=0, dim2=2).movedim(-1, 0)


def _leaks(scene: Scene, name: str, pairs: Pairs) -> Iterator[Leak]:
    """Put the pairs of one input into words."""
    for at in (pairs.size > 0).nonzero().tolist():
        sample, output, source, place = at
        seen = tuple(label for label, where in pairs.seen.items() if bool(where[tuple(at)]))
        allowed = scene.allowed[name][sample]
        square = allowed.shape[0] == allowed.shape[1]
        if source != sample:
            because = "which is in another sample of the batch"
        elif bool(scene.padded[name][sample, place]):
            because = "which is padding"
        elif square and place > output and not bool(allowed.triu(1).any()):
            because = "which is in its future"
        else:
            because = "which its mask blocks"
        of = name if len(scene.allowed) > 1 else ""
        module = scene.modules.get((name, *at), "")
        yield Leak(output, place, of, sample, source, because, module, seen, float(pairs.size[tuple(at)]), scene.length)
