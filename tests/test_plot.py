import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, Rectangle

from attnmask import (
    Encoder,
    Mask,
    attend,
    audit,
    causal,
    everything,
    four_tokens,
    padding,
    per_head,
    plot,
    reach,
    sliding_window,
)
from attnmask.plot.cells import BLOCKED, FLOW, GROUND, LEAK
from attnmask.plot.reports import _MARKS

KEEP = torch.tensor([[True, True, True, False]])


def cells(axes):
    """The text of each cell, row by row, by where it stands."""
    placed = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in axes.texts}
    return placed


def hatched(axes):
    """The cells under a hatch, as (row, column)."""
    return {
        (round(patch.get_y() + 0.5), round(patch.get_x() + 0.5))
        for patch in axes.patches
        if isinstance(patch, Rectangle) and patch.get_hatch()
    }


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def colour_under(axes, row, column):
    image = axes.images[0]
    return image.cmap(image.norm(image.get_array()[row, column]))


def test_exactly_the_blocked_pairs_are_hatched():
    axes = plot.show_mask(causal() & padding(KEEP), "abcD")
    assert hatched(axes) == {(q, k) for q in range(4) for k in range(4) if k > q or k == 3}


def test_axes_name_the_tokens_and_say_which_is_the_query():
    axes = plot.show_mask(causal(offset=1), "xy", "abc")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("query", "key")
    assert axes.get_title() == "causal(offset=1)"


def test_a_sample_and_a_head_can_be_picked():
    keep = torch.tensor([[True, True], [True, False]])
    assert hatched(plot.show_mask(padding(keep), "ab", batch=1)) == {(0, 1), (1, 1)}
    assert hatched(plot.show_mask(per_head([everything(), causal()]), "ab", head=1)) == {(0, 1)}
    assert hatched(plot.show_mask(causal(), "ab", batch=5, head=3)) == {(0, 1)}


def test_steps_stand_in_a_row_and_hold_the_numbers():
    four = four_tokens()
    steps = attend(four.query, four.key, four.value, padding(KEEP))
    scores, masked, weights, output = plot.show_steps(steps, four.tokens)
    assert cells(scores)[2, 2] == "−1.41"  # -2 / sqrt(2)
    assert not hatched(scores)
    assert cells(masked)[0, 3] == "−∞"
    assert hatched(masked) == hatched(weights) == {(row, 3) for row in range(4)}
    assert cells(weights)[1, 3] == "0"
    assert cells(output)[0, 0] == f"{steps.output[0, 0]:.2f}"
    assert len({axes.get_position().y0 for axes in (scores, masked, weights)}) == 1


def test_weights_have_one_scale_in_every_picture():
    four = four_tokens(dtype=torch.float64)
    for mask in (everything(), causal()):
        steps = attend(four.query, four.key, four.value, mask)
        for axes in (plot.show_steps(steps, four.tokens)[2], plot.compare({"": steps}, four.tokens)[0]):
            torch.testing.assert_close(torch.tensor(axes.images[0].get_array().tolist()).double(), steps.weights)


def test_an_empty_row_reads_nan():
    four = four_tokens()
    steps = attend(four.query, four.key, four.value, ~everything(), empty_rows="nan")
    assert set(cells(plot.show_steps(steps, four.tokens)[2]).values()) == {"nan"}


def test_results_stand_side_by_side_whatever_they_are():
    four = four_tokens()
    steps = attend(four.query, four.key, four.value, causal())
    drawn = plot.compare(
        {"rule": causal(), "steps": steps, "dense": causal().dense(4), "numbers": torch.eye(4)}, "abcD"
    )
    assert [axes.get_title() for axes in drawn] == ["rule", "steps", "dense", "numbers"]
    assert hatched(drawn[0]) == hatched(drawn[1]) == hatched(drawn[2]) != set()
    assert cells(drawn[3])[0, 0] == "1"


def test_pictures_go_on_the_axes_they_are_given():
    _, given = plt.subplots(1, 4)
    four = four_tokens()
    steps = attend(four.query, four.key, four.value)
    assert plot.show_mask(causal(), "ab", ax=given[0]) is given[0]
    assert plot.show_matrix(torch.eye(2), "ab", "cd", ax=given[1]) is given[1]
    assert plot.show_letters([["x", "0"]], "a", "bc", ax=given[2]) is given[2]
    assert plot.show_steps(steps, "abcD", axes=given) == list(given)
    assert plot.compare({"one": causal()}, "ab", axes=[given[3]]) == [given[3]]
    assert len(plt.get_fignums()) == 1


