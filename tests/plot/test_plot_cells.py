import re
from pathlib import Path

import pytest
import torch

from attnmask import causal, plot
from pictures import colour_under, contrast

SMALLEST = 10  # points, on paper


def test_the_smallest_text_has_nine_points_where_a_page_shows_it_smallest():
    """A picture has 144 dots an inch, a page 96; the page zooms the picture."""
    style = (Path(__file__).parents[2] / "book" / "_static" / "book.css").read_text(encoding="utf-8")
    zooms = [float(zoom) for zoom in re.findall(r"zoom: ([\d.]+);", style)]
    assert len(zooms) == 2
    assert SMALLEST / 72 * 144 * min(zooms) >= 9 / 72 * 96


@pytest.mark.parametrize(
    "values", [torch.eye(4), torch.linspace(-3, 9, 16).reshape(4, 4), torch.zeros(4, 4), torch.full((4, 4), torch.nan)]
)
def test_every_number_stands_out_from_its_cell(values):
    axes = plot.show_matrix(values, "abcd", "abcd")
    for text in axes.texts:
        row, column = round(text.get_position()[1]), round(text.get_position()[0])
        assert contrast(text.get_color(), colour_under(axes, row, column)) >= 4.5
        assert text.get_fontsize() >= SMALLEST


def test_all_other_text_is_large_enough_and_dark_on_an_opaque_ground():
    axes = plot.show_mask(causal(), "abcD")
    labels = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    assert min(label.get_fontsize() for label in labels) >= SMALLEST
    assert axes.figure.patch.get_alpha() in (None, 1)
    assert all(contrast(label.get_color(), axes.figure.get_facecolor()) >= 7 for label in labels)


def test_allowed_and_blocked_differ_in_greyscale():
    axes = plot.show_mask(causal(), "ab")
    blocked = next(patch for patch in axes.patches if patch.get_hatch())
    assert contrast(colour_under(axes, 0, 0), blocked.get_facecolor()[:3]) >= 1.4
    assert contrast(blocked.get_edgecolor()[:3], blocked.get_facecolor()[:3]) >= 2  # the hatch itself


def test_nan_has_a_colour_of_its_own():
    axes = plot.show_matrix(torch.tensor([[torch.nan, 0.0, 1.0]]), "a", "abc")
    nan, low, high = (colour_under(axes, 0, column) for column in range(3))
    assert nan[0] > nan[2] + 0.2  # orange, where the shades are blue
    assert nan != low
    assert nan != high
