"""What all tests share."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import config

matplotlib.use("agg")
# A loaded machine is no reason to fail.
settings.register_profile("book", deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("book")


@pytest.fixture(autouse=True)
def _no_figure_left_open():
    yield
    plt.close("all")


@pytest.fixture
def as_installed(monkeypatch):
    """Run without the test suite's run-time shape checks: bad input meets our own sentence, as a reader's would."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)
