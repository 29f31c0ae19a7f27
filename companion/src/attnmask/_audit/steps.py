"""How is a probe run, and what of what it shows goes into the findings?"""

from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor

from attnmask._audit.budgets import Budget
from attnmask._audit.confirm import confirm
from attnmask._audit.findings import Findings
from attnmask._audit.localize import blame_memory, blame_nan, localize
from attnmask._audit.narrow import narrow_modules
from attnmask._audit.probes import changes, effects, gradient_sizes, repeats, sure
from attnmask._audit.reached import hidden
from attnmask._audit.records import (
    AS_GIVEN,
    Counterexample,
    Finished,
    Hidden,
    Hit,
    NanOutput,
    Narrow,
    NotTried,
    Perturbation,
    Probe,
    Reached,
    Remembered,
    Tried,
    Untried,
    Verdict,
)
from attnmask._audit.runner import Runner
from attnmask._measure.progress import one_line
from attnmask._measure.values import seeded

_FEW, _MANY = 2, 12  # hits that are confirmed together, where the first leak ends it, and where it does not
_PAIRS = 5  # pairs that are named of those that could not be tried
_MODULES = 4  # input positions of which a module is looked for, where the first leak ends it


def file_nan(runner: Runner, findings: Findings) -> None:
    """File outputs that are NaN from the start."""
    at = (runner.case.judged & ~runner.judged).nonzero().tolist()
    modules = blame_nan(runner) if at else {}
    for sample, output in at:
        findings.add(NanOutput(sample, output, runner.evidence(Probe.RUN), modules.get((sample, output), "")))


def file_gradients(runner: Runner, findings: Findings, budget: Budget, stop_at_first: bool) -> dict[str, Tensor]:
    """File what gradients reach; return the sizes of forbidden ones that may be rounding."""
    # Of other cases than the first, no unchanged output is at hand that would show which are NaN.
    judged = runner.judged if runner.case.label == AS_GIVEN else runner.case.judged
    order = judged.flatten().nonzero().flatten()
    order = order[torch.randperm(len(order), generator=seeded(runner.seed))][: budget.gradients]
    if not len(order):
        return {}
    rows = torch.zeros_like(judged)
    rows.view(-1)[order] = True
    try:
        sizes, taken = gradient_sizes(runner, rows, stop_at_first)
    except (ValueError, RuntimeError) as error:
        findings.add(NotTried(Untried.GRADIENTS, runner.mode, runner.case.label, error=one_line(error)))
        return {}
    findings.add(Tried(runner.mode, Probe.GRADIENT, share=(taken, int(judged.sum()))))
    small = {}
    for name, size in sizes.items():
        samples = range(len(size))
        findings.add(Reached(name, size[samples, :, samples] > 0))
        findings.add(Verdict(name, sure(runner.case, name, size), size, runner.evidence(Probe.GRADIENT)))
        size = size * runner.case.forbidden(name)
        rest = size * ~findings.leaks[name].known
        if bool(rest.any()):
            small[name] = rest
    return small


def file_changes(
    runner: Runner,
    findings: Findings,
    some: Iterable[Perturbation],
    small: dict[str, Tensor],
    unbatched: int,
    stop_at_first: bool,
) -> list[Counterexample]:
    """Make changes, confirm what they and ``small`` gradients show, and file it; return the counterexamples."""
    examples: list[Counterexample] = []
    hits: list[Hit] = []

    def settle() -> None:
        for verdict in confirm(runner, small, hits, findings.leaks):
            findings.add(verdict)
            if verdict.example is not None and not verdict.evidence.doubts:
                examples.append(verdict.example)
        small.clear()
        hits.clear()

    for item in changes(runner, some, findings.leaks, unbatched):
        if not isinstance(item, Hit):
            findings.add(item)
            continue
        if item.perturbation.single:
            file_known(runner, findings, item)
        if (hit := findings.unexplained(item)) is not None:
            hits.append(hit)
        if len(hits) == (_FEW if stop_at_first else _MANY):
            settle()
            if stop_at_first and findings.leaking:
                return examples
    settle()
    return examples


