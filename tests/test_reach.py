"""`reach`: what a stack of masks lets through, by plain loops and by hand."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from attnmask import padding, sliding_window
from attnmask.layers import Encoder
from attnmask.probe import influence
from attnmask.stacks import reach
from oracles import reach_loop, stacks


def reach_of(layers, residual):
    sizes, masks = layers[0].sizes, [case.mask for case in layers]
    reached = reach(masks, sizes.query_len, residual=residual, batch=sizes.batch, heads=sizes.heads)
    return reached.expand(sizes.batch, -1, -1)


@given(stacks(), st.booleans())
def test_reach_is_what_influence_finds(layers, residual):
    sizes = layers[0].sizes
    expected, rows_coincide = reach_loop([case.rule for case in layers], sizes, residual)
    reached = reach_of(layers, residual)
    assert (reached | ~torch.tensor(expected)).all()  # never less than what really reaches
    if residual or not rows_coincide:
        assert reached.tolist() == expected


@given(stacks(everyone_sees_itself=True))
def test_reach_is_exact_without_residual_where_every_token_sees_itself(layers):
    sizes = layers[0].sizes
    torch.manual_seed(1)
    encoder = Encoder(layers=len(layers), d_model=6 * sizes.heads, heads=sizes.heads, residual=False).double()
    masks = [case.mask for case in layers]
    x = torch.randn(sizes.batch, sizes.query_len, 6 * sizes.heads, dtype=torch.float64)
    found = influence(lambda x: encoder(x, masks), x)
    assert torch.equal(found, reach_of(layers, residual=False))


def test_reach_by_hand():
    keep = torch.tensor([[True, True, False]])
    # Padding in layer 1 only: the pad's own row, never masked by its residual, is seen by all in layer 2.
    assert reach([padding(keep), None], 3)[0].int().tolist() == [[1, 1, 1]] * 3
    assert reach([padding(keep)] * 2, 3)[0].int().tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    # Each token sees only the one before: without residual, two layers look exactly two back.
    before = sliding_window(1) & ~sliding_window(0)
    assert reach([before] * 2, 4, residual=False)[0].int().tolist() == [[0] * 4, [0] * 4, [1, 0, 0, 0], [0, 1, 0, 0]]
    # Two keys to weigh: the query, though it does not see itself, makes the weights.
    others = ~sliding_window(0)
    assert reach([others], 3, residual=False)[0].int().tolist() == [[1] * 3] * 3
    assert reach([others], 2, residual=False)[0].int().tolist() == [[0, 1], [1, 0]]
    assert reach([], 2)[0].int().tolist() == [[1, 0], [0, 1]]
