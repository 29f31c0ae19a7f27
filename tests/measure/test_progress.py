"""A long measurement shows that it goes on; a short one says nothing."""

import functools
import re
import sys
import time
from types import SimpleNamespace

import torch
from tqdm import tqdm

from attnmask import audit
from attnmask._measure import progress as module
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


def test_without_tqdm_a_line_is_printed_every_five_seconds(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    seen = []
    for step in module.progress(range(40), "audit"):
        seen.append(step)
        if step == 2:
            assert capsys.readouterr().err == ""  # four seconds so far
        now[0] += 2
    assert seen == list(range(40))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["audit: 3 of 40 steps", "audit: 6 of 40 steps"]
    assert len(lines) == 13


def test_an_audit_says_how_far_it_is_without_tqdm_too(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert audit(lambda x: x * 2, X, lengths=[]).ok
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module, "_DELAY", 0)
    assert audit(lambda x: x * 2, X, lengths=[]).ok
    assert re.search(r"^audit: \d of \d steps$", capsys.readouterr().err, re.MULTILINE)
