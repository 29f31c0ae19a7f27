"""Every fault of the corpus is found, and its module named."""

import re

import pytest

from attnmask import assert_allowed
from corpus import FAST_PATH, FAULTS, Case

SEEDS = range(5)
pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.usefixtures("as_installed"),  # thousands of runs: with the checks of every signature, half as fast
]


FOUND = [case for case in FAULTS if not case.missed]


@pytest.mark.parametrize("case", FOUND, ids=[case.name for case in FOUND])
def test_audit_finds_the_fault_and_names_the_module(case: Case) -> None:
    """For five seeds, on the inputs of the case, none of which need to show the leak by themselves.

    The module is the one where it first shows, a part of it, or on the fast path, which
    calls no parts, the one around it.
    """
    for seed in SEEDS:
        with pytest.raises(AssertionError, match=r"(leak|NaN)s?:\n  output \d+ (depends on|turns NaN with) ") as caught:
            assert_allowed(case.make(seed), **case.asked(case.inputs(seed)))
        named = re.findall(r"first seen in (\S+)", str(caught.value))
        around = case.where.rpartition(".")[0] if case.leaks_in == FAST_PATH else case.where
        assert not case.where or any(f"{each}.".startswith((f"{case.where}.", f"{around}.")) for each in named), named
