"""The six trainings of the chapter on wrong masks, by its own functions, from five seeds and with fewer steps."""

import ast
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("as_installed")  # checked at every call, training takes twice as long

CHAPTER = Path(__file__).parents[1] / "book" / "3-models" / "15-training.ipynb"
SEES_THE_ANSWER = {"no causal mask", "targets not shifted"}
SEES_PADDING = {"no padding mask", "padding in layer 1 only"}


def defines(node):
    """Whether a statement is an import, a function, or a constant: what has run before anything is trained."""
    constant = isinstance(node, ast.Assign) and all(name.id.isupper() or name.id == "device" for name in names(node))
    return constant or isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef)


def names(assignment):
    return [node for target in assignment.targets for node in ast.walk(target) if isinstance(node, ast.Name)]


@pytest.fixture(scope="module")
def chapter():
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    tree = ast.parse(text)
    tree.body = [node for node in tree.body if defines(node)]
    namespace = {}
    exec(compile(tree, CHAPTER.name, "exec"), namespace)
    return namespace


def steps_until(losses, bound):
    """The step from which the mean of ten losses lies below the bound for the first time."""
    return int((losses.unfold(0, 10, 1).mean(-1) < bound).nonzero()[0])


@pytest.mark.parametrize("seed", range(5))
def test_each_mistake_shows_its_symptom_and_no_other(chapter, seed):
    assert {"correct", "pads in the loss"} | SEES_THE_ANSWER | SEES_PADDING == set(chapter["VARIANTS"])
    trained = {variant: chapter["train"](variant, seed, steps=400) for variant in chapter["VARIANTS"]}
    needed = steps_until(trained["correct"][1][1], 0.1)
    for variant, (model, (reported, real)) in trained.items():
        right, same = chapter["shares"](*chapter["examine"](variant, model, alone=40))
        assert chapter["validation"](variant, model) < 0.1, variant
        assert right < 0.05 if variant in SEES_THE_ANSWER else right >= 0.99, variant
        assert (same < 1) == (variant in SEES_PADDING), variant
        assert (steps_until(real, 0.1) < 0.84 * needed) == (variant in SEES_THE_ANSWER), variant
        assert reported.sum() < 0.95 * real.sum() if variant == "pads in the loss" else reported.equal(real), variant
        assert chapter["ask"](variant, model).ok == (variant not in SEES_THE_ANSWER | SEES_PADDING), variant
