import matplotlib.pyplot as plt
import torch

from attnmask import attend, causal, everything, four_tokens, padding, per_head, plot
from pictures import KEEP, cells, hatched


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


def test_an_empty_row_reads_NaN():
    four = four_tokens()
    steps = attend(four.query, four.key, four.value, ~everything(), empty_rows="nan")
    assert set(cells(plot.show_steps(steps, four.tokens)[2]).values()) == {"NaN"}


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
