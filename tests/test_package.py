import ast
import importlib
import re
import subprocess
import sys
import textwrap
from importlib.metadata import requires
from inspect import ismodule
from pathlib import Path

import pytest

import attnmask

SOURCE = Path(attnmask.__file__).parent
COMPANION = Path(__file__).parents[1] / "companion"
# Reading order: a module imports only from those before it.
ORDER = [
    "_check",
    "_device",
    "masks/rules",
    "masks/mask",
    "masks/constructors",
    "masks/__init__",
    "conventions/table",
    "conventions/installed",
    "conventions/entries",
    "conventions/varlen",
    "conventions/additive",
    "conventions/pytorch",
    "conventions/huggingface",
    "conventions/keras_jax",
    "conventions/gpu",
    "conventions/documented",
    "conventions/__init__",
    "conventions/readings",
    "attention",
    "layers",
    "decoding",
    "numerals",
    "stacks",
    "_measure/__init__",
    "_measure/snapshot",
    "_measure/lookups",
    "_measure/call",
    "_measure/values",
    "_measure/progress",
    "_measure/gradients",
    "_measure/compare",
    "_measure/float64",
    "_measure/threads",
    "probe",
    "_audit/__init__",
    "_audit/records",
    "_audit/findings",
    "_audit/budgets",
    "_audit/question",
    "_audit/cases",
    "_audit/runner",
    "_audit/modes",
    "_audit/probes",
    "_audit/shrink",
    "_audit/confirm",
    "_audit/localize",
    "_audit/calls",
    "_audit/narrow",
    "_audit/reached",
    "_audit/steps",
    "_audit/layers",
    "_audit/engine",
    "_audit/fitting",
    "_audit/report",
    "_invariance/__init__",
    "_invariance/axes",
    "_invariance/trials",
    "_invariance/runs",
    "_invariance/causes",
    "_invariance/engine",
    "audits",
    "walkthrough",
    "symbolic",
    "plot/cells",
    "plot/steps",
    "plot/shapes",
    "plot/path",
    "plot/flow",
    "plot/reports",
    "plot/__init__",
    "__init__",
    "exercises/mistakes",
    "exercises/task",
    "exercises/tasks/__init__",
    *sorted(f"exercises/tasks/{path.stem}" for path in SOURCE.glob("exercises/tasks/[!_]*.py")),  # a new one is found
    "exercises/calls",
    "exercises/explain",
    "exercises/words",
    "exercises/picture",
    "exercises/judge",
    "exercises/checks",
    "exercises/__init__",
    "exercises/__main__",
]
# The most lines of code of a class and of a function: what a reader takes in at once.
LONGEST = {ast.ClassDef: 120, ast.FunctionDef: 40, ast.AsyncFunctionDef: 40}
# What is longer, and why it may be. What no longer is longer has no place here.
EXCEPTIONS = {}


