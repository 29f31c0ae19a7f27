"""In which order is what tried?"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from attnmask._audit.cases import AS_GIVEN, OTHER_VALUES, case_as_given, other_cases, output_len
from attnmask._audit.confirm import SURE, confirm
from attnmask._audit.localize import blame_memory, localize
from attnmask._audit.probes import Budget, changes, gradient_sizes, perturbations, repeatable, repeats, singles
from attnmask._audit.question import Question
from attnmask._audit.records import (
    Case,
    Counterexample,
    Findings,
    Hit,
    Mode,
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
from attnmask._check import value_error
from attnmask._measure.progress import one_line, progress
from attnmask._measure.snapshot import Snapshot
from attnmask._measure.threads import suited_threads
from attnmask._measure.values import Kind, seeded

_FEW, _MANY = 2, 12  # hits that are confirmed together, where the first leak ends it, and where it does not
_MODULES = 4  # input positions of which a module is looked for, where the first leak ends it

THOROUGH = Budget(
    None, rows=40, halves=4, singles=2, single_kinds=(Kind.SMALL,), alone=2, repeats=True, every_output=True
)
AGAIN = Budget(16, rows=24, halves=2, singles=1, single_kinds=(Kind.HUGE,), alone=2, repeats=True)
BRIEF = Budget(gradients=8, rows=9, halves=0, singles=0, single_kinds=(Kind.SMALL,), alone=1)
OTHERS = BRIEF._replace(rows=15)
LARGE_TOKENS = OTHERS._replace(singles=8, single_kinds=(Kind.HUGE, Kind.OPPOSITE))  # large queries may meet large keys


@dataclass(eq=False)
class Trial:
    """What was found so far, and by which runs."""

    first: Case
    found: dict[Case, Findings] = field(default_factory=dict)
    runners: dict[Case, Runner] = field(default_factory=dict)  # the first of each case
    errors: dict[Mode, Exception] = field(default_factory=dict)  # modes in which the model does not run
    ended: bool = False

    def of(self, case: Case) -> Findings:
        """Return where what is found on a case goes: with that of the inputs as given, where the same is allowed."""
        alike = case.label == OTHER_VALUES and all(
            torch.equal(table, self.first.allowed[name]) for name, table in case.allowed.items()
        )
        return self.found.setdefault(self.first if alike else case, Findings(case))

    def copy(self) -> "Trial":
        """Return a trial that can go on while this one stays."""
        found = {case: each.copy() for case, each in self.found.items()}
        return Trial(self.first, found, dict(self.runners), dict(self.errors), self.ended)


def answer(question: Question) -> tuple[list[Findings], int]:
    """Try the model on the inputs as given, then on others; return what was found on each, and in how many runs."""
    with torch.inference_mode(False), Snapshot(question.model) as original:
        snapshots = in_modes(question, original)
        first, start = first_case(question, list(snapshots.values()))
        with suited_threads(lambda: output_len(first.call, start)):
            trial = Trial(first)
            trial = try_cases(question, trial, [first], snapshots)
            if not trial.of(first).tried:
                raise next(iter(trial.errors.values()))
            if not trial.ended:
                start.put_back()
                others = list(other_cases(question, trial.of(first), start))
                for each in others:
                    trial.of(first).add(each)
                trial = try_cases(question, trial, [each for each in others if isinstance(each, Case)], snapshots)
            if trial.ended:
                trial.of(first).add(NotTried(Untried.REST))
        return list(trial.found.values()), sum(each.runs for each in {original, *snapshots.values()})


def in_modes(question: Question, original: Snapshot) -> dict[str, Snapshot]:
    """Bring the model into each mode that was asked for, and remember it there."""
    model, call = question.model, question.call(question.inputs)
    if not isinstance(model, nn.Module):  # a function may call modules that it does not name
        with suppress(Exception), original.run(), torch.no_grad():
            call.outputs({})
    if not original.modules:
        return {"as it is": original}
    snapshots = {}
    for mode in question.modes:
        original.put_back()
        for module in [model] if isinstance(model, nn.Module) else list(original.modules):
            if any(part.training != (mode == "train") for part in module.modules()):
                module.train(mode == "train")
        snapshots[mode] = Snapshot(model, original.modules, like=original)
    return snapshots


def first_case(question: Question, snapshots: list[Snapshot]) -> tuple[Case, Snapshot]:
    """Make the case of the inputs as given, in the first mode in which the model runs."""
    for snapshot in snapshots[:-1]:
        snapshot.put_back()
        with suppress(Exception):  # whatever a model raises
            return case_as_given(question, snapshot), snapshot
    snapshots[-1].put_back()
    return case_as_given(question, snapshots[-1]), snapshots[-1]


def try_cases(question: Question, trial: Trial, cases: list[Case], snapshots: dict[str, Snapshot]) -> Trial:
    """Try cases in each mode; anew, where a weight turns out to have been written without a trace meanwhile."""
    for name, snapshot in snapshots.items():
        if not trial.ended:
            snapshot.put_back()
            steps = [(case, mode) for case in cases for mode in modes_of(case, name)]
            last = name == list(snapshots)[-1]
            trial = snapshot.settled(partial(try_steps, question, trial, steps, snapshot, last))
    return trial


def try_steps(
    question: Question, before: Trial, steps: list[tuple[Case, Mode]], snapshot: Snapshot, last: bool
) -> Trial:
    """Try each case in its mode, and add to what was found before."""
    trial = before.copy()
    for case, mode in progress(steps, "audit"):
        if mode in trial.errors:
            continue
        findings = trial.of(case)
        try:
            runner = Runner(case, mode, snapshot)
        except Exception as error:  # whatever a model raises
            findings.add(NotTried(Untried.MODE, mode, case.label, error=one_line(error)))
            if case is trial.first:
                trial.errors[mode] = error
            continue
        budget = budget_of(case, first=not trial.runners, gradients=last or case is trial.first)
        examine(runner, findings, budget, trial.runners.get(case), question.stop_at_first)
        trial.runners.setdefault(case, runner)
        if question.stop_at_first and findings.leaking:
            trial.ended = True
            break
    return trial


def modes_of(case: Case, name: str) -> list[Mode]:
    """Return the ways to run a case: as one usually does, and the other way where branches are likely."""
    usual = Mode(name, grad=name == "train")
    other = case.label != OTHER_VALUES and not case.resampled
    return [usual, Mode(name, not usual.grad)] if other else [usual]


def budget_of(case: Case, first: bool, gradients: bool) -> Budget:
    """Return how much is tried: most on the inputs as given, in the first mode."""
    if case.label == AS_GIVEN:
        return THOROUGH if first else AGAIN
    floats = any(case.call.arguments[name].is_floating_point() for name in case.allowed)
    budget = BRIEF if case.label != OTHER_VALUES else LARGE_TOKENS if floats else OTHERS
    return budget if gradients else budget._replace(gradients=0)


# ---- one case in one mode -------------------------------------------------------------


def examine(runner: Runner, findings: Findings, budget: Budget, earlier: Runner | None, stop_at_first: bool) -> None:
    """Try one case in one mode, what costs least first, and file what is found."""
    mode, whole = runner.mode, budget in (THOROUGH, AGAIN)
    file_nan(runner, findings, whole)
    clean = not findings.leaking and not any(bool(each.known.any()) for each in findings.suspects.values())
    if budget.repeats and mode.name != "train":
        file_repeats(runner, findings)
    if earlier is not None and clean and runner.gives_the_bits_of(earlier):
        findings.add(Tried(mode, twin=earlier.mode))
        return
    known = {name: pairs.known for name, pairs in findings.leaks.items()}
    small = file_gradients(runner, findings, budget) if mode.usual and budget.gradients != 0 else {}
    if not (stop_at_first and findings.leaking):
        if whole and not repeatable(runner):
            cause = "chance or state of objects that are no modules, or an accelerator's atomic sums"
            raise value_error(f"two runs on the same input to agree bit for bit ({mode.label})", "two outputs", cause)
        some = list(perturbations(runner.case, budget, findings.unreached(), seed=runner.snapshot.runs))
        examples = file_changes(runner, findings, some, small, budget, _FEW if stop_at_first else _MANY)
        if whole and not stop_at_first:
            examples += file_changes(runner, findings, list(singles(findings)), {}, budget._replace(alone=0), _MANY)
        findings.add(Tried(mode))
    else:
        examples = []
    if any(bool((pairs.known & ~known[name]).any()) for name, pairs in findings.leaks.items()):
        file_modules(runner, findings, examples, _MODULES if stop_at_first else None)


def file_nan(runner: Runner, findings: Findings, whole: bool) -> None:
    """File outputs that are NaN from the start."""
    at = (runner.case.judged & ~runner.judged).nonzero().tolist()
    if whole:
        for sample, output in at:
            findings.nan_at_once.setdefault((sample, output), runner.evidence(Probe.RUN))
    elif at:
        findings.add(NotTried(Untried.NAN_OUTPUTS, label=runner.case.label))


def file_gradients(runner: Runner, findings: Findings, budget: Budget) -> dict[str, Tensor]:
    """File what gradients reach; return the sizes of forbidden ones that may be rounding."""
    rows = runner.judged.clone()
    share = int(rows.sum()) if budget.gradients is None else min(budget.gradients, int(rows.sum()))
    order = rows.flatten().nonzero().flatten()
    dropped = order[torch.randperm(len(order), generator=seeded(runner.snapshot.runs))[share:]]
    rows.view(-1)[dropped] = False
    try:
        sizes = gradient_sizes(runner, rows)
    except (ValueError, RuntimeError) as error:
        findings.add(NotTried(Untried.GRADIENTS, runner.mode, runner.case.label, error=one_line(error)))
        return {}
    findings.add(Tried(runner.mode, Probe.GRADIENT, share=(share, len(order))))
    small = {}
    for name, size in sizes.items():
        samples = range(len(size))
        findings.add(Reached(name, size[samples, :, samples] > 0))
        size = size * runner.case.forbidden(name)
        sure = size > SURE * torch.finfo(runner.base[0].dtype).eps
        findings.add(Verdict(name, sure, size, runner.evidence(Probe.GRADIENT)))
        rest = size * ~findings.leaks[name].known
        if bool(rest.any()):
            small[name] = rest
    return small


def file_changes(
    runner: Runner, findings: Findings, some: list[Perturbation], small: dict[str, Tensor], budget: Budget, most: int
) -> list[Counterexample]:
    """Make changes, confirm what they move, and file it; return the counterexamples."""
    examples: list[Counterexample] = []
    hits: list[Hit] = []

    def settle() -> None:
        for verdict in confirm(runner, small, hits, findings.leaks):
            findings.add(verdict)
            if verdict.example is not None and not verdict.evidence.doubts:
                examples.append(verdict.example)
        small.clear()
        hits.clear()

    for item in changes(runner, some, findings.leaks, budget.alone):
        if not isinstance(item, Hit):
            findings.add(item)
            continue
        if item.perturbation.single:
            file_known(runner, findings, item)
        if (hit := findings.unexplained(item)) is not None:
            hits.append(hit)
        if len(hits) == most:
            settle()
            if most == _FEW and findings.leaking:
                return examples
    settle()
    return examples


def file_known(runner: Runner, findings: Findings, hit: Hit) -> None:
    """Add to known leaks that a single position shows them too."""
    name, known = hit.perturbation.name, findings.leaks[hit.perturbation.name].known
    pairs = known & hit.perturbation.cells & (hit.moved & ~hit.nan_changed)[..., None, None]
    size = hit.size[..., None, None].expand(pairs.shape)
    findings.add(Verdict(name, pairs, size, runner.evidence(Probe.VALUES)))


def file_repeats(runner: Runner, findings: Findings) -> None:
    """File outputs that depend on what the call before was given."""
    try:
        size, earlier = repeats(runner)
        shown = blame_memory(runner, earlier) if bool(size.any()) else []
    except Exception as error:  # whatever a model raises
        findings.add(NotTried(Untried.REPEATS, runner.mode, error=one_line(error)))
        return
    for sample, output in size.nonzero().tolist():
        module = next((each.module for each in shown if bool(each.surely[sample, output])), "")
        evidence = runner.evidence(Probe.REPEAT)
        findings.add(Remembered(sample, output, float(size[sample, output]), evidence, module))


def file_modules(runner: Runner, findings: Findings, examples: Iterable[Counterexample], positions: int | None) -> None:
    """File in which modules leaks first show, in float64 where rounding blurs it."""
    examples = list(examples)
    for item in localize(runner, findings, examples, positions):
        findings.add(item)
    if runner.snapshot.modules and any(bool(findings.unnamed(name).any()) for name in findings.leaks):
        if positions is not None and findings.modules:
            return
        with suppress(Exception), runner.exactly() as exact:  # whatever a model raises
            for item in localize(exact, findings, examples, positions):
                findings.add(item)
