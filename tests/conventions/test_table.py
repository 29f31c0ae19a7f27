"""The table and the names of `conventions` hold all that its modules define."""

import inspect
import pkgutil
from importlib import import_module

import pytest

from attnmask import conventions

MODULES = [import_module(f"attnmask.conventions.{found.name}") for found in pkgutil.iter_modules(conventions.__path__)]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_what_a_module_defines_can_be_reached(module):
    assert set(getattr(module, "ROWS", ())) <= set(conventions.LIBRARIES)
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if name.startswith(("to_", "from_")) and function.__module__ == module.__name__:
            assert getattr(conventions, name, None) is function, name


def test_the_table_names_functions_that_there_are_and_one_argument_once():
    written = {row.write for row in conventions.LIBRARIES} - {"", "mask", "mask.dense"}
    assert all(hasattr(conventions, name) for name in written)
    arguments = [(row.call, row.argument) for row in conventions.LIBRARIES]
    assert len(arguments) == len(set(arguments))


def test_a_row_names_the_version_it_was_run_with_or_its_documentation():
    for row in conventions.LIBRARIES:
        assert bool(row.version) != bool(row.source), row.call
        assert row.version or row.source.startswith("https://"), row.call
    listed = conventions.as_markdown(["call", "version"])
    assert "| `Attention (opset 25)` | [documentation](https://onnx.ai/" in listed
    assert "| `FlexAttention` | 2.13.0 |" in listed
