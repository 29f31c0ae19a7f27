"""No clean model of the corpus is accused."""

import pytest

from attnmask import audit
from corpus import CLEAN, Case

SEEDS = range(5)
pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.usefixtures("as_installed"),  # thousands of runs: with the checks of every signature, half as fast
]


@pytest.mark.parametrize("case", CLEAN, ids=[case.name for case in CLEAN])
def test_a_clean_model_raises_no_alarm(case: Case) -> None:
    """For five seeds, in the modes in which it is clean; not even a suspect."""
    for seed in SEEDS:
        report = audit(case.make(seed), **case.asked(case.inputs(seed)))
        assert report.ok, report
        assert not report.suspects, report
