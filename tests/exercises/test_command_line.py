"""The exercises without a notebook."""

import subprocess
import sys

import pytest

from attnmask.exercises.__main__ import main
from attnmask.exercises.task import tasks


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_nothing_to_a_file_of_right_answers(folder, capsys):
    assert main([]) == 0
    assert "There is no answers.py yet" in capsys.readouterr().out
    assert main(["start"]) == 0
    answers = folder / "answers.py"
    assert "from torch import nn" in answers.read_text(encoding="utf-8")

    assert main(["check"]) == 0  # nothing is wrong yet
    said = capsys.readouterr().out
    assert said.count("not attempted yet") == len(tasks())

    text = answers.read_text(encoding="utf-8")
    for task in tasks().values():
        text = text.replace(task.stub, task.code)
    answers.write_text("import attnmask\n" + text, encoding="utf-8")
    assert main(["check"]) == 0
    assert capsys.readouterr().out.count(": passed") == len(tasks())
    assert main([]) == 0
    assert capsys.readouterr().out.count(" yes\n") == len(tasks())


def test_a_wrong_answer_is_named_in_plain_text(folder, capsys):
    (folder / "mine.py").write_text("def padding_from_ids(ids, pad_id):\n    return ids == pad_id\n", encoding="utf-8")
    assert main(["check", "--file", "mine.py"]) == 1
    assert "Mistake: inverted polarity." in capsys.readouterr().out
    assert main(["check", "--file", "mine.py", "causal"]) == 1
    assert "causal: mine.py has no function of that name." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "Expected a file answers.py; got none."),
        ("def causal(:\n", "Expected answers.py to run; got SyntaxError"),
        ("1 / 0\n", "Expected answers.py to run; got ZeroDivisionError: division by zero."),
        ("import sys\nsys.exit(3)\n", "Expected answers.py to run; got SystemExit: 3."),
    ],
    ids=["missing", "syntax", "raises", "exits"],
)
def test_a_file_that_does_not_run_is_reported(folder, capsys, content, said):
    if content is not None:
        (folder / "answers.py").write_text(content, encoding="utf-8")
    assert main(["check"]) == 1
    assert said in capsys.readouterr().err


def test_answers_are_never_overwritten(folder, capsys):
    (folder / "answers.py").write_text("# mine\n", encoding="utf-8")
    assert main(["start"]) == 1
    assert "Expected no file answers.py yet; got one." in capsys.readouterr().err
    assert (folder / "answers.py").read_text(encoding="utf-8") == "# mine\n"


def test_hints_solutions_and_wrong_names(folder, capsys):
    assert main(["hint", "causal", "2"]) == 0
    assert "torch.tril" in capsys.readouterr().out
    assert main(["solution", "causal"]) == 0
    assert capsys.readouterr().out.startswith("def causal(length, device):\n    return ")
    assert main(["hint", "caual"]) == 1
    assert main(["check", "caual"]) == 1
    assert "'causal' is near" in capsys.readouterr().err


def test_it_runs_as_a_module(folder):
    done = subprocess.run([sys.executable, "-m", "attnmask.exercises"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Chapter  Task")