def modules(root):
    """Every module of a package, written as in the reading order: "masks", "plot/cells", "plot/__init__"."""
    return {path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.py")}


def read(root, module):
    return (root / f"{module}.py").read_text(encoding="utf-8")


def found(root, name):
    """The module of a dotted name, a package being its __init__, in a set; nothing for what is no module of ours."""
    package, *parts = name.split(".")
    places = {"/".join(parts), "/".join([*parts, "__init__"])} if package == root.name else set()
    return places & modules(root)


def imports(root, module):
    """The modules of its own package that a module imports from, wherever in its text."""
    named = set()
    for node in ast.walk(ast.parse(read(root, module))):
        if isinstance(node, ast.Import):
            named |= set().union(*(found(root, each.name) for each in node.names))
        elif isinstance(node, ast.ImportFrom):
            folder = [root.name, *module.split("/")][: -node.level] if node.level else []
            source = ".".join([*folder, *filter(None, [node.module])])
            for each in node.names:
                named |= found(root, f"{source}.{each.name}") or found(root, source)  # a module, or a name in one
    return named


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_from_those_before_it(module):
    assert imports(SOURCE, module) <= set(ORDER[: ORDER.index(module)])


def test_the_reading_order_is_complete():
    assert modules(SOURCE) == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


def test_every_way_to_write_an_import_is_seen(tmp_path):
    root = tmp_path / "house"
    (root / "rooms").mkdir(parents=True)
    for empty in ("__init__", "roof", "rooms/__init__", "rooms/attic"):
        (root / f"{empty}.py").touch()
    for line, expected in {
        "from house.roof import tile": {"roof"},
        "from house import roof": {"roof"},
        "from house import tile": {"__init__"},
        "import house.rooms.attic": {"rooms/attic"},
        "from house.rooms import attic": {"rooms/attic"},
        "from house.rooms import door": {"rooms/__init__"},
        "from .attic import trunk": {"rooms/attic"},
        "from . import attic, door": {"rooms/attic", "rooms/__init__"},
        "from ..roof import tile": {"roof"},
        "def late():\n    import house.roof, os": {"roof"},
        "import os\nfrom household import roof": set(),
    }.items():
        (root / "rooms" / "cellar.py").write_text(line, encoding="utf-8")
        assert imports(root, "rooms/cellar") == expected, line


def lines_of_code(text):
    """The numbers of the lines that are neither blank, nor comment, nor docstring."""
    documented = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(text.splitlines(), start=1)
    return {number for number, line in lines if re.match(r"\s*[^#\s]", line)} - documented


def too_long(module):
    """The classes and functions of a module that are longer than their limit, with their lines of code."""
    text = read(SOURCE, module)
    code, measured = lines_of_code(text), {}

    def visit(node, name):
        for each in ast.iter_child_nodes(node):
            inside = f"{name}.{each.name}" if type(each) in LONGEST else name
            if type(each) in LONGEST:
                lines = len(code & set(range(each.lineno, each.end_lineno + 1)))
                if lines > LONGEST[type(each)]:
                    measured[inside] = lines
            visit(each, inside)

    visit(ast.parse(text), module)
    return measured


def test_classes_and_functions_stay_short_enough_to_read():
    measured = {name: lines for module in ORDER for name, lines in too_long(module).items()}
    assert {name: lines for name, lines in measured.items() if name not in EXCEPTIONS} == {}
    assert set(EXCEPTIONS) - set(measured) == set()  # no longer needed: take it out
    assert all(EXCEPTIONS.values())  # each with its reason


@pytest.mark.parametrize("module", ORDER)
def test_a_module_starts_with_the_question_that_it_answers(module):
    assert "?" in ast.get_docstring(ast.parse(read(SOURCE, module))).splitlines()[0]


def test_no_name_hides_a_module():
    for module in ORDER:
        folder, _, last = f"attnmask/{module}".rpartition("/")
        package = importlib.import_module(folder.replace("/", "."))
        if last != "__init__":
            importlib.import_module(f"attnmask/{module}".replace("/", "."))
            assert ismodule(getattr(package, last)), f"{last} in {folder}"


def test_importing_the_package_loads_neither_matplotlib_nor_sympy():
    code = "import attnmask, sys; print({'matplotlib', 'sympy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_package_needs_four_libraries():
    needed = {re.match(r"[\w-]+", line)[0] for line in requires("attnmask") if "extra ==" not in line}
    assert needed == {"torch", "matplotlib", "sympy", "jaxtyping"}


def test_the_readme_examples_run():
    readme = (COMPANION / "README.md").read_text(encoding="utf-8")
    examples = [textwrap.dedent(each) for each in re.findall(r"```python\n(.*?)```", readme, re.DOTALL)]
    assert len(examples) == readme.count("```python") == 7
    done = subprocess.run([sys.executable, "-c", "".join(examples)], capture_output=True, text=True, check=True)
    first, *others = done.stdout.strip().rsplit("\n", 4)
    assert first.startswith("torch.Size([2, 4, 4])")
    weights = [float(number) for number in re.findall(r"\d\.\d*", first)]
    assert weights[2:] == [0, 0]
    assert sum(weights) == pytest.approx(1, abs=1e-3)
    assert others == ["tensor(True)", "from_multihead(attn_mask=mask)", "torch.Size([1, 5])", "('inverted polarity',)"]


def test_every_public_function_documents_itself():
    public = {name: each for name, each in vars(attnmask).items() if not (name.startswith("_") or ismodule(each))}
    assert {"Mask", "attend", "influence", "four_tokens"} < set(public)
    for name, each in public.items():
        assert each.__doc__, name
        if name not in ("Steps", "FourTokens"):
            assert ">>>" in each.__doc__, name


def test_the_four_tokens_are_the_ones_in_the_book():
    four = attnmask.four_tokens()
    assert four.tokens == ("a", "b", "c", "D")
    # By hand: X = [101, 011, 110, 102] times the three weight matrices.
    assert four.query.tolist() == [[0, 1], [2, 1], [0, 2], [1, 1]]
    assert four.key.tolist() == [[0, 1], [2, 0], [0, -1], [1, 2]]
    assert four.value.tolist() == [[1, 0], [0, 1], [-1, -1], [2, 1]]
