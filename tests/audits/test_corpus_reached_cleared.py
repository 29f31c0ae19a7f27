"""No model of the corpus that reaches all that its mask allows is accused with `exact=True`."""

import pytest

from attnmask import audit
from corpus import REACHED

SEEDS = range(5)
pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.usefixtures("as_installed"),  # thousands of runs: with the checks of every signature, half as fast
]


@pytest.mark.parametrize("case", REACHED, ids=[case.name for case in REACHED])
def test_a_model_that_reaches_all_is_not_accused(case):
    """For five seeds, in the modes in which it is right; not even a suspect."""
    for seed in SEEDS:
        report = audit(case.make(seed), **case.asked(case.inputs(seed)), exact=True)
        assert report.ok, report
        assert not report.suspects, report
