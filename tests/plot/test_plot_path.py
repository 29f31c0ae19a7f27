import pytest
import torch

from attnmask import attend, causal, four_tokens, padding, plot
from pictures import KEEP, cells, hatched


def test_the_path_leads_from_x_to_the_output_of_attend():
    four = four_tokens()
    x, query, _, value, scores, weights, output = plot.show_path(four)
    steps = attend(four.query, four.key, four.value)
    assert cells(x)[3, 2] == "2"
    assert cells(query)[1, 0] == "2"
    assert cells(value)[2, 0] == "−1"
    assert cells(scores)[0, 3] == f"{steps.scores[0, 3]:.2f}"
    assert cells(weights)[0, 3] == f"{steps.weights[0, 3]:.2f}"
    assert cells(output)[0, 0] == f"{steps.output[0, 0]:.2f}"
    assert not any(hatched(each) for each in (x, query, value, scores, weights, output))


def test_a_mask_is_hatched_in_scores_and_weights_only():
    *_, key, value, scores, weights, output = plot.show_path(four_tokens(), padding(KEEP))
    assert hatched(scores) == hatched(weights) == {(row, 3) for row in range(4)}
    assert scores.get_title() == "masked scores"
    assert not hatched(key) | hatched(value) | hatched(output)


def test_weights_have_the_scale_of_every_other_picture():
    four = four_tokens(dtype=torch.float64)
    weights = plot.show_path(four, causal())[5]
    steps = attend(four.query, four.key, four.value, causal())
    torch.testing.assert_close(torch.tensor(weights.images[0].get_array().tolist()).double(), steps.weights)


def test_no_panel_lies_on_another_and_all_text_is_large_enough():
    figure = plot.show_path(four_tokens(), causal())[0].figure
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)
    assert min(text.get_fontsize() for text in figure.texts) >= 9


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="holds; got"):
        plot.show_path(four_tokens(), padding(KEEP[:, :3]))
