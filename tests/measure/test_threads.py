"""A short run gets one thread, a long one those that make it faster; then all is as it was."""

import time

import pytest
import torch

from attnmask._measure.threads import suited_threads


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def takes(alone, together):
    """Make a run that takes so many seconds with one thread, and with two."""
    return lambda: time.sleep({1: alone, 2: together}[torch.get_num_threads()])


@pytest.mark.parametrize(
    ("run", "threads"),
    [
        (lambda: None, 1),
        (takes(0, 0.2), 1),
        (takes(0.05, 0.2), 1),  # longer with two
        (takes(0.1, 0.01), 2),
    ],
    ids=["nothing", "short", "slower with two", "faster with two"],
)
def test_two_threads_serve_a_long_run_that_they_make_faster(run, threads):
    with suited_threads(run):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 2


def test_one_thread_stays_one():
    torch.set_num_threads(1)
    with suited_threads(takes(0.05, 0)):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 1


def test_the_number_of_threads_is_put_back_after_an_error():
    with pytest.raises(RuntimeError, match="inside"), suited_threads(lambda: None):
        raise RuntimeError("inside")
    assert torch.get_num_threads() == 2

    def fails():
        raise RuntimeError("in the run")

    with pytest.raises(RuntimeError, match="in the run"), suited_threads(fails):
        pass
    assert torch.get_num_threads() == 2
