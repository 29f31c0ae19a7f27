"""The exercise notebooks are what the tasks make of them; untouched they run, and with the solutions they pass."""

import json
import re

import pytest

from attnmask.exercises import solution
from attnmask.exercises.task import tasks
from write_exercises import BOOK, FOLDER, PARTS, name_of, notebook

every_part = pytest.mark.parametrize("stem", PARTS)


@every_part
def test_a_notebook_is_what_its_tasks_make_of_it(stem):
    committed = json.loads((FOLDER / f"{stem}.ipynb").read_text(encoding="utf-8"))
    made = [(cell.cell_type, cell.id, cell.source) for cell in notebook(stem).cells]
    assert [(cell["cell_type"], cell["id"], "".join(cell["source"])) for cell in committed["cells"]] == made


@every_part
def test_with_the_solutions_filled_in_every_check_passes(stem):
    space, checked = {}, []
    for cell in notebook(stem).cells:
        if cell.cell_type != "code":
            continue
        source, name = cell.source, re.match(r"def (\w+)\(.*\):\n    pass  # your code\n", cell.source)
        if name:
            source = source.replace(name[0], solution(name[1]) + "\n").replace("\ncheck(", "\nresult = check(")
        exec(source, space)  # as the notebook's kernel does, one cell after the other
        if name:
            assert space["result"].passed, space["result"]
            checked.append(name[1])
    first, last = PARTS[stem]
    assert checked == [task.name for task in tasks().values() if first <= int(task.chapter) <= last]


def test_each_task_is_in_one_notebook_and_linked_from_its_chapter():
    for task in tasks().values():
        (chapter,) = BOOK.glob(f"*/{task.chapter}-*.ipynb")
        cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        (stem,) = (stem for stem, (first, last) in PARTS.items() if first <= int(task.chapter) <= last)
        line = " ".join(re.search(r"\*\*Write it yourself:\*\* (.*?)\n\n", text, flags=re.DOTALL)[1].split())
        assert f"`{task.name}`" in line
        assert line.endswith(f"[Exercises: {name_of(stem)}](../5-practice/{stem}.ipynb).")
