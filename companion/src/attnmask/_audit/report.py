"""What is said? All sentences of an audit are made here, from fields."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attnmask._audit.findings import Findings, PairSizes
from attnmask._audit.fitting import fitting_rule, what_is_missed
from attnmask._audit.records import Case, Doubt, Evidence, NotTried, Probe, Tried, Untried

_SHOWN = 5


class Seen(NamedTuple):
    """What saw a leak: a probe, and the mode that it ran in.

    >>> str(Seen("gradient", "eval"))
    'gradient: eval'
    """

    probe: str
    mode: str

    def __str__(self) -> str:
        return f"{self.probe}: {self.mode}"


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
        What saw it, as pairs of a probe and the mode it ran in.
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
    seen: tuple[Seen, ...] = ()
    size: float = 0.0
    length: int = 0

    def __str__(self) -> str:
        if math.isnan(self.size):
            return f"output {self.output} is NaN" + (f"; first seen in {self.module}" if self.module else "")
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
        first those of the modules that finish first. Of other lengths and batches than
        those given, only those of another kind or module.
    suspects
        Differences that could not be told from rounding, from chance or from a mask that the
        model makes of its inputs; they leave ``ok`` True.
    nan
        Outputs that are NaN, or turn NaN when a forbidden input changes.
    missing
        Allowed pairs that nothing reached, as `Leak` without a reason. They leave ``ok`` True,
        unless ``exact``: then each was looked for by many changes, in each mode and length.
    runs
        How often the model ran.
    exact
        Whether all that is allowed has to be reached.
    hint
        Of ``missing``, in words: what each output misses, which rule would fit, which modules hide it.
    allowed, found
        By input: what each output may depend on, and what it does depend on;
        Bool[Tensor, "batch output input"], at the length given.
    judged
        Which outputs were judged, at the length given; Bool[Tensor, "batch output"].
    tried, not_tried
        Sentences on what the answer rests on, and on what it does not.
    layers
        By name: what was found on modules that were asked by themselves; ``ok`` needs all of them.
    subject
        What was asked: ``"model"``, or ``"layer"`` in ``layers``.
    unused
        Mask arguments whose change moved no output; they leave ``ok`` True.
    unchanged
        Inputs of which no change ran to its end in any mode; ``ok`` is False.
    ended
        Whether it ended at the first leak, so that what is missing was not looked for to the end.

    Examples
    --------
    >>> import torch
    >>> from attnmask import audit
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
    runs: int = 0
    exact: bool = False
    hint: str = ""
    unused: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    ended: bool = False
    layers: Mapping[str, "Audit"] = field(default_factory=dict)
    subject: str = "model"

    @property
    def ok(self) -> bool:
        """Whether the model obeys its mask, as far as was tried."""
        fails = self.leaks or self.nan or self.unchanged or (self.exact and self.missing)
        return not fails and all(each.ok for each in self.layers.values())

    @property
    def verdict(self) -> str:
        """What was found, in one sentence."""
        if self.leaks or self.nan:
            return f"The {self.subject} does not obey its mask."
        if self.exact and self.missing:
            return f"The {self.subject} hides more than its mask does, as far as was tried."
        if self.unchanged:
            return f"Nothing can be said: no change of {', '.join(self.unchanged)} ran to its end."
        if not self.ok:
            return "The model as a whole obeys its mask, as far as was tried, and a layer by itself does not."
        return f"The {self.subject} obeys its mask{' exactly' * self.exact}, as far as was tried."

    def __str__(self) -> str:
        length = next(iter(self.allowed.values())).shape[2]
        lines = [self.verdict]
        for name, layer in self.layers.items():
            if layer.suspects or not layer.ok:
                lines += [f"In {name}:", *(f"  {line}" for line in str(layer).splitlines())]
        for title, found in (("leak", self.leaks), ("NaN", self.nan), ("suspect", self.suspects)):
            lines += _listed(title, found, length)
        lines += _missed(self.missing, self.hint, length) if self.exact or not self.ended else ()
        lines += [f"Changing {name} moved no output: the model does not use it here." for name in self.unused]
        tried = (*self.tried, *[f"{len(self.layers)} layers by themselves"] * bool(self.layers))
        for title, parts in (("Tried", tried), ("Not tried", self.not_tried)):
            lines += [f"{title}: {'; '.join(parts)}."] * bool(parts)
        return "\n".join(lines)


def _listed(title: str, found: Sequence[Leak], length: int) -> Iterator[str]:
    """Yield the lines on leaks, or others: grouped by what saw them, those that read alike once."""
    if not found:
        return
    first = {str(each): each for each in reversed(found)}  # of leaks that read alike, the first
    groups: dict[str, list[str]] = {}
    for text in dict.fromkeys(map(str, found)):
        groups.setdefault(_seen_by(first[text], length), []).append(text)
    by = f", by {max(each.size for each in found):.0e} at most" if title == "suspect" else ""
    yield f"{len(first)} {title}{'s' * (len(first) > 1)}{by}:"
    for seen, texts in list(groups.items())[:_SHOWN]:
        yield from (f"  {text}" for text in texts[:_SHOWN])
        if len(texts) > _SHOWN:
            yield f"  … and {len(texts) - _SHOWN} more"
        yield f"    seen by {seen}"
    if len(groups) > _SHOWN:
        yield "  …"


def _missed(missing: Sequence[Leak], hint: str, length: int) -> Iterator[str]:
    """Yield the lines on what is allowed and not reached."""
    if not missing:
        return
    pairs = dict.fromkeys(f"{each.output} ← {each.input}{f' of {each.of}' * bool(each.of)}" for each in missing)
    shown = ", ".join(list(pairs)[:_SHOWN]) + ", …" * (len(pairs) > _SHOWN)
    yield f"Allowed, but nothing reached them (output ← input): {shown}."
    yield from [f"  {hint}"] * bool(hint)
    yield from [f"    looked for by {_seen_by(missing[0], length)}"] * bool(missing[0].seen)


def _seen_by(leak: Leak, length: int) -> str:
    """Say what saw a leak, where it is not within the first sample, and at which length if that is told apart."""
    modes: dict[str, list[str]] = {}
    for probe, mode in leak.seen:
        modes.setdefault(probe, []).append(mode)
    text = ", ".join(f"{probe} ({'; '.join(each)})" for probe, each in modes.items())
    text += f", at length {leak.length}" * (leak.length != length)
    if leak.sample != leak.from_sample:
        return f"{text}, in sample {leak.sample} from sample {leak.from_sample}"
    return text + f", in sample {leak.sample}" * (leak.sample > 0)


# ---- from findings --------------------------------------------------------------------


def report(every: Sequence[Findings], runs: int, exact: bool) -> Audit:
    """Put what was found on each case into one report; the first is the case of the inputs as given."""
    first = every[0]
    leaks = _all(every, lambda findings: chain(_pairs(findings, findings.leaks), _remembered(findings)))
    suspects = _all(every, lambda findings: _pairs(findings, findings.suspects))
    nan = _all(every, lambda findings: chain(_pairs(findings, findings.nan), _nan_at_once(findings)))
    not_tried = dict.fromkeys(each for findings in every for each in findings.not_tried)
    missing = tuple(_hidden(every) if exact else _missing(first))
    return Audit(
        leaks=tuple(_in_order(leaks, every)),
        suspects=tuple(each for key, each in suspects.items() if key not in leaks),
        nan=tuple(nan.values()),
        missing=missing,
        allowed=first.case.allowed,
        found={name: table | _own_sample(first.leaks[name]) for name, table in first.reached.items()},
        judged=first.case.judged,
        tried=(f"{runs} runs", *_tried(every)),
        not_tried=tuple(map(_not_tried, not_tried)),
        runs=runs,
        exact=exact,
        hint=_hint(every) if exact and missing else "",
        unused=tuple(name for name, moved in first.effects.items() if not moved),
        unchanged=_unchanged(first),
        ended=any(each.what is Untried.REST for each in not_tried),
    )


def _all(every: Sequence[Findings], some: Callable[[Findings], Iterable[Leak]]) -> dict[tuple[object, ...], Leak]:
    """Collect leaks by what tells them apart; of other cases than the first, those of another kind or module."""
    found: dict[tuple[object, ...], Leak] = {}
    kinds: set[tuple[str, str, str]] = set()
    for findings in every:
        for leak in some(findings):
            if findings is every[0] or (leak.of, leak.because, leak.module) not in kinds:
                found.setdefault((leak[:5], leak.length), leak)
        if findings is every[0]:
            kinds = {(each.of, each.because, each.module) for each in found.values()}
    return found


def _pairs(findings: Findings, kind: dict[str, PairSizes]) -> Iterator[Leak]:
    for name in findings.case.allowed:
        yield from _leaks(findings, name, kind[name])


def _leaks(findings: Findings, name: str, pairs: PairSizes) -> Iterator[Leak]:
    """Put the pairs of one input into words."""
    case, several = findings.case, len(findings.case.allowed) > 1
    evidence = sorted(pairs.seen, key=lambda each: each.mode.name == "train")
    seen = {_seen(each): set(map(tuple, pairs.seen[each].nonzero().tolist())) for each in evidence}
    reasons, known = _reasons(case, name), pairs.known.nonzero()
    for at, size in zip(map(tuple, known.tolist()), pairs.size[pairs.known].tolist(), strict=True):
        sample, output, source, place = at
        # Within a sample, it is one of those that were given, in whatever company.
        samples = case.samples if case.samples is not None and sample == source else range(len(case.judged))
        yield Leak(
            output=output,
            input=place,
            of=name if several else "",
            sample=samples[sample],
            from_sample=samples[source],
            because="which is in another sample of the batch" if source != sample else reasons[sample][output][place],
            module=findings.modules.get((name, *at), ""),
            seen=tuple(each for each, where in seen.items() if at in where),
            size=size,
            length=case.length,
        )


def _reasons(case: Case, name: str) -> list[list[list[str]]]:
    """Say why pairs within a sample are forbidden, by sample, output and input."""
    words = ("which its mask blocks", "which is in its future", "which is padding")
    allowed = case.allowed[name]
    square = allowed.shape[1] == allowed.shape[2]
    future = torch.ones_like(allowed[0]).triu(1) & square & ~allowed.triu(1).flatten(1).any(1)[:, None, None]
    kind = torch.where(case.padding[name][:, None], 2, future.int())  # (batch, output, input)
    return [[[words[each] for each in row] for row in rows] for rows in kind.tolist()]


def _remembered(findings: Findings) -> Iterator[Leak]:
    for (sample, output), each in findings.remembered.items():
        seen = (_seen(each.evidence),)
        yield Leak(output, None, "", sample, sample, "", each.module, seen, each.size, findings.case.length)


def _nan_at_once(findings: Findings) -> Iterator[Leak]:
    for (sample, output), each in findings.nan_at_once.items():
        seen = (_seen(each.evidence),)
        yield Leak(output, None, "", sample, sample, "", each.module, seen, math.nan, findings.case.length)


def _in_order(leaks: Mapping[Any, Leak], every: Sequence[Findings]) -> list[Leak]:
    """Order leaks by module, unnamed ones last, those of the length that was given first."""
    order = {name: place for each in reversed(every) for name, place in each.order.items()}
    length = every[0].case.length
    return sorted(leaks.values(), key=lambda each: (each.length != length, order.get(each.module, len(order))))


def _missing(first: Findings) -> Iterator[Leak]:
    for name, allowed in first.case.allowed.items():
        of = name if len(first.case.allowed) > 1 else ""
        for sample, output, place in (allowed & ~first.reached[name] & first.case.judged[..., None]).nonzero().tolist():
            yield Leak(output, place, of, sample, sample, length=first.case.length)


def _hidden(every: Sequence[Findings]) -> Iterator[Leak]:
    """Yield what was looked for and not reached, of other lengths only where there is nothing at that given."""
    for findings in every:
        where = {
            name: {mode.label: each.pairs for (one, mode), each in findings.hidden.items() if one == name}
            for name in findings.case.allowed
        }
        found = False
        for name, modes in where.items():
            of = name if len(where) > 1 else ""
            pairs = torch.stack(list(modes.values())).any(0) if modes else torch.zeros(0, 0, 0)
            for at in map(tuple, pairs.nonzero().tolist()):
                sample, output, place = at
                seen = tuple(Seen(Probe.VALUES.value, label) for label, each in modes.items() if bool(each[at]))
                found = True
                yield Leak(output, place, of, sample, sample, seen=seen, length=findings.case.length)
        if found:
            return


def _hint(every: Sequence[Findings]) -> str:
    """Say what each output misses, which rule would fit, and which modules hide it."""
    hiding = [
        (findings, name, each.pairs)
        for findings in every
        for (name, _), each in findings.hidden.items()
        if bool(each.pairs.any())
    ]
    findings, name, pairs = max(hiding, key=lambda each: each[0].case.length)
    case = findings.case
    required = case.required_pairs(name)
    missed, rule = what_is_missed(pairs, required), fitting_rule(required & ~pairs, required)
    named = ", ".join(findings.narrow[:_SHOWN]) + ", …" * (len(findings.narrow) > _SHOWN)
    parts = (missed and f"each output misses {missed}", rule and f"{rule} would fit", named and f"hidden in {named}")
    return "; ".join(each for each in parts if each)


def _unchanged(first: Findings) -> tuple[str, ...]:
    """Return the inputs of which no change ran to its end in any mode, or none that shows what they reach."""
    if first.failed:
        return ()
    untried = [
        name for (name, _), each in first.hidden.items() if torch.equal(each.untried, first.case.required_pairs(name))
    ]
    if not any(each.probe is Probe.VALUES for each in first.tried):
        untried += [each.detail for each in first.not_tried if each.what is Untried.CHANGES]
    return tuple(dict.fromkeys(untried))


def _own_sample(pairs: PairSizes) -> Tensor:
    return pairs.known.diagonal(dim1=0, dim2=2).movedim(-1, 0)


# ---- words ----------------------------------------------------------------------------


def _seen(evidence: Evidence) -> Seen:
    """Say what saw a pair: a probe, its mode, and what remains in doubt."""
    mode = evidence.mode.name if evidence.probe is Probe.GRADIENT else evidence.mode.label
    parts = [f"{mode}, {evidence.label}" if evidence.label else mode]
    for doubt in evidence.doubts:
        parts.append(f"{doubt.value}: {evidence.error}" if doubt is Doubt.UNCONFIRMED else doubt.value)
    return Seen(evidence.probe.value, "; ".join(parts))


def _tried(every: Sequence[Findings]) -> Iterator[str]:
    for each in dict.fromkeys(each for findings in every for each in findings.tried):
        yield _what(each)
    lengths = [str(length) for length in dict.fromkeys(each.case.length for each in every if each.tried)]
    yield f"length{'s' * (len(lengths) > 1)} {', '.join(lengths)}"
    count = len(every[0].case.judged)
    batches = [str(len(each.case.judged)) for each in every if each.tried and len(each.case.judged) != count]
    yield f"{count} sample{'s' * (count > 1)}" + f", in batches of {', '.join(batches)} too" * bool(batches)


def _what(tried: Tried) -> str:
    if tried.probe is Probe.GRADIENT:
        part, whole = tried.share or (0, 0)
        return f"gradients in {tried.mode.name}" + f" ({part} of {whole} outputs)" * (part < whole)
    if tried.probe is Probe.REPEAT:
        return f"two calls in {tried.mode.label}"
    return tried.mode.label + (f" (bit for bit as {tried.twin.label})" if tried.twin else "")


_NOT_TRIED = {
    Untried.MODE: "{mode}{label} ({error})",
    Untried.GRADIENTS: "gradients in {name}{label} ({error})",
    Untried.CHANGES: "{mode}{label}: no change of {detail} ran to its end ({error})",
    Untried.MODES: "{detail} (the model cannot switch its mode)",
    Untried.WINDOW: "more tokens than {detail} (lengths can say how many)",
    Untried.PAIRS: "whether these are reached, {mode}{label}, since no change of the input ran: {detail}",
    Untried.SOME_VALUES: "some values of {detail}, {mode}{label} ({error})",
    Untried.REPEATS: "two calls in a row, {mode} ({error})",
    Untried.BATCH: "a batch of {detail} ({error})",
    Untried.VALUES: "other values everywhere ({error})",
    Untried.NAN_OUTPUTS: "some outputs{label} (they are NaN)",
    Untried.LEFT_OUT: "what depends on {detail} (allowed says nothing about it)",
    Untried.LENGTHS: "other lengths ({detail} can be a function)",
    Untried.LENGTH: "length {detail} ({error})",
    Untried.REST: "anything after the first leak",
}


def _not_tried(each: NotTried) -> str:
    mode, name = (each.mode.label, each.mode.name) if each.mode else ("", "")
    label = f", {each.label}" if each.label else ""
    return _NOT_TRIED[each.what].format(mode=mode, name=name, label=label, detail=each.detail, error=each.error)
