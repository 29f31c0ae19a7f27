from itertools import product

import pytest
import torch

from attnmask import plot
from pictures import cells, colour_under, contrast, hatched

SHAPES = [shape for length in range(4) for shape in product((1, 2, 3), repeat=length)]


def verdicts(axes, columns):
    return [text.get_text() for text in axes.texts if text.get_position()[0] > columns - 0.5]


@pytest.mark.parametrize("scores", [(2, 3, 3), (2, 1, 3), (1, 1, 1), (3, 3, 3)])
def test_a_shape_fits_where_pytorch_expands_it_to_the_scores(scores):
    axes = plot.show_shapes({str(shape): shape for shape in SHAPES}, scores, "hqk")

    def fits(shape):
        try:
            return torch.empty(shape).expand(scores).shape == scores
        except RuntimeError:
            return False

    assert verdicts(axes, 3) == ["fits" if fits(shape) else "does not fit" for shape in SHAPES]


def test_shapes_line_up_from_the_right_and_clashes_are_hatched():
    axes = plot.show_shapes({"(B, S)": (2, 5), "(B, 1, S)": torch.Size([2, 1, 5])}, (2, 3, 5, 5), title="two")
    wanted = [["2", "3", "5", "5"], ["", "", "2", "5"], ["", "2", "1", "5"]]
    shown = cells(axes)
    assert [[shown.get((row, column), "") for column in range(4)] for row in range(3)] == wanted
    assert hatched(axes) == {(1, 2), (2, 1)}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["scores", "(B, S)", "(B, 1, S)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["batch", "head", "query", "key"]
    assert axes.get_title() == "two"


def test_a_size_over_a_one_of_the_scores_does_not_fit():
    axes = plot.show_shapes({"(B, L, S)": (2, 4, 4)}, (2, 1, 4, 4))
    assert hatched(axes) == {(1, 1)}
    assert verdicts(axes, 4) == ["does not fit"]


def test_equal_repeated_and_missing_differ_in_greyscale_and_text_stands_out():
    axes = plot.show_shapes({"(1, S)": (1, 5)}, (2, 3, 5, 5))
    missing, one, same = (colour_under(axes, 1, column) for column in (1, 2, 3))
    assert contrast(same, one) > 1.4
    assert contrast(one, missing) > 1.1
    assert all(contrast(text.get_color(), same) >= 4.5 for text in axes.texts)
    assert min(text.get_fontsize() for text in axes.texts) >= 9


def test_it_draws_where_it_is_told():
    (ax,) = plot.panels([4], [2])
    assert plot.show_shapes({"(L, S)": (5, 5)}, (2, 3, 5, 5), ax=ax) is ax
