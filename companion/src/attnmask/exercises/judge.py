"""Is an answer right, and if not, which mistake is it? Every case is tried; a mistake is named if it explains all."""

import inspect
from collections.abc import Sequence
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


def judge(task: Task, answer: Answer) -> Result:
    """Run an answer on every case of a task, and say what came of it."""
    if wrong := _does_not_take(task, answer):
        return Result(task.name, False, f"{task.name}: not yet. {wrong}")
    cases = list(task.cases(Draw()))
    tried = run(answer, cases, SECONDS)
    if tried.outcomes and all(_is_empty(outcome) for outcome in tried.outcomes):
        words = f"{task.name}: not attempted yet. Write the function, then run this again."
        return Result(task.name, False, words, attempted=False)
    printed = len(tried.printed.splitlines())
    said = f"\nIt printed {printed} line{'s'[: printed > 1]}; what counts is what it returns." if printed else ""
    if len(tried.outcomes) < len(cases):
        where = spell(cases[len(tried.outcomes)])
        words = f"{task.name}: not yet. It was stopped after {SECONDS:g} seconds, at {where}."
        return Result(task.name, False, words + said)

    expected = [call(task.spec, case) for case in cases]
    wrong_in = [
        place
        for place, pair in enumerate(zip(expected, tried.outcomes, strict=True))
        if RIGHT not in explain([(None, pair[0])], pair[1])
    ]
    if not wrong_in:
        return _on_another_device(task, answer, cases, said)
    return _wrong(task, cases, expected, tried.outcomes, wrong_in, said)


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


def _wrong(
    task: Task,
    cases: Sequence[Case],
    expected: Sequence[Outcome],
    came: Sequence[Outcome],
    wrong_in: Sequence[int],
    said: str,
) -> Result:
    mistakes = _named(task, cases, expected, came, wrong_in)
    facts = [f"Mistake: {name}. {_advice(task, name)}" for name in mistakes]
    if not mistakes:
        mistakes, facts = _facts(task, cases, expected, came, wrong_in)
    first = wrong_in[0]
    lines = [f"{task.name}: not yet, right in {len(cases) - len(wrong_in)} of {len(cases)} cases.", *facts]
    lines += [f"The smallest case that differs: {spell(cases[first])}", side_by_side(expected[first], came[first])]
    tables = table_of(expected[first], came[first])
    return Result(task.name, False, "\n".join(lines) + said, mistakes=mistakes, smallest=tables)


def _named(
    task: Task, cases: Sequence[Case], expected: Sequence[Outcome], came: Sequence[Outcome], wrong_in: Sequence[int]
) -> tuple[str, ...]:
    """Return the fewest mistakes that, made on purpose, give what the answer gave in every case."""
    common: set[Explanation] | None = None
    for place in sorted(range(len(cases)), key=lambda place: place not in wrong_in):
        alive = [mistake for mistake in task.mistakes if common is None or any(mistake.name in one for one in common)]
        results = [(None, expected[place])] + [(one.name, call(one.answer, cases[place])) for one in alive]
        found = explain(results, came[place])
        common = found if common is None else common & found
        if not common:
            return ()
    ours = [mistake.name for mistake in task.mistakes]
    best = min(common or {RIGHT}, key=lambda one: (len(one), -len(one & set(ours)), sorted(one)))
    return tuple(sorted(best, key=lambda name: (name not in ours, name)))


def _advice(task: Task, name: str) -> str:
    own = {mistake.name: mistake.advice for mistake in task.mistakes}
    return own.get(name) or names.ADVICE[name.split(" (")[0]]