def test_letters_hatch_their_zeros():
    axes = plot.show_letters([["$e_{aa}$", "0"], ["$e_{ba}$", "$e_{bb}$"]], "ab", "ab")
    assert hatched(axes) == {(0, 1)}
    assert cells(axes)[1, 1] == "$e_{bb}$"


@pytest.mark.parametrize("values", [torch.eye(4), torch.linspace(-3, 9, 16).reshape(4, 4), torch.zeros(4, 4)])
def test_every_number_stands_out_from_its_cell(values):
    axes = plot.show_matrix(values, "abcd", "abcd")
    for text in axes.texts:
        row, column = round(text.get_position()[1]), round(text.get_position()[0])
        assert contrast(text.get_color(), colour_under(axes, row, column)) >= 4.5
        assert text.get_fontsize() >= 9


def test_all_other_text_is_large_enough_and_dark_on_an_opaque_ground():
    axes = plot.show_mask(causal(), "abcD")
    labels = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    assert min(label.get_fontsize() for label in labels) >= 9
    assert axes.figure.patch.get_alpha() in (None, 1)
    assert all(contrast(label.get_color(), axes.figure.get_facecolor()) >= 7 for label in labels)


def test_allowed_and_blocked_differ_in_greyscale():
    axes = plot.show_mask(causal(), "ab")
    blocked = next(patch for patch in axes.patches if patch.get_hatch())
    assert contrast(colour_under(axes, 0, 0), blocked.get_facecolor()[:3]) >= 1.4
    assert contrast(blocked.get_edgecolor()[:3], blocked.get_facecolor()[:3]) >= 2  # the hatch itself


# ---- stacks as arrows -------------------------------------------------------------


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
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["may look", "own row", "leak"]
    assert axes.get_title() == "two layers"


@pytest.mark.parametrize("colour", [FLOW, LEAK])
def test_arrows_stand_out_from_their_ground(colour):
    assert contrast(colour, GROUND) >= 3


# ---- show_audit -------------------------------------------------------------------


def marks(axes):
    """Where each kind of mark stands, as (row, column)."""
    return {
        each.get_label(): {(round(row), round(column)) for column, row in each.get_offsets().tolist()}
        for each in axes.collections
        if each.get_label() in ("reached", "not reached", "leak", "suspect")
    }


def test_an_audit_shows_allowed_found_and_leaking():
    encoder = Encoder(layers=2, d_model=8)
    windows = [sliding_window(1), sliding_window(0, right=1)]  # each reaches back one and forward one
    report = audit(lambda x: encoder(x, windows), torch.randn(1, 4, 8), modes="eval")
    axes = plot.show_audit(report, "abcD")
    assert hatched(axes) == {(q, k) for q in range(4) for k in range(q + 1, 4)}
    assert marks(axes) == {
        "reached": {(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)},
        "not reached": {(2, 0), (3, 0), (3, 1)},
        "leak": {(0, 1), (1, 2), (2, 3)},
    }
    assert axes.get_title() == "3 leaks"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("input", "output")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["reached", "not reached", "leak"]


def test_an_audit_has_no_marks_in_rows_of_padding():
    encoder = Encoder(layers=1, d_model=8)
    report = audit(lambda x: encoder(x), torch.randn(1, 4, 8), padding(KEEP), modes="eval")
    axes = plot.show_audit(report, "abcD")
    assert marks(axes) == {"reached": {(q, k) for q in range(3) for k in range(3)}, "leak": {(0, 3), (1, 3), (2, 3)}}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c", "(D)"]


def test_an_audit_counts_leaks_that_are_not_in_the_picture():
    report = audit(lambda x: x + x.mean(0, keepdim=True), torch.randn(2, 3, 4), modes="eval", lengths=[])
    axes = plot.show_audit(report, "abc")
    assert "leak" not in marks(axes)
    assert axes.get_title() == "no leak, 3 elsewhere"  # in each position, from the other sample


def test_the_marks_of_an_audit_can_be_told_apart_without_colour():
    shapes = {(style["marker"], style.get("facecolors", "full")) for style in _MARKS.values()}
    assert len(shapes) == len(_MARKS)
    for style in _MARKS.values():
        for ground in (BLOCKED, GROUND):
            assert contrast(style.get("edgecolors", style.get("color")), ground) > 3
