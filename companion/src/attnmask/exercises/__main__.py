"""How are the exercises done without a notebook? With a file of answers, checked from the command line."""

import argparse
import runpy
import sys
from pathlib import Path
from typing import Any

from attnmask._check import sentence
from attnmask.exercises.checks import check, hint, solution, status
from attnmask.exercises.task import tasks


def main(arguments: list[str] | None = None) -> int:
    """List the tasks, write a file to fill in, check it, or give a hint.

    Returns
    -------
    int
        0, or 1 if an answer is wrong or a file could not be read or written.

    Examples
    --------
    >>> main(["hint", "causal"])
    The query's place is the row, the key's place the column.
    0
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m attnmask.exercises", description=__doc__)
    parser.set_defaults(run=_list, file=Path("answers.py"))
    commands = parser.add_subparsers(metavar="command")
    for name, run, text in (
        ("list", _list, "list the tasks, with what the file of answers has of them (this is the default)"),
        ("start", _start, "write a file with every task, to be filled in"),
        ("check", _check_file, "check the file's answers, or those to the tasks that are named"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--file", type=Path, default=Path("answers.py"), help="default: answers.py")
        command.set_defaults(run=run)
        if name == "check":
            command.add_argument("tasks", nargs="*")
    asked = commands.add_parser("hint", help="give a hint")
    asked.add_argument("task")
    asked.add_argument("number", nargs="?", type=int, default=1)
    asked.set_defaults(run=lambda options: print(hint(options.task, options.number)) or 0)
    shown = commands.add_parser("solution", help="show one right answer")
    shown.add_argument("task")
    shown.set_defaults(run=lambda options: print(solution(options.task)) or 0)
    return parser


def _list(options: argparse.Namespace) -> int:
    if options.file.exists():
        answers = _read(options.file)
        for name in tasks():
            if name in answers:
                check(name, answers[name])
    print(status())
    if not options.file.exists():
        print(f"\nThere is no {options.file} yet; python -m attnmask.exercises start writes one.")
    return 0


def _start(options: argparse.Namespace) -> int:
    stubs = [f"# Chapter {task.chapter}\n{task.stub}" for task in tasks().values()]
    if options.file.exists():
        raise ValueError(sentence(f"no file {options.file} yet", "one", "answers from before; --file names another"))
    with options.file.open("x", encoding="utf-8") as file:
        file.write("\n\n\n".join(["import torch\nfrom torch import nn", *stubs]) + "\n")
    print(f"{options.file} has {len(stubs)} functions to write. Then: python -m attnmask.exercises check")
    return 0


def _check_file(options: argparse.Namespace) -> int:
    answers, wrong = _read(options.file), 0
    for name in options.tasks or [name for name in tasks() if name in answers]:
        if name in tasks() and name not in answers:
            print(f"{name}: {options.file} has no function of that name.")
            wrong += 1
            continue
        result = check(name, answers.get(name, lambda: None))
        print(result)
        wrong += result.attempted and not result.passed
    return 1 if wrong else 0


def _read(file: Path) -> dict[str, Any]:
    """Run the file, and return what it defines."""
    if not file.exists():
        raise ValueError(sentence(f"a file {file}", "none", "another folder, or python -m attnmask.exercises start"))
    try:
        return runpy.run_path(str(file))
    except BaseException as error:  # it may raise anything
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(sentence(f"{file} to run", said, "a slip outside of the functions")) from error


if __name__ == "__main__":
    sys.exit(main())
