"""Every leak is found, also where it hides; none is seen where there is none."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attnmask import Encoder, attend, audit, causal, everything, reach, sliding_window
from audited import IDS, Sees, X, encoder, pairs, quick
from corpus import Attention, lower, softmax
from oracles import cases, reach_loop, stacks

pytestmark = pytest.mark.usefixtures("as_installed")  # with the checks of every signature, half as fast


# ---- leaks are what masks let through ----------------------------------------------


@settings(max_examples=15)
@given(stacks(), st.data())
def test_the_leaks_of_a_stack_are_what_plain_loops_reach_and_the_mask_forbids(layers, data):
    sizes = layers[0].sizes
    allowed = data.draw(cases(sizes, depth=1))
    torch.manual_seed(1)
    model = Encoder(layers=len(layers), d_model=6 * sizes.heads, heads=sizes.heads).double()
    x = torch.randn(sizes.batch, sizes.query_len, 6 * sizes.heads, dtype=torch.float64)
    reached, _ = reach_loop([case.rule for case in layers], sizes, residual=True)
    may = [
        [
            [any(allowed.rule(b, h, q, k) for h in range(sizes.heads)) for k in range(sizes.query_len)]
            for q in range(sizes.query_len)
        ]
        for b in range(sizes.batch)
    ]
    # Padding is what nobody may see, unless no position may see itself.
    strict = [not any(rows[place][place] for place in range(sizes.query_len)) for rows in may]
    real = [[strict[b] or any(row[k] for row in may[b]) for k in range(sizes.query_len)] for b in range(sizes.batch)]
    if not any(value for rows in may for row in rows for value in row):
        return  # nothing is allowed: refused
    expected = {
        (b, q, k)
        for b in range(sizes.batch)
        for q in range(sizes.query_len)
        for k in range(sizes.query_len)
        if real[b][q] and q != k and reached[b][q][k] and not may[b][q][k]
    }
    report = audit(lambda x: model(x, [case.mask for case in layers]), x, _table(may), **quick)
    assert {at for at in pairs(report.leaks) if at[0] < sizes.batch} == expected
    assert report.ok == (not expected)


def _table(rows):
    return torch.tensor(rows, dtype=torch.bool).reshape(len(rows), len(rows[0]), -1)


def test_a_mask_of_the_model_itself_may_be_given_as_reach():
    masks = [sliding_window(1)] * 2
    assert audit(encoder(masks), X, allowed=reach(masks, 5)).ok
    assert not audit(encoder(masks), X, allowed=reach(masks[:1], 5)).ok


def test_what_the_call_before_left_behind_is_a_leak():
    class Remembers(nn.Linear):
        past = 0

        def forward(self, x):
            y = super().forward(x) + self.past
            self.past = x.detach().mean()
            return y

    report = audit(nn.Sequential(Remembers(8, 8), nn.ReLU(), Remembers(8, 8)), X)
    assert {each.input for each in report.leaks} == {None}
    assert "output 0 depends on the call before; first seen in 0" in str(report)


def test_a_count_of_calls_is_no_memory_of_what_was_in_them():
    class Counts(nn.Linear):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x) + self.calls

    assert audit(Counts(8, 8), X).ok


# ---- leaks that hide ---------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-3, 1e-9])
def test_a_detached_leak_is_found_however_small(size):
    """1e-9 of it is below the rounding of float32 for tokens of size 1, and above it for huge ones."""
    torch.manual_seed(0)
    model = Sees(lambda x: size * x.mean(1, keepdim=True).detach())
    assert not audit(model, X, modes="eval").ok
    assert not audit(model.double(), X.double(), modes="eval").ok


def test_a_single_pair_that_no_gradient_shows_is_named():
    def once(x):
        y = torch.zeros_like(x)
        y[:, 1] = x[:, 3].sign()
        return y

    report = audit(Sees(once), X)
    assert {(each.output, each.input) for each in report.leaks} == {(1, 3)}


def test_a_leak_that_needs_two_changes_at_once_is_pinned_to_one():
    def both(x):
        far = x[:, -2:].abs().amax((1, 2)) > 1000
        other = x[:, -3].abs().amax(1) > 1000
        return (far & other)[:, None, None].to(x)

    report = audit(Sees(both), X, modes="eval", lengths=[])
    assert {each.output for each in report.leaks} <= {0, 1, 2, 3}
    assert {each.input for each in report.leaks} <= {2, 3, 4}
    assert not report.ok


def test_a_special_token_is_tried():
    torch.manual_seed(0)
    table = nn.Embedding(5000, 8)
    for special in (0, 1, 4999):
        assert not audit(lambda ids: table(ids) + (ids == special).any(1)[:, None, None], IDS).ok  # noqa: B023


# ---- NaN ---------------------------------------------------------------------------


def test_nan_from_the_start_is_its_own_verdict():
    def model(x):
        return attend(x, x, x, ~causal(), empty_rows="nan").output

    report = audit(model, X, allowed=everything())
    assert not report.ok
    assert not report.leaks
    assert {each.output for each in report.nan} == {4}
    assert all(math.isnan(each.size) for each in report.nan)
    assert "output 4 is NaN" in str(report)


def test_nan_from_a_forbidden_input_is_pinned_to_it():
    attention = Attention(lambda scores, keep, training: _renormalised(scores))
    report = audit(attention, X, modes="eval")
    assert not report.ok
    assert "turns NaN with input" in str(report)
    assert all(each.input > each.output and math.isinf(each.size) for each in report.nan)


def _renormalised(scores):
    weights = scores.softmax(-1) * lower(scores)
    return weights / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_overflow_in_the_changed_token_itself_is_no_leak(dtype):
    """Huge values become NaN in their own row, and 0 times NaN carries it into all others: no mask can help."""
    torch.manual_seed(0)
    layers = [Attention(lambda scores, keep, training: softmax(scores, lower(scores))) for _ in range(2)]
    assert audit(nn.Sequential(*layers).to(dtype), X.to(dtype)).ok
