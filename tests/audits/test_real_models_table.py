"""The table of transformers' models: each has its row, those that are right are so, and those accused are accused."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "companion" / "benchmarks"


def loaded():
    spec = importlib.util.spec_from_file_location("benchmark_models", BENCHMARKS / "models.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


models = loaded()
SOME = ("Gemma 2, local", "Qwen3-Next", "Jamba", "DeepSeek-V3", "Llama 4, chunks", "Longformer, local", "LongT5")


def test_every_model_has_its_row():
    right, accused = (BENCHMARKS / "models.md").read_text().split("## Rightly accused")
    assert len(models.MODELS) >= 40
    for entry in models.MODELS:
        assert f"| {entry.name} | `{models.asked(entry.allowed)}` | obeys exactly |" in right
    for entry in models.ACCUSED:
        assert f"| {entry.name} |" in accused
        assert entry.why


@pytest.mark.parametrize("entry", [each for each in models.MODELS if each.name in SOME], ids=lambda each: each.name)
def test_what_the_table_calls_right_is_right(entry):
    report, _, warned = models.examined(entry)
    assert report.ok, report
    assert not report.suspects
    assert not warned


@pytest.mark.parametrize("entry", models.ACCUSED, ids=lambda each: each.name)
def test_what_the_table_accuses_is_accused(entry):
    report, _, _ = models.examined(entry)
    assert report.leaks
