"""What `attend` refuses."""

import pytest
import torch

from attnmask import attend, causal, padding, per_head
from errors import CUBE, IDS, INF, KEEP, TOKEN, attend_with, meets_a_sentence

pytestmark = pytest.mark.usefixtures("as_installed")

HEADS = torch.randn(2, 2, 3, 4)  # (batch, head, token, d)

CASES = {
    "(batch, key) given to attend": (
        lambda: attend_with(KEEP),
        "a Mask, or a bool tensor of four axes (batch, head, query, key), True = may attend",
        "a bool tensor of shape (2, 3)",
        "two readings fit, (batch, key) and (query, key); say which: padding(mask) or graph(mask)",
    ),
    "(batch, query, key) given to attend": (
        lambda: attend_with(CUBE),
        "a bool tensor of four axes",
        "a bool tensor of shape (2, 3, 3)",
        "two readings fit, (batch, query, key) and (head, query, key); say which: from_dense(mask[:, None])",
    ),
    "a float mask given to attend": (
        lambda: attend_with(CUBE[:, None].float()),
        "a bool tensor",
        "float32",
        "zeros and",
    ),
    "an additive mask given to attend": (
        lambda: attend_with(torch.full((1, 1, 3, 3), -INF).triu(1)),
        "a bool tensor of four axes",
        "a float32 tensor",
        "an additive mask",
    ),
    "keep of another batch": (
        lambda: attend_with(padding(KEEP), torch.randn(3, 3, 4)),
        "batch=2, as padding(keep[2, 3]) holds",
        "batch=3",
        "the mask was made from other token ids than the queries and keys",
    ),
    "keep of another length": (
        lambda: attend_with(padding(KEEP), torch.randn(2, 5, 4)),
        "key_len=3",
        "key_len=5",
        "the mask was made from other token ids",
    ),
    "a mask of samples for tokens without a batch": (
        lambda: attend_with(padding(KEEP), torch.randn(3, 4)),
        "(batch, head, query, key) = (1, 1, 3, 3)",
        "padding(keep[2, 3]) of shape (2, 1, 1, 3)",
        "made for another batch",
    ),
    "a mask of heads for tokens without heads": (
        lambda: attend_with(per_head([causal()] * 2)),
        "(batch, head, query, key) = (2, 1, 3, 3)",
        "of shape (1, 2, 3, 3)",
        "another number of heads",
    ),
    "a dense mask of another length": (
        lambda: attend_with(torch.ones(1, 1, 3, 4, dtype=torch.bool)),
        "(batch, head, query, key) = (2, 1, 3, 3)",
        "a bool tensor of shape (1, 1, 3, 4)",
        "another length",
    ),
    "token ids for query": (lambda: attend(IDS, IDS, IDS), "floating-point query", "an int64", "embeddings"),
    "five axes": (
        lambda: attend_with(None, torch.randn(1, 1, 1, 3, 4)),
        "rank 2, 3 or 4",
        "(1, 1, 1, 3, 4)",
        "head axis",
    ),
    "two ranks": (lambda: attend(HEADS, TOKEN, TOKEN), "all three of rank 2, 3 or 4", "key a float32", "head axis"),
    "two batches of tokens": (lambda: attend(TOKEN, TOKEN[:1], TOKEN[:1]), "the same batch", "(1, 3, 4)", "two differ"),
    "fewer key heads": (lambda: attend(HEADS, HEADS[:, :1], HEADS[:, :1]), "and heads", "(2, 1, 3, 4)", "repeat_inter"),
    "two widths": (lambda: attend(TOKEN, TOKEN[..., :2], TOKEN), "the same width d", "(2, 3, 2)", "projections"),
    "two lengths of key and value": (
        lambda: attend(TOKEN, TOKEN, TOKEN[:, :2]),
        "same length",
        "(2, 2, 4)",
        "sequence",
    ),
    "two dtypes": (
        lambda: attend(TOKEN, TOKEN, TOKEN.double()),
        "one dtype on one device",
        "value a float64",
        "half of",
    ),
    "two devices": (
        lambda: attend(TOKEN, TOKEN, TOKEN.to("meta")),
        "on one device",
        "on meta",
        "half of the mod",
    ),
    "a misspelt choice": (
        lambda: attend(TOKEN, TOKEN, TOKEN, causal(), empty_rows="zeros"),
        'empty_rows to be "zero", "nan" or "error"',
        "'zeros'",
        "a spelling slip",
    ),
    "a scale for each key": (
        lambda: attend(TOKEN, TOKEN, TOKEN, scale=torch.ones(3)),
        "scale to be one finite number",
        "a float32 tensor of shape (3,)",
        "a tensor, or a division by zero",
    ),
    "an infinite scale": (
        lambda: attend(TOKEN, TOKEN, TOKEN, scale=INF),
        "one finite number",
        "inf",
        "division by zero",
    ),
    "no width": (lambda: attend_with(None, torch.zeros(2, 3, 0)), "width d, 1 or more", "(2, 3, 0)", "projections"),
    "an additive mask that blocks nothing": (
        lambda: attend_with(torch.zeros(1, 1, 3, 3)),
        "a bool tensor of four axes",
        "a float32 tensor",
        "all zeros: an additive mask that blocks nothing (write mask == 0)",
    ),
    "forgotten parentheses": (lambda: attend_with(causal), "a Mask", "(function)", "forgotten parentheses: causal()"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_meets_a_sentence(name):
    meets_a_sentence(*CASES[name])
