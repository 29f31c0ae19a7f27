"""What all tests share."""

import os

import jaxtyping
import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import config

matplotlib.use("agg")
# Tests run side by side: with several threads each, they would mostly wait for each other. Kernels inherit this.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TQDM_DISABLE"] = "1"  # a bar on a slow machine is no output of a notebook
# Read when the frameworks are first imported.
os.environ.update(KERAS_BACKEND="tensorflow", JAX_PLATFORMS="cpu", TF_CPP_MIN_LOG_LEVEL="3")
torch.set_num_threads(1)
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
    checked = jaxtyping.jaxtyped  # disabled or not, it compiles checks for a function each time that it is made

    def once_only(**options):
        return lambda made: made if "<locals>" in made.__qualname__ else checked(**options)(made)

    monkeypatch.setattr(jaxtyping, "jaxtyped", once_only)
