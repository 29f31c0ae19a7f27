"""What the pictures refuse to draw."""

import matplotlib.pyplot as plt
import pytest
import torch

from attnmask import Encoder, audit, causal, everything, padding, plot
from errors import CUBE, KEEP, TOKEN, attend_with, meets_a_sentence

pytestmark = pytest.mark.usefixtures("as_installed")

ENCODER = Encoder(layers=2, d_model=4)
QUICK = {"modes": "eval", "lengths": []}

CASES = {
    "a picture of no report": (
        lambda: plot.show_audit(causal(), "abc"),
        "what audit returned",
        "causal()",
        "call audit",
    ),
    "a picture of another input": (
        lambda: plot.show_audit(audit(ENCODER, TOKEN, everything(), **QUICK), "abc", of="y"),
        "one of the inputs ['inputs']",
        "'y'",
        "a spelling slip",
    ),
    "a picture of other tokens": (
        lambda: plot.show_audit(audit(ENCODER, TOKEN, everything(), **QUICK), "abcd", batch=2),
        "a sample below 2, 3 output tokens and 3 input tokens",
        "sample 2, 4 and 4 tokens",
        "the tokens of another sequence",
    ),
    "a picture of a cube": (lambda: plot.show_matrix(CUBE, "ab", "abc"), "two axes", "(2, 3, 3)", "pick one"),
    "blocked cells of another matrix": (
        lambda: plot.show_matrix(torch.eye(3), "abc", "abc", blocked=KEEP),
        "blocked to be bool, shaped as values",
        "(2, 3)",
        "a mask of other tokens",
    ),
    "rows of unequal length": (
        lambda: plot.show_letters([["a", "b"], ["c"]], "ab", "ab"),
        "2 rows of 2 texts",
        "rows of [2, 1]",
        "a row too short or too long",
    ),
    "a picture without tokens": (lambda: plot.show_mask(causal(), ""), "1 or more", "rows [0]", "without tokens"),
    "a sample that is not there": (
        lambda: plot.show_steps(attend_with(None), "abc", batch=2),
        "sample 2 and head 0",
        "a float32 tensor of shape (2, 3, 3)",
        "beyond what there is",
    ),
    "a sample from the end": (lambda: plot.show_mask(causal(), "ab", batch=-1), "from 0", "-1 and 0", "do not wrap"),
    "labels of another sequence": (
        lambda: plot.show_matrix(torch.eye(2), "abc", "ab"),
        "a matrix of 3 rows and 2 columns, as there are labels",
        "shape (2, 2)",
        "the tokens of another sequence",
    ),
    "no shape to draw": (lambda: plot.show_shapes({}, (2, 3, 5, 5)), "at most 4 axes", "[]", "no shape"),
    "a shape of too many axes": (
        lambda: plot.show_shapes({"five": (1, 2, 3, 5, 5)}, (2, 3, 5, 5)),
        "shapes of at most 4 axes, as the scores have",
        "[(1, 2, 3, 5, 5)]",
        "an axis too many",
    ),
    "scores of another rank": (
        lambda: plot.show_shapes({"(B, S)": (2, 5)}, (2, 5, 5)),
        "a name for each of 3 axes",
        "['batch', 'head', 'query', 'key']",
        "names=",
    ),
    "nothing to compare": (lambda: plot.compare({}, "ab"), "at least one result to draw", "none", "an empty dict"),
    "too few Axes": (
        lambda: plot.show_steps(attend_with(None), "abc", axes=[plt.gca()]),
        "four Axes, one a step",
        "1",
        "a subplot grid of another size",
    ),
    "panels of unequal lists": (
        lambda: plot.panels([4, 4], [4]),
        "a number of rows and of columns",
        "rows [4] and columns [4, 4]",
        "left out",
    ),
    "Axes for other results": (
        lambda: plot.compare({"one": causal()}, "ab", axes=[]),
        "as many Axes as results",
        "0 for 1",
        "a subplot grid",
    ),
    "a flow through nothing": (lambda: plot.show_flow([], "ab"), "a layer to draw", "none", "an empty list of masks"),
    "a flow of a sample that is not there": (
        lambda: plot.show_flow([padding(KEEP)], "abc", batch=2),
        "batch=2, as padding(keep[2, 3]) holds",
        "batch=3",
        "other token ids",
    ),
    "a flow of a sample from the end": (lambda: plot.show_flow([causal()], "abc", batch=-1), "0 or more", "-1", "sign"),
    "a flow of other tokens": (lambda: plot.show_flow([padding(KEEP)], "ab"), "key_len=3", "key_len=2", "other token"),
    "a mask picture of a matrix": (
        lambda: plot.show_mask(torch.eye(2) > 0, "ab"),
        "(batch, head, query, key)",
        "(2, 2)",
        "graph(mask)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_meets_a_sentence(name):
    meets_a_sentence(*CASES[name])
