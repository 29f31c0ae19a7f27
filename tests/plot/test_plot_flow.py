import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from attnmask import Mask, causal, everything, padding, per_head, plot, reach, sliding_window
from attnmask.plot.cells import FLOW, GROUND, LEAK
from pictures import KEEP, contrast


def arrows(axes):
    """Each arrow as (layer, key, query), with whether it is drawn as a leak and whether it is dashed."""
    found = {}
    for patch in axes.patches:
        if isinstance(patch, FancyArrowPatch):
            (key, level), (query, above) = (tuple(map(round, end)) for end in patch._posA_posB)
            assert above == level + 1
            leak = to_rgb(patch.get_edgecolor()) == to_rgb(LEAK)
            assert leak == (patch.get_linewidth() > 2)  # thick as well as coloured
            found[level, key, query] = leak, patch.get_linestyle() not in ("-", "solid")
    return found


def leaking_ways(masks, length, allowed, residual):
    """Walk every way through the stack, one by one; return the arrows of those that end where they may not."""
    steps = [reach([mask], length, residual=residual)[0] for mask in masks]
    ways = [[token] for token in range(length)]
    for step in steps:
        ways = [[*way, query] for way in ways for query in range(length) if step[query, way[-1]]]
    bad = [way for way in ways if way[0] != way[-1] and not allowed(way[-1], way[0])]
    return {(level, way[level], way[level + 1]) for way in bad for level in range(len(masks))}


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(
    "masks",
    [
        [causal(), None],
        [None, causal()],
        [causal(), causal()],
        [padding(KEEP), None, padding(KEEP)],
        [padding(KEEP), sliding_window(1, 1), causal()],
        [causal() & padding(KEEP)] * 3,
    ],
    ids=repr,
)
@pytest.mark.parametrize("allowed", [causal(), padding(KEEP)], ids=repr)
def test_the_arrows_on_a_leaking_way_are_drawn_as_leaks(masks, allowed, residual):
    drawn = arrows(plot.show_flow(masks, "abcD", allowed=allowed, residual=residual))
    steps = [reach([mask], 4, residual=residual)[0] for mask in masks]
    assert set(drawn) == {(level, k, q) for level, step in enumerate(steps) for q, k in step.nonzero().tolist()}
    assert {arrow for arrow, (leak, _) in drawn.items() if leak} == leaking_ways(masks, 4, allowed.allows, residual)


def test_a_row_that_no_head_looks_at_passes_on_dashed():
    drawn = arrows(plot.show_flow([padding(KEEP)], "abcD"))
    assert {arrow for arrow, (_, dashed) in drawn.items() if dashed} == {(0, 3, 3)}
    lone = sliding_window(1) & ~sliding_window(0)  # one key only: nothing to weigh, so without residual no own row
    assert set(arrows(plot.show_flow([lone], "ab", residual=False))) == {(0, 0, 1)}


def test_a_sample_of_a_stack_can_be_picked():
    keep = torch.tensor([[True, True], [True, False]])
    masks = [padding(keep), causal()]
    assert len(arrows(plot.show_flow(masks, "ab", batch=0))) == 4 + 3
    assert len(arrows(plot.show_flow(masks, "ab", batch=1))) == 3 + 3


def test_what_is_allowed_may_differ_by_sample_and_heads_are_drawn_together():
    keep = torch.tensor([[True, True], [True, False]])
    for batch, leaking in ((0, set()), (1, {(0, 1, 0)})):
        drawn = arrows(plot.show_flow([everything()], "ab", allowed=padding(keep), batch=batch))
        assert {arrow for arrow, (leak, _) in drawn.items() if leak} == leaking
    by_head = Mask(lambda batch, head, query, key: torch.where(head == 0, query == key, query >= key))
    assert len(arrows(plot.show_flow([by_head], "abc"))) == 3
    assert len(arrows(plot.show_flow([by_head], "abc", heads=2))) == 6
    assert len(arrows(plot.show_flow([per_head([everything(), causal()])], "ab"))) == 4


def test_a_flow_names_tokens_layers_and_arrows():
    axes = plot.show_flow([padding(KEEP)] * 2, "abcD", allowed=causal(), title="two layers")
    assert [text.get_text() for text in axes.texts] == list("abcD") * 3
    assert [label.get_text() for label in axes.get_yticklabels()] == ["input", "layer 1", "layer 2"]
    assert legends(axes) == [["flows to", "own row", "leak"]]
    assert axes.get_title() == "two layers"


def legends(axes):
    return [[text.get_text() for text in legend.get_texts()] for legend in axes.figure.legends]


def test_stacks_in_one_figure_share_a_legend_and_a_dashed_leak_is_an_own_row_too():
    left, right = plot.panels([4, 4], [3, 3])
    plot.show_flow([causal()] * 2, "abcD", allowed=causal(), ax=left)
    assert legends(left) == [["flows to"]]
    left.figure.legend(handles=[Line2D([], [], label="somebody else's, which stays")])
    plot.show_flow([padding(KEEP), None], "abcD", allowed=padding(KEEP), ax=right)
    assert legends(left) == [["somebody else's, which stays"], ["flows to", "own row", "leak"]]
    assert left.get_legend() is right.get_legend() is None


@pytest.mark.parametrize("colour", [FLOW, LEAK])
def test_arrows_stand_out_from_their_ground(colour):
    assert contrast(colour, GROUND) >= 3
