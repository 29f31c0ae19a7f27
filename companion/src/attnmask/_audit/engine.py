"""In which order is what tried?"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from attnmask._audit.cases import AS_GIVEN, OTHER_VALUES, case_as_given, once, other_cases, resampled
from attnmask._audit.confirm import SURE, confirm
from attnmask._audit.localize import blame_memory, localize
from attnmask._audit.probes import Budget, changes, gradient_sizes, perturbations, repeatable, repeats, singles
from attnmask._audit.question import Question
from attnmask._audit.records import (
    Case,
    Counterexample,
    Findings,
    Finished,
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
    gradients=None,
    rows=18,
    halves=2,
    others=2,
    singles=1,
    single_kinds=(Kind.SMALL,),
    alone=2,
    every_output=True,
)
AGAIN = THOROUGH._replace(
    gradients=8, rows=8, halves=1, others=1, single_kinds=(Kind.HUGE,), alone=1, every_output=False
)
OTHERS = Budget(gradients=4, rows=8, halves=0, others=1, singles=0, single_kinds=(Kind.SMALL,), alone=0)
LARGE_TOKENS = OTHERS._replace(singles=8, single_kinds=(Kind.HUGE, Kind.OPPOSITE))  # large queries may meet large keys
LENGTHS = OTHERS._replace(rows=4)
COMPANY = OTHERS._replace(rows=0, alone=9)


@dataclass(eq=False)
class Trial:
    """What was found so far, and by which runs."""

    first: Case
    found: dict[Case, Findings] = field(default_factory=dict)
    runners: dict[Case, list[Runner]] = field(default_factory=dict)
    plain: bool | None = None  # whether copies in a batch give what one gives
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
        runners = {case: list(each) for case, each in self.runners.items()}
        return Trial(self.first, found, runners, self.plain, dict(self.errors), self.ended)


def answer(question: Question) -> tuple[list[Findings], int]:
    """Try the model on the inputs as given, then on others; return what was found on each, and in how many runs."""
    with torch.inference_mode(False), Snapshot(question.model) as original:
        snapshots = in_modes(question, original)
        first, start = first_case(question, list(snapshots.values()))
        with suited_threads(partial(some_copies, first, start)):
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


def some_copies(case: Case, snapshot: Snapshot) -> None:
    """Run a batch of copies, or what was given where the model refuses that."""
    try:
        once(resampled(case.call, list(range(len(case.judged))) * 4), snapshot)
    except Exception:  # whatever a model raises
        once(case.call, snapshot)


def try_cases(question: Question, trial: Trial, cases: list[Case], snapshots: dict[str, Snapshot]) -> Trial:
    """Try cases in each mode; anew, where a weight turns out to have been written without a trace meanwhile."""
    for name, snapshot in snapshots.items():
        if not trial.ended:
            snapshot.put_back()
            steps = [(case, mode) for case in cases for mode in modes_of(case, name, list(snapshots))]
            trial = snapshot.settled(partial(try_steps, question, trial, steps, snapshot, name == list(snapshots)[-1]))
    return trial


def try_steps(
    question: Question, before: Trial, steps: list[tuple[Case, Mode]], snapshot: Snapshot, last: bool
) -> Trial:
    """Try each case in its mode, and add to what was found before."""
    trial = before.copy()
    for case, mode in progress([step for step in steps if step[1] not in trial.errors], "audit"):
        findings, runner = trial.of(case), Runner(case, mode, snapshot, plain=trial.plain)
        given, earlier = case is trial.first, trial.runners.setdefault(case, [])
        budget = budget_of(case, trial, gradients=given or last or case.resampled)
        alike = [each for each in earlier if given or Tried(mode, twin=each.mode) in trial.of(trial.first).tried]
        try:
            examine(runner, findings, budget, alike, question.stop_at_first)
        except Exception as error:  # whatever a model raises
            if given and runner.given is not None:
                raise
            findings.add(NotTried(Untried.MODE, mode, case.label, error=one_line(error)))
            trial.errors.update({mode: error} if given else {})
            continue
        runner.forget()
        earlier.append(runner)
        trial.plain = runner.plain if trial.plain is None else trial.plain
        if question.stop_at_first and findings.leaking:
            trial.ended = True
            break
    return trial


def modes_of(case: Case, name: str, names: list[str]) -> list[Mode]:
    """Return the ways to run a case in eval or train: as one usually does, and where branches are likely the other."""
    usual = Mode(name, grad=name == "train")
    if case.resampled and len(case.judged) <= 2 and name != names[0]:
        return []  # that samples mix shows in every batch of copies; these are for what so few alone may show
    other = case.label != OTHER_VALUES and not case.resampled
    return [usual, Mode(name, not usual.grad)] if other else [usual]


def budget_of(case: Case, trial: Trial, gradients: bool) -> Budget:
    """Return how much is tried: most on the inputs as given, in the first mode."""
    if case is trial.first:
        return AGAIN if trial.runners[case] else THOROUGH
    if case.resampled:
        budget = COMPANY
    elif case.label != OTHER_VALUES:
        budget = LENGTHS
    else:
        floats = any(case.call.arguments[name].is_floating_point() for name in case.allowed)
        budget = LARGE_TOKENS if floats else OTHERS
    return budget if gradients and case.length >= trial.first.length else budget._replace(gradients=0)


# ---- one case in one mode -------------------------------------------------------------


def examine(runner: Runner, findings: Findings, budget: Budget, earlier: Iterable[Runner], stop_at_first: bool) -> None:
    """Try one case in one mode, what costs least first, and file what is found."""
    mode, given = runner.mode, runner.case.label == AS_GIVEN
    if given:
        file_nan(runner, findings)
        if mode.name != "train":
            file_repeats(runner, findings)
    for other in earlier if findings.clean else ():
        if runner.gives_the_bits_of(other):
            findings.add(Tried(mode, twin=other.mode))
            return
    known = {name: pairs.known for name, pairs in findings.leaks.items()}
    small = file_gradients(runner, findings, budget) if mode.usual and budget.gradients != 0 else {}
    examples = []
    if not (stop_at_first and findings.leaking):
        if given and not repeatable(runner):
            cause = "chance or state of objects that are no modules, or an accelerator's atomic sums"
            raise value_error(f"two runs on the same input to agree bit for bit ({mode.label})", "two outputs", cause)
        some = list(
            perturbations(runner.case, budget, findings.unreached() if given else {}, seed=runner.snapshot.runs)
        )
        examples = file_changes(runner, findings, some, small, budget, _FEW if stop_at_first else _MANY)
        if given and not stop_at_first:
            examples += file_changes(runner, findings, list(singles(findings)), {}, budget._replace(alone=0), _MANY)
        findings.add(Tried(mode))
    new = any(bool((pairs.known & ~known[name]).any()) for name, pairs in findings.leaks.items())
    if new and runner.snapshot.modules:
        file_modules(runner, findings, examples, _MODULES if stop_at_first else None)


def file_nan(runner: Runner, findings: Findings) -> None:
    """File outputs that are NaN from the start."""
    for sample, output in (runner.case.judged & ~runner.judged).nonzero().tolist():
        findings.nan_at_once.setdefault((sample, output), runner.evidence(Probe.RUN))


def file_gradients(runner: Runner, findings: Findings, budget: Budget) -> dict[str, Tensor]:
    """File what gradients reach; return the sizes of forbidden ones that may be rounding."""
    judged = runner.judged if runner.case.label == AS_GIVEN else runner.case.judged
    order = judged.flatten().nonzero().flatten()
    order = order[torch.randperm(len(order), generator=seeded(runner.snapshot.runs))][: budget.gradients]
    rows = torch.zeros_like(judged)
    rows.view(-1)[order] = True
    try:
        sizes = gradient_sizes(runner, rows)
    except (ValueError, RuntimeError) as error:
        findings.add(NotTried(Untried.GRADIENTS, runner.mode, runner.case.label, error=one_line(error)))
        return {}
    findings.add(Tried(runner.mode, Probe.GRADIENT, share=(len(order), int(judged.sum()))))
    small = {}
    for name, size in sizes.items():
        samples = range(len(size))
        findings.add(Reached(name, size[samples, :, samples] > 0))
        size = size * runner.case.forbidden(name)
        sure = size > SURE * torch.finfo(runner.case.output.dtype).eps
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
    examples, blurred = list(examples), False
    for item in localize(runner, findings, examples, positions):
        findings.add(item)
        blurred |= isinstance(item, Finished) and item.blurred
    if (blurred or not findings.modules) and any(bool(findings.unnamed(name).any()) for name in findings.leaks):
        with suppress(Exception), runner.exactly() as exact:  # whatever a model raises
            for item in localize(exact, findings, examples, positions):
                findings.add(item)