def file_what_ran(runner: Runner, findings: Findings) -> None:
    """File that changes were tried, or of which inputs none ran to its end, with the model's own error."""
    for name in sorted(runner.asked_of - runner.changed):
        of_it = [each for each in findings.not_tried if each[:4] == (Untried.SOME_VALUES, *runner.where, name)]
        for each in of_it:
            del findings.not_tried[each]
        findings.add(NotTried(Untried.CHANGES, *runner.where, name, of_it[0].error if of_it else ""))
    if runner.asked_of <= runner.changed:
        findings.add(Tried(runner.mode))


def file_known(runner: Runner, findings: Findings, hit: Hit) -> None:
    """Add to known leaks that a single position shows them too."""
    name, known = hit.perturbation.name, findings.leaks[hit.perturbation.name].known
    pairs = known & hit.perturbation.cells & (hit.moved & ~hit.nan_changed)[..., None, None]
    size = hit.size[..., None, None].expand(pairs.shape)
    findings.add(Verdict(name, pairs, size, runner.evidence(Probe.VALUES)))


def file_hidden(runner: Runner, findings: Findings) -> None:
    """File what is allowed and not reached, and the modules that hide it."""
    for item in hidden(runner):
        findings.add(item)
        if isinstance(item, Hidden):
            if bool(item.untried.any()):
                findings.add(NotTried(Untried.PAIRS, *runner.where, _some_pairs(item.untried)))
            square = item.pairs.shape[1] == item.pairs.shape[2]
            if bool(item.pairs.any()) and square and runner.case.output_sequence == item.name:
                with suppress(Exception):  # whatever a model raises
                    findings.add(Narrow(tuple(narrow_modules(runner, item.pairs))))


def _some_pairs(pairs: Tensor) -> str:
    shown = dict.fromkeys(f"{output} ← {place}" for _, output, place in pairs.nonzero().tolist())
    return ", ".join(list(shown)[:_PAIRS]) + ", …" * (len(shown) > _PAIRS)


def file_effects(runner: Runner, findings: Findings) -> None:
    """File whether mask arguments move any output."""
    for item in effects(runner, [name for name, moved in findings.effects.items() if moved]):
        findings.add(item)


def file_repeats(runner: Runner, findings: Findings) -> None:
    """File outputs that depend on what the call before was given; in training that is by design, as of statistics."""
    if runner.mode.name == "train":
        return
    try:
        size, earlier = repeats(runner)
        shown = blame_memory(runner, earlier) if bool(size.any()) else []
    except Exception as error:  # whatever a model raises
        findings.add(NotTried(Untried.REPEATS, runner.mode, error=one_line(error)))
        return
    findings.add(Tried(runner.mode, Probe.REPEAT))
    for sample, output in size.nonzero().tolist():
        module = next((each.module for each in shown if bool(each.surely[sample, output])), "")
        evidence = runner.evidence(Probe.REPEAT)
        findings.add(Remembered(sample, output, float(size[sample, output]), evidence, module))


def file_modules(runner: Runner, findings: Findings, examples: list[Counterexample], stop_at_first: bool) -> None:
    """File in which modules leaks first show, in float64 where rounding blurs it."""
    if not runner.snapshot.modules:
        return
    blurred, positions = False, _MODULES if stop_at_first else None
    for item in localize(runner, findings, examples, positions):
        findings.add(item)
        blurred |= isinstance(item, Finished) and item.blurred
    if (blurred or not findings.modules) and any(bool(findings.unnamed(name).any()) for name in findings.leaks):
        with suppress(Exception), runner.exactly() as exact:  # whatever a model raises
            for item in localize(exact, findings, examples, positions):
                findings.add(item)
