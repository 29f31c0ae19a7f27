"""Is an answer right, and if not, which mistake is it? Every case is tried; a mistake is named if it explains all."""

import inspect
import textwrap
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attnmask.exercises import mistakes as names
from attnmask.exercises.calls import Outcome, call, run
from attnmask.exercises.explain import RIGHT, Explanation, explain
from attnmask.exercises.task import Answer, Case, Draw, Task
from attnmask.exercises.words import side_by_side, spell, table_of

SECONDS = 5.0  # what an answer may take for all its cases
WIDTH = 84  # of a line of text, in letters


@dataclass(frozen=True)
class Result:
    """What a check found. Its ``repr`` says it in words; a notebook shows a picture as well.

    Attributes
    ----------
    task
        The name of the task.
    passed
        Whether the answer was right in every case.
    attempted
        Whether there was an answer at all.
    mistakes
        The names of what is wrong, if these mistakes, made on purpose, give in every case what the answer gave.
    words
        All of it as text.
    """

    task: str
    passed: bool
    words: str
    attempted: bool = True
    mistakes: tuple[str, ...] = ()
    smallest: tuple[Tensor, Tensor] | None = field(default=None, repr=False)  # expected and yours, as two tables

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self.words

    def _repr_html_(self) -> str | None:
        if self.smallest is None:
            return None
        from attnmask.exercises.picture import as_html  # loads matplotlib

        return as_html(self.words, *self.smallest)


@dataclass(frozen=True)
class _Trial:
    """One answer on every case of its task."""

    task: Task
    cases: list[Case]
    expected: list[Outcome]  # what the loops make of the cases
    came: list[Outcome]  # what the answer made of them
    tail: str  # what there is to say at the end

    @property
    def wrong(self) -> list[int]:
        """The numbers of the cases in which the answer is not right."""
        pairs = zip(self.expected, self.came, strict=True)
        return [place for place, (wanted, came) in enumerate(pairs) if RIGHT not in explain([(None, wanted)], came)]

    def result(self, *lines: str, passed: bool = False, **fields: Any) -> Result:
        """Make a result of some lines of text."""
        return Result(self.task.name, passed, "\n".join([*lines]) + self.tail, **fields)


def judge(task: Task, answer: Answer) -> Result:
    """Run an answer on every case of a task, and say what came of it."""
    if mismatch := _does_not_take(task, answer):
        return Result(task.name, False, f"{task.name}: not yet. {mismatch}")
    cases = list(task.cases(Draw()))
    came, printed = run(answer, cases, SECONDS)
    if came and all(_is_empty(outcome) for outcome in came):
        words = f"{task.name}: not attempted yet. Write the function, then run this again."
        return Result(task.name, False, words, attempted=False)
    count = len(printed.splitlines())
    tail = f"\nIt printed {count} line{'s'[: count > 1]}; what counts is what it returns." if printed else ""
    if len(came) < len(cases):
        words = f"{task.name}: not yet. It was stopped after {SECONDS:g} seconds, at {spell(cases[len(came)])}."
        return Result(task.name, False, words + tail)
    trial = _Trial(task, cases, [call(task.spec, case) for case in cases], came, tail)
    return _say_what_is_wrong(trial) if trial.wrong else _on_another_device(trial, answer)


def _does_not_take(task: Task, answer: Answer) -> str:
    """Say so if the answer cannot be called with the task's arguments."""
    wanted = inspect.signature(task.solution)
    try:
        inspect.signature(answer).bind(*wanted.parameters)
    except TypeError:
        return f"It should take the arguments {wanted}; yours takes {inspect.signature(answer)}."
    except ValueError:  # a builtin without a signature
        return ""
    return ""


def _is_empty(outcome: Outcome) -> bool:
    if isinstance(outcome.error, NotImplementedError):
        return True
    return outcome.error is None and (outcome.value is None or outcome.value is ...) and not outcome.changed


def _say_what_is_wrong(trial: _Trial) -> Result:
    own = {mistake.name: mistake.advice for mistake in trial.task.mistakes}
    explained = {name: own.get(name) or names.ADVICE[name.split(" (")[0]] for name in _explained(trial)}
    found = explained or _described(trial)
    tables = {place: table_of(trial.expected[place], trial.came[place]) for place in trial.wrong}
    telling = (place for place, pair in tables.items() if pair and not torch.equal(*pair))
    first = next(telling, trial.wrong[0])
    right = len(trial.cases) - len(trial.wrong)
    return trial.result(
        f"{trial.task.name}: not yet, right in {right} of {len(trial.cases)} cases.",
        *(_mistake(name, advice) for name, advice in found.items()),
        f"A small case that differs: {spell(trial.cases[first])}",
        side_by_side(trial.expected[first], trial.came[first]),
        mistakes=tuple(found),
        smallest=tables[first],
    )


