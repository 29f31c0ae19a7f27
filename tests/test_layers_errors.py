"""What the layers refuse."""

import pytest
import torch

from attnmask import CrossAttention, Encoder, Translator, causal
from errors import IDS, KEEP, TOKEN, meets_a_sentence

pytestmark = pytest.mark.usefixtures("as_installed")

ENCODER = Encoder(layers=2, d_model=4)
TRANSLATOR = Translator(source_vocabulary=10, target_vocabulary=5, layers=1, d_model=4, longest=8)

CASES = {
    "heads that do not divide the width": (
        lambda: Encoder(layers=1, d_model=8, heads=3),
        "d_model to be a multiple of heads",
        "d_model=8, heads=3",
        "a slip",
    ),
    "no heads": (lambda: CrossAttention(8, 0), "a multiple of heads", "heads=0", "a slip"),
    "a mask too few": (
        lambda: ENCODER(TOKEN, [causal()]),
        "one mask for all layers, or a list of 2, one a layer",
        "a list of 1",
        "a layer was left out",
    ),
    "masks from a generator": (
        lambda: ENCODER(TOKEN, (causal() for _ in "ab")),
        "a list of 2",
        "generator",
        "left out",
    ),
    "ids for an encoder": (
        lambda: ENCODER(IDS),
        "float tokens of shape (batch, token, d_model=4)",
        "an int64",
        "embeddings",
    ),
    "one sample for an encoder": (lambda: ENCODER(TOKEN[0]), "(batch, token, d_model=4)", "(3, 4)", "(x[None])"),
    "another width": (lambda: ENCODER(torch.randn(2, 3, 5)), "(batch, token, d_model=4)", "(2, 3, 5)", "another width"),
    "a mask of another convention in a layer": (
        lambda: ENCODER(TOKEN, KEEP),
        "a Mask, or a bool tensor of four axes",
        "(2, 3)",
        "padding(mask)",
    ),
    "source ids in the target": (
        lambda: TRANSLATOR(IDS, IDS),
        "target from 0 to 4, as the embedding has 5 rows",
        "ids from 0 to 7",
        "source and target swapped",
    ),
    "a sentence without positions": (
        lambda: TRANSLATOR(IDS.repeat(1, 3), IDS),
        "at most longest=8 tokens",
        "9",
        "longest was left as it is",
    ),
    "forgotten parentheses in a stack": (
        lambda: ENCODER(TOKEN, causal),
        "one mask for all layers",
        "(function)",
        "forgotten parentheses",
    ),
    "floats for a translator": (
        lambda: TRANSLATOR(IDS.float(), IDS),
        "source to be an integer tensor of shape (batch, token)",
        "float32",
        "where integers were meant",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_meets_a_sentence(name):
    meets_a_sentence(*CASES[name])
