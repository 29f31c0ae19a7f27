"""In which order is what tried?"""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from attnmask._audit.budgets import Budget, budget_of, modes_of
from attnmask._audit.cases import other_cases
from attnmask._audit.findings import Findings
from attnmask._audit.modes import AS_IT_IS, first_case, in_modes, some_copies
from attnmask._audit.probes import check_repeatable, perturbations, singles
from attnmask._audit.question import Question
from attnmask._audit.records import AS_GIVEN, OTHER_VALUES, Case, Mode, NotTried, Tried, Untried
from attnmask._audit.runner import Runner
from attnmask._audit.steps import (
    file_changes,
    file_effects,
    file_gradients,
    file_hidden,
    file_modules,
    file_nan,
    file_repeats,
    file_what_ran,
)
from attnmask._measure.progress import one_line, progress
from attnmask._measure.snapshot import Snapshot
from attnmask._measure.threads import suited_threads


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
        snapshots = in_modes(question.call(question.inputs), question.modes, original)
        first, home = first_case(question, list(snapshots.values()))
        with suited_threads(partial(some_copies, first, home)):
            trial = Trial(first)
            if AS_IT_IS in snapshots:
                trial.of(first).add(NotTried(Untried.MODES, detail=" and ".join(question.modes)))
            trial = try_cases(question, trial, [first], snapshots)
            if not trial.runners[first]:  # it ran to the end in no mode
                raise next(iter(trial.errors.values()))
            if not trial.ended:
                home.resume()
                others = list(other_cases(question, trial.of(first), home))
                for each in others:
                    trial.of(first).add(each)
                trial = try_cases(question, trial, [each for each in others if isinstance(each, Case)], snapshots)
            if trial.ended:
                trial.of(first).add(NotTried(Untried.REST))
        return list(trial.found.values()), sum(each.runs for each in {original, *snapshots.values()})


def try_cases(question: Question, trial: Trial, cases: list[Case], snapshots: dict[str, Snapshot]) -> Trial:
    """Try cases in each mode; anew, where a weight turns out to have been written without a trace meanwhile."""
    for name, snapshot in snapshots.items():
        if not trial.ended:
            snapshot.resume()
            pairs = [(case, mode) for case in cases for mode in modes_of(case, name, list(snapshots))]
            last = name == list(snapshots)[-1]
            trial = snapshot.settled(partial(try_pairs, question, trial, pairs, snapshot, last))
    return trial


def try_pairs(
    question: Question, before: Trial, pairs: list[tuple[Case, Mode]], snapshot: Snapshot, last: bool
) -> Trial:
    """Try each case in its mode, and add to what was found before.

    Other cases are compared with earlier modes only where those gave the same bits for the first case, and
    their gradients are taken in the last mode only.
    """
    trial = before.copy()
    for case, mode in progress([pair for pair in pairs if pair[1] not in trial.errors], "audit"):
        findings, runner = trial.of(case), Runner(case, mode, snapshot, plain=trial.plain)
        first, earlier = case is trial.first, trial.runners.setdefault(case, [])
        alike = [each for each in earlier if first or Tried(mode, twin=each.mode) in trial.of(trial.first).tried]
        budget = budget_of(case, trial.first, again=bool(earlier), gradients=first or last or case.resampled)
        try:
            examine(runner, findings, budget, alike, question)
        except Exception as error:  # whatever a model raises
            if first and runner.bits is not None:
                raise
            findings.add(NotTried(Untried.MODE, mode, case.label, error=one_line(error)))
            trial.errors.update({mode: error} if first else {})
            continue
        runner.forget()
        earlier.append(runner)
        trial.plain = runner.plain if trial.plain is None else trial.plain
        if question.stop_at_first and findings.failed:
            trial.ended = True
            break
    return trial


def examine(runner: Runner, findings: Findings, budget: Budget, alike: list[Runner], question: Question) -> None:
    """Try one case in one mode: what costs least first, and nothing that another mode has shown bit for bit."""
    stop_at_first = question.stop_at_first
    first = runner.case.label == AS_GIVEN
    if first:
        file_nan(runner, findings)
    twin = next((each for each in alike if findings.clean and runner.gives_the_bits_of(each)), None)
    before, examples = findings.copy(), []
    small: dict[str, Tensor] = {}
    if twin is None and runner.mode.usual and budget.gradients != 0:
        small = file_gradients(runner, findings, budget, stop_at_first)
    ended = stop_at_first and findings.leaking
    if first and not ended:
        if twin is None:
            check_repeatable(runner)
        file_repeats(runner, findings)
    if twin is not None:
        findings.add(Tried(runner.mode, twin=twin.mode))
    elif not ended:
        some = perturbations(runner.case, budget, findings.unreached() if first else {}, runner.seed)
        examples = file_changes(runner, findings, some, small, budget.unbatched, stop_at_first)
        if first and not stop_at_first:
            examples += file_changes(runner, findings, singles(findings), {}, 0, stop_at_first)
        file_what_ran(runner, findings)
        if question.exact and runner.case.is_complete and not (stop_at_first and findings.leaking):
            file_hidden(runner, findings)
    if first and twin is None:
        file_effects(runner, findings)
    if findings.leaks_more_than(before):
        file_modules(runner, findings, examples, stop_at_first)