def _mistake(name: str, advice: str) -> str:
    return textwrap.fill(f"Mistake: {name}. {advice}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _explained(trial: _Trial) -> list[str]:
    """Return the fewest mistakes that, made on purpose, give what the answer gave in every case."""
    wrong, mistakes = trial.wrong, trial.task.mistakes
    common: set[Explanation] | None = None
    for place in sorted(range(len(trial.cases)), key=lambda place: place not in wrong):  # what tells most comes first
        alive = [mistake for mistake in mistakes if common is None or any(mistake.name in each for each in common)]
        results = [(mistake.name, call(mistake.answer, trial.cases[place])) for mistake in alive]
        found = explain([(None, trial.expected[place]), *results], trial.came[place])
        common = found if common is None else common & found
        if not common:
            return []
    own = {mistake.name for mistake in mistakes}
    best = min(common or {RIGHT}, key=lambda each: (len(each), -len(each & own), sorted(each)))
    return sorted(best, key=lambda name: (name not in own, name))


def _described(trial: _Trial) -> dict[str, str]:
    """Say what differs where no mistake explains it: what holds in every case, and nothing beyond."""
    found = {}
    if any(outcome.changed for outcome in trial.came):
        found[names.MUTATED] = names.ADVICE[names.MUTATED]
    right = set(range(len(trial.cases))) - set(trial.wrong)
    for group, belongs in trial.task.groups.items():
        if right and right == {place for place, case in enumerate(trial.cases) if belongs(case)}:
            found[f"works only for {group}"] = "It is right in all of those cases, and in no other."
    pairs = [(trial.expected[place].value, trial.came[place].value) for place in trial.wrong]
    if all(_are_masks(*pair) for pair in pairs):
        if not any(bool((came & ~wanted).any()) for wanted, came in pairs):
            found[names.TOO_MUCH] = names.ADVICE[names.TOO_MUCH]
        elif not any(bool((wanted & ~came).any()) for wanted, came in pairs):
            found[names.TOO_LITTLE] = names.ADVICE[names.TOO_LITTLE]
    return found


def _are_masks(wanted: Any, came: Any) -> bool:
    masks = all(isinstance(value, Tensor) and value.dtype == torch.bool for value in (wanted, came))
    return masks and wanted.shape == came.shape


def _on_another_device(trial: _Trial, answer: Answer) -> Result:
    """Call a right answer where the inputs do not live on the CPU: on the accelerator, else on tensors without data."""
    passed = f"{trial.task.name}: passed, right in all {len(trial.cases)} cases"
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("meta")
    there = [_moved(case, device) for case in trial.cases if _can_move(case)]
    if not there:
        return trial.result(f"{passed}.", passed=True)
    came, _ = run(answer, there if device.type != "meta" else there[-1:], SECONDS)
    if any(_left_behind(outcome, device) for outcome in came):
        title = f"{trial.task.name}: not yet, right in all {len(trial.cases)} cases on the CPU, but not elsewhere."
        return trial.result(title, _mistake(names.DEVICE, names.ADVICE[names.DEVICE]), mistakes=(names.DEVICE,))
    if device.type == "meta":
        untried = not came or came[0].error is not None
        note = ". (Another device was not tried: it needs the values of its inputs.)" if untried else "."
        return trial.result(passed + note, passed=True)
    back = [outcome._replace(value=_moved(outcome.value, torch.device("cpu"))) for outcome in came]
    again = _Trial(trial.task, trial.cases[: len(back)], trial.expected[: len(back)], back, trial.tail)
    if again.wrong:
        first = again.wrong[0]
        title = f"{trial.task.name}: not yet, right on the CPU, but on {device.type} it differs at "
        return trial.result(title + spell(trial.cases[first]), side_by_side(again.expected[first], back[first]))
    return trial.result(f"{passed}, on the CPU and on {device.type}.", passed=True)


def _can_move(case: Case) -> bool:
    values = case.values()
    return any(isinstance(value, Tensor | torch.device) for value in values) and not any(
        isinstance(value, nn.Module) for value in values
    )


def _moved(value: Any, device: torch.device) -> Any:
    """Move a tensor, the tensors of a dict, or a device itself; leave the rest."""
    if isinstance(value, dict):
        return {name: _moved(entry, device) for name, entry in value.items()}
    if isinstance(value, torch.device):
        return device
    return value.to(device) if isinstance(value, Tensor) else value


def _left_behind(outcome: Outcome, device: torch.device) -> bool:
    """Did the answer make a tensor elsewhere than where its inputs are?"""
    if outcome.error is not None:
        return any(part in str(outcome.error) for part in ("expected device", "same device"))
    entries = outcome.value.values() if isinstance(outcome.value, dict) else [outcome.value]
    return any(isinstance(entry, Tensor) and entry.device.type != device.type for entry in entries)
