"""What does a learner call? check, hint, solution, status."""

import difflib
import inspect

from attnmask._check import kind_of, type_error, value_error
from attnmask.exercises.judge import Result, judge
from attnmask.exercises.task import Answer, Task, tasks

_seen: dict[str, Result] = {}  # the last result of each task, for `status`


def check(name: str, answer: Answer) -> Result:
    """Try an answer on many cases, and say whether it is right or which mistake it is.

    Parameters
    ----------
    name
        The name of the task, as `status` lists it.
    answer
        The function that you wrote. It is called on copies, and stopped after five seconds.

    Returns
    -------
    Result
        True as a bool if the answer passed.

    Raises
    ------
    ValueError, TypeError
        No task has that name; the answer is no function.

    Examples
    --------
    >>> import torch
    >>> check("causal", lambda length, device: torch.ones(length, length, device=device).triu() == 1)
    causal: not yet, right in 1 of 8 cases.
    Mistake: transposed. Rows are queries and columns are keys. Yours has them the other
      way round.
    A small case that differs: length = 2, device = cpu
      expected    yours
      1 0         1 1
      1 1         0 1
    >>> check("causal", lambda length, device: torch.ones(length, length, device=device).tril() == 1).passed
    True
    """
    task = _find(name)
    if not callable(answer):
        raise type_error(
            f"a function {task.name}{inspect.signature(task.solution)}",
            kind_of(answer),
            "the function was called: write check(name, function), without parentheses behind it",
        )
    result = judge(task, answer)
    _seen[name] = result
    return result


def hint(name: str, number: int = 1) -> str:
    """Return a hint for a task; a higher number says more.

    >>> print(hint("causal"))
    The query's place is the row, the key's place the column.
    """
    hints = _find(name).hints
    if not 1 <= number <= len(hints):
        raise value_error(f"a number from 1 to {len(hints)}", f"{number}", f"{name} has {len(hints)} hints")
    return hints[number - 1]


def solution(name: str) -> str:
    """Return the source of one right answer.

    >>> print(solution("padding_from_ids"))
    def padding_from_ids(ids, pad_id):
        return ids != pad_id
    """
    return _find(name).code


def status() -> str:
    """List the tasks with what this session's last check of each one said.

    >>> print(status().splitlines()[0])
    Chapter  Task                       Passed
    """
    lines = [f"{'Chapter':8} {'Task':26} Passed"]
    for name, task in tasks().items():
        seen = _seen.get(name)
        word = "" if seen is None or not seen.attempted else "yes" if seen.passed else "not yet"
        lines.append(f"{task.chapter:8} {name:26} {word}".rstrip())
    return "\n".join(lines)


def _find(name: str) -> Task:
    if name in tasks():
        return tasks()[name]
    near = difflib.get_close_matches(str(name), tasks(), n=1)
    raise value_error(
        "the name of a task, as status() lists them",
        repr(name),
        f"a spelling slip; {near[0]!r} is near" if near else "a name from elsewhere",
    )
