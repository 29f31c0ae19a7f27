"""Every model of the corpus that hides too much is told with `exact=True`."""

import warnings

import pytest

from attnmask import NotTriedWarning, assert_allowed, audit
from corpus import NARROW

SEEDS = range(5)
pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.usefixtures("as_installed"),  # thousands of runs: with the checks of every signature, half as fast
]


@pytest.mark.parametrize("case", NARROW, ids=[case.name for case in NARROW])
def test_what_is_hidden_is_told(case):
    """For five seeds; the module named is one that hides, or holds it, and only what is hidden is called so."""
    for seed in SEEDS:
        inputs = case.inputs(seed)
        with pytest.raises(AssertionError, match=r"hides more|does not obey") as caught:
            assert_allowed(case.make(seed), **case.asked(inputs), exact=True)
        if not case.leaks:
            assert "The model hides more than its mask does" in str(caught.value)
            if case.where and "hidden in" in str(caught.value):
                named = str(caught.value).split("hidden in ")[1].splitlines()[0].split(", ")
                alike = (
                    "layers." if case.where.startswith("layers.") else f"{case.where}."
                )  # where several hide, the first
                assert any(f"{each}.".startswith(alike) for each in named), named


@pytest.mark.parametrize("case", NARROW, ids=[case.name for case in NARROW])
def test_just_the_hidden_pairs_are_missing(case):
    """For one seed, on inputs that show it; of those that leave in the depth of float64, some."""
    inputs = (case.shown_on or case.inputs)(0)
    report = audit(case.make(0), **case.asked(inputs), exact=True, lengths=[], until_leak=not case.leaks)
    missing = {(each.sample, each.output, each.input) for each in report.missing}
    hidden = set(case.hidden(inputs))
    assert missing == hidden or (case.name == "alibi_slopes_grow" and missing and missing < hidden)


@pytest.mark.parametrize("case", NARROW, ids=[case.name for case in NARROW])
def test_without_exact_nothing_is_demanded(case):
    """What a model hides leaves a plain audit as it was."""
    if not case.leaks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotTriedWarning)
            assert_allowed(case.make(0), **case.asked(case.inputs(0)), lengths=[])
