"""Write the exercise notebooks from the tasks of the companion: `make notebooks` calls this before it runs them."""

import json
from pathlib import Path

import nbformat

from attnmask.exercises.task import Task, tasks
from run_notebooks import METADATA

BOOK = Path(__file__).parents[1] / "book"
FOLDER = BOOK / "5-practice"
# The chapters of a part, and its name.
PARTS = {"exercises-1-four-tokens": (1, 7), "exercises-2-tensors": (8, 13), "exercises-3-models": (14, 17)}
OPENING = """\
# Exercises: {part}

:::{{admonition}} Before you start
:class: note
- **What you will do:** write {count} functions. The checker tries each on many cases, and says which mistake it is.
- **What you need:** the chapters that the exercises name, and the companion, from a copy of the book's repository:
  `pip install ./companion`.
- **Runs in:** a few seconds on two cores.
:::

Put your code in the place of `pass`, and run the cell. What you use is up to you: loops, `torch`, even `attnmask`.
`check` calls your function with many inputs, and compares what comes with plain loops.
"""
EXERCISE = """\
## `{name}`

:::{{exercise}}
:label: exercise-{name}

{text}

Taught in {chapter}.
:::
{hints}
"""
HINT = """
:::{{dropdown}} Hint {number}
{hint}
:::
"""
SOLUTION = """\
:::{{solution}} exercise-{name}
:class: dropdown

```python
{code}
```
:::
"""
IMPORTS = """\
import torch
from torch import nn

import attnmask
from attnmask.exercises import check, status"""
DEMONSTRATION = """\
def padding_from_ids(ids, pad_id):
    return ids == pad_id


check("padding_from_ids", padding_from_ids)"""


def notebook(stem: str) -> nbformat.NotebookNode:
    """Make one notebook, without outputs."""
    first, last = PARTS[stem]
    chosen = [task for task in tasks().values() if first <= int(task.chapter) <= last]
    cells = [markdown("opening", OPENING.format(part=name_of(stem), count=len(chosen))), code("imports", IMPORTS)]
    if first == 1:
        told = "Here is how a mistake is answered. This function says which tokens are padding, the wrong way round:"
        cells += [markdown("shown", told), code("demonstration", DEMONSTRATION)]
        cells.append(markdown("now-you", "Now you. The first exercise is that function."))
    for task in chosen:
        stub = f'{task.signature}\n    pass  # your code\n\n\ncheck("{task.name}", {task.name})'
        cells += [
            markdown(f"{task.name}-text", exercise(task)),
            code(task.name, stub),
            markdown(f"{task.name}-solution", SOLUTION.format(name=task.name, code=task.code)),
        ]
    cells += [markdown("end", "## How far are you?\n\n`status` lists what the checks of this session said:")]
    cells += [code("status", "print(status())")]
    return nbformat.v4.new_notebook(cells=cells, metadata=METADATA)


def name_of(stem: str) -> str:
    """Say the part's name: "four tokens" for exercises-1-four-tokens."""
    return stem.split("-", 2)[2].replace("-", " ")


def exercise(task: Task) -> str:
    """Write the text of one exercise, its chapter and its hints."""
    chapter = next(BOOK.glob(f"*/{task.chapter}-*.ipynb"))
    cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
    link = f"[{''.join(cells[0]['source']).splitlines()[0].removeprefix('# ')}](../{chapter.relative_to(BOOK)})"
    hints = "".join(HINT.format(number=number, hint=hint) for number, hint in enumerate(task.hints, start=1))
    return EXERCISE.format(name=task.name, text=task.text, chapter=link, hints=hints)


def markdown(name: str, text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(text.strip(), id=name.replace("_", "-"))


def code(name: str, text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(text, id=name.replace("_", "-"))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for stem in PARTS:
        nbformat.write(notebook(stem), FOLDER / f"{stem}.ipynb")
