import ast
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
    "masks.rules",
    "masks.mask",
    "masks.constructors",
    "masks",
    "_libraries",
    "_entries",
    "_varlen",
    "conventions",
    "readings",
    "attention",
    "layers",
    "_watch",
    "_trial",
    "probe",
    "_scene",
    "_compare",
    "_examine",
    "audits",
    "walkthrough",
    "symbolic",
    "plot",
    "__init__",
]


def modules():
    """Find every module of the package; a package in it is named as it is imported."""
    for path in SOURCE.rglob("*.py"):
        yield ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"), path


def imports(module):
    tree = ast.parse(dict(modules())[module].read_text(encoding="utf-8"))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.removeprefix("attnmask.") for name in names if name.startswith("attnmask.")}


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_from_those_before_it(module):
    assert imports(module) <= set(ORDER[: ORDER.index(module)])


def test_the_reading_order_is_complete():
    assert set(dict(modules())) == set(ORDER)


def lines_of_code(path):
    """Count the lines that are neither blank, nor comment, nor docstring."""
    text = path.read_text(encoding="utf-8")
    documented = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(bool(re.match(r"\s*[^#\s]", line)) and number not in documented for number, line in lines)


def test_a_module_stays_small_enough_to_read():
    assert max(lines_of_code(path) for _, path in modules()) < 350


def test_importing_the_package_loads_neither_matplotlib_nor_sympy():
    code = "import attnmask, sys; print({'matplotlib', 'sympy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_package_needs_four_libraries():
    needed = {re.match(r"[\w-]+", line)[0] for line in requires("attnmask") if "extra ==" not in line}
    assert needed == {"torch", "matplotlib", "sympy", "jaxtyping"}


def test_the_readme_examples_run():
    readme = (COMPANION / "README.md").read_text(encoding="utf-8")
    examples = [textwrap.dedent(each) for each in re.findall(r"```python\n(.*?)```", readme, re.DOTALL)]
    assert len(examples) == readme.count("```python") == 4
    done = subprocess.run([sys.executable, "-c", "".join(examples)], capture_output=True, text=True, check=True)
    first, second, third = done.stdout.strip().rsplit("\n", 2)
    assert first.startswith("torch.Size([2, 4, 4])")
    weights = [float(number) for number in re.findall(r"\d\.\d*", first)]
    assert weights[2:] == [0, 0]
    assert sum(weights) == pytest.approx(1, abs=1e-3)
    assert (second, third) == ("tensor(True)", "from_multihead(attn_mask=mask)")


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
