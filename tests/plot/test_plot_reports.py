import torch

from attnmask import Encoder, audit, padding, plot, sliding_window
from attnmask.plot.cells import BLOCKED, GROUND
from attnmask.plot.reports import _MARKS
from pictures import KEEP, contrast, hatched


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
