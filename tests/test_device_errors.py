"""What the choice of a device refuses."""

import pytest
import torch

from attnmask import default_device


def test_an_unknown_device_meets_a_sentence(monkeypatch):
    monkeypatch.setenv("ATTNMASK_DEVICE", "abacus")
    with pytest.raises(ValueError, match=r"Expected ATTNMASK_DEVICE to name a device .* got 'abacus'"):
        default_device()
    monkeypatch.setenv("ATTNMASK_DEVICE", "cpu")
    assert default_device() == torch.device("cpu")
