"""Every fault of the corpus in a module that mixes tokens besides attention is found, and its module named."""

import pytest

from audited import finds
from corpus import FAULTS, Case

FOUND = [case for case in FAULTS if not case.missed and case.where.startswith("mixer")]
pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.usefixtures("as_installed"),  # thousands of runs: with the checks of every signature, half as fast
]


@pytest.mark.parametrize("case", FOUND, ids=[case.name for case in FOUND])
def test_audit_finds_the_fault_and_names_the_module(case: Case) -> None:
    """For five seeds."""
    for seed in range(5):
        finds(case, seed)
