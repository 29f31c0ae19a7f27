"""A long measurement shows that it goes on; a short one says nothing."""

import functools
import sys
import time

import torch
from tqdm import tqdm

from attnmask.probe import influence

SELF = torch.eye(5).bool()
X = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))


def slow(x):
    time.sleep(0.45)
    return x * 2


def test_a_bar_shows_when_it_takes_longer(capsys, monkeypatch):
    monkeypatch.setattr(tqdm, "__init__", functools.partialmethod(tqdm.__init__, disable=False))  # notebooks have none
    influence(lambda x: x * 2, torch.randn(1, 4, 2), probe="perturbation")
    assert capsys.readouterr().err == ""
    influence(slow, torch.randn(1, 4, 2), probe="perturbation")
    assert "influence: changed inputs" in capsys.readouterr().err


def test_no_bar_without_tqdm(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert torch.equal(influence(lambda x: x * 2, X)[0], SELF)