def _facts(
    task: Task, cases: Sequence[Case], expected: Sequence[Outcome], came: Sequence[Outcome], wrong_in: Sequence[int]
) -> tuple[tuple[str, ...], list[str]]:
    """Say what differs where no mistake explains it: what holds in every case, and nothing beyond."""
    found, facts = [], []
    if any(outcome.changed for outcome in came):
        found.append(names.MUTATED)
        facts.append(f"Mistake: {names.MUTATED}. {names.ADVICE[names.MUTATED]}")
    for group, belongs in task.groups.items():
        inside = {place for place, case in enumerate(cases) if belongs(case)}
        if inside and inside == set(range(len(cases))) - set(wrong_in):
            found.append(f"works only for {group}")
            facts.append(f"Mistake: works only for {group}. It is right in all of those cases, and in no other.")
    pairs = [(expected[place].value, came[place].value) for place in wrong_in]
    if all(_are_masks(*pair) for pair in pairs):
        if not any(bool((got & ~wanted).any()) for wanted, got in pairs):
            found.append(names.TOO_MUCH)
        elif not any(bool((wanted & ~got).any()) for wanted, got in pairs):
            found.append(names.TOO_LITTLE)
        if found and found[-1] in (names.TOO_MUCH, names.TOO_LITTLE):
            facts.append(f"Mistake: {found[-1]}. {names.ADVICE[found[-1]]}")
    return tuple(found), facts


def _are_masks(wanted: Any, got: Any) -> bool:
    masks = all(isinstance(value, Tensor) and value.dtype == torch.bool for value in (wanted, got))
    return masks and wanted.shape == got.shape


def _on_another_device(task: Task, answer: Answer, cases: Sequence[Case], said: str) -> Result:
    """Call a right answer where the inputs do not live on the CPU: on the accelerator, else on tensors without data."""
    passed = f"{task.name}: passed, right in all {len(cases)} cases"
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("meta")
    moved = [case for case in (_moved(case, device) for case in cases) if case is not None]
    if not moved:
        return Result(task.name, True, f"{passed}.{said}")
    moved = moved if device.type != "meta" else moved[-1:]
    outcomes = run(answer, moved, SECONDS).outcomes
    error = next((outcome.error for outcome in outcomes if outcome.error), None)
    if _left_behind(outcomes, device) or (error and _mixes_devices(error)):
        lines = [f"{task.name}: not yet, right in all {len(cases)} cases on the CPU, but not elsewhere."]
        lines += [f"Mistake: {names.DEVICE}. {names.ADVICE[names.DEVICE]}"]
        return Result(task.name, False, "\n".join(lines) + said, mistakes=(names.DEVICE,))
    if device.type == "meta":
        tail = ". (Another device was not tried: it needs the values of its inputs.)" if error or not outcomes else "."
        return Result(task.name, True, passed + tail + said)
    expected = [call(task.spec, case) for case in cases]
    for case, wanted, got in zip(cases, expected, outcomes, strict=False):
        if RIGHT not in explain([(None, wanted)], got._replace(value=_to(got.value, torch.device("cpu")))):
            lines = [f"{task.name}: not yet, right on the CPU, but on {device.type} it differs at {spell(case)}."]
            return Result(task.name, False, "\n".join([*lines, side_by_side(wanted, got)]) + said)
    return Result(task.name, True, f"{passed}, on the CPU and on {device.type}.{said}")


def _moved(case: Case, device: torch.device) -> Case | None:
    """Return the case with its tensors on another device; None if none of it can go there."""
    if any(isinstance(value, nn.Module) for value in case.values()):
        return None
    if not any(isinstance(value, Tensor | torch.device) for value in case.values()):
        return None
    return {name: _to(value, device) for name, value in case.items()}


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: _to(entry, device) for name, entry in value.items()}
    if isinstance(value, torch.device):
        return device
    return value.to(device) if isinstance(value, Tensor) and value.device.type != "meta" else value


def _left_behind(outcomes: Sequence[Outcome], device: torch.device) -> bool:
    values = [value for outcome in outcomes for value in _tensors(outcome.value)]
    return any(value.device.type != device.type for value in values)


def _tensors(value: Any) -> list[Tensor]:
    entries = value.values() if isinstance(value, dict) else [value]
    return [entry for entry in entries if isinstance(entry, Tensor)]


def _mixes_devices(error: BaseException) -> bool:
    return any(part in str(error) for part in ("expected device", "same device"))
