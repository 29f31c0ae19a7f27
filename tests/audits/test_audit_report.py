"""The report says what is so: what leaked, what was tried, and what was not."""

import warnings

import pytest
import torch
from torch import nn

from attnmask import assert_allowed, audit, causal, reach, sliding_window
from audited import Sees, X, encoder

pytestmark = pytest.mark.usefixtures("as_installed")  # with the checks of every signature, half as fast


def test_a_forgotten_mask_is_reported_in_words():
    with pytest.raises(AssertionError) as caught:
        assert_allowed(encoder([causal(), None]), X[:, :4], allowed=causal())
    text = str(caught.value)
    assert text.splitlines()[0] == "The model does not obey its mask."  # a leak that was found is certain
    assert (
        "output 1 depends on input 3, which is in its future; first seen in Encoder.layers.1.attention.part.W_O" in text
    )
    assert "seen by gradient (eval)" in text


def test_the_report_holds_what_was_allowed_found_and_leaked():
    report = audit(encoder([causal(), sliding_window(1, right=1)]), X)
    allowed, found = (each["inputs"][0] for each in (report.allowed, report.found))
    assert torch.equal(allowed, torch.ones(5, 5).tril().bool())
    assert torch.equal(found, reach([causal(), sliding_window(1, right=1)], 5)[0])
    assert {(each.output, each.input) for each in report.leaks} == {(q, q + 1) for q in range(4)}
    one = report.leaks[0]
    assert one.seen[:2] == (("gradient", "eval"), ("changed inputs", "eval"))
    assert one.size > 1e-3
    assert one.length == 5


def test_allowed_pairs_that_nothing_reaches_are_missing_and_no_leak():
    report = audit(encoder([sliding_window(1)] * 2), X)
    assert report.ok
    assert {(each.output, each.input) for each in report.missing if each.sample == 0} == {(3, 0), (4, 0), (4, 1)}
    assert "Allowed, but nothing reached them (output ← input): 3 ← 0, 4 ← 0, 4 ← 1." in str(report)


def test_what_could_not_be_run_is_said():
    table = nn.Embedding(6, 8)
    report = audit(lambda x: x + table(torch.arange(x.shape[1])), X)
    assert report.ok
    assert report.not_tried == ("length 11 (IndexError: index out of range in self)",)
    assert "Not tried: length 11 (IndexError" in str(report)


def test_a_mode_that_fails_is_said_and_the_other_tried():
    class Fails(nn.Linear):
        def forward(self, x):
            if self.training:
                raise RuntimeError("no training here")
            return super().forward(x)

    report = audit(Fails(8, 8), X.repeat(2, 1, 1), lengths=[])
    assert report.ok
    assert set(report.not_tried) == {
        "train (RuntimeError: no training here)",
        "train, without gradients (RuntimeError: no training here)",
    }
    with pytest.raises(RuntimeError, match="no training here"):
        audit(Fails(8, 8), X, modes="train")


def test_assert_allowed_ends_at_the_first_leak():
    calls = []
    model = Sees(lambda x: (calls.append(1), x.mean(1, keepdim=True))[1])
    audit(model, X)
    whole = len(calls)
    with pytest.raises(AssertionError, match="Not tried: anything after the first leak"):
        assert_allowed(model, X)
    assert len(calls) - whole < whole / 3


def test_nothing_is_warned_of_on_a_clean_model():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_allowed(encoder(causal()), X)
