"""What `assert_padding_invariant` refuses to judge."""

import pytest
import torch

from attnmask import assert_padding_invariant as check
from errors import IDS, KEEP, TOKEN, meets_a_sentence

pytestmark = pytest.mark.usefixtures("as_installed")

SQUARE, HALF = torch.randn(3, 3, 4), torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]]).bool()


def same(x, **others):
    return x


def by_mask(mask, keep=KEEP, x=TOKEN, name="mask"):
    return lambda: check(same, {"x": x, name: mask}, keep)


def translate(source, target, **others):
    return target


def translated(keep, name="", other=None, lengths=(3, 3)):
    given = {"source": torch.randn(2, lengths[0], 4), "target": torch.randn(2, lengths[1], 4)}
    return lambda: check(translate, given | ({name: other} if name else {}), keep)


CASES = {
    "a keep of zeros and ones": (
        lambda: check(same, TOKEN, KEEP.long()),
        "keep to be a bool tensor",
        "int64",
        "zeros and ones",
    ),
    "a keep of one axis": (lambda: check(same, TOKEN, KEEP[0]), "(batch, token)", "(3,)", "one sample without"),
    "a keep without padding": (
        lambda: check(same, TOKEN, KEEP | True),
        "keep with some padding (False)",
        "all True",
        "nothing could be tried",
    ),
    "a keep that is all padding": (
        lambda: check(same, TOKEN, KEEP & False),
        "a real token in some sample",
        "all False",
        "turned around",
    ),
    "the keep of another batch": (
        lambda: check(same, TOKEN, torch.tensor([[True, False]])),
        "(1, 2)",
        "inputs: a float32 tensor of shape (2, 3, 4)",
        "another batch",
    ),
    "the keep of other tokens by name": (
        lambda: check(same, {"x": TOKEN}, {"x": KEEP[:, :2]}),
        "x of (batch, token) = (2, 2)",
        "(2, 3, 4)",
        "another batch",
    ),
    "a keep for what is not there": (
        lambda: check(same, {"x": TOKEN}, {"y": KEEP}),
        "keep for some of the inputs ['x']",
        "['y']",
        "a spelling slip",
    ),
    "no tensor": (lambda: check(same, [1, 2], KEEP), "an input of (batch, token)", "[1, 2] (list)", "another"),
    "a mode of no name": (
        lambda: check(same, TOKEN, KEEP, modes="test"),
        'among "eval" and "train"',
        "['test']",
        "a spelling",
    ),
    "a mask of another length": (
        by_mask(torch.ones(2, 5), name="attention_mask"),
        "attention_mask of shape (batch, key), (query, key)",
        "a float32 tensor of shape (2, 5)",
        "a cache of earlier tokens",
    ),
    "heads folded into the batch": (
        by_mask(torch.ones(4, 3, 3).bool(), name="attn_mask"),
        "attn_mask of shape (batch, query, key)",
        "(4, 3, 3)",
        "nn.MultiheadAttention",
    ),
    "a mask of samples or of queries": (
        by_mask(torch.ones(3, 3).bool().tril(1), keep=HALF, x=SQUARE, name="window_mask"),
        "window_mask whose axes can be told",
        "(3, 3)",
        "as many samples as tokens",
    ),
    "a number for each sample or token": (
        by_mask(torch.ones(3), keep=HALF, x=SQUARE, name="weights"),
        "weights whose axes can be told",
        "(3,)",
        "as many samples as tokens",
    ),
    "a mask of either sequence": (
        translated({"source": KEEP, "target": KEEP}, "attention_mask", KEEP),
        "attention_mask to go with one of {'source': 3, 'target': 3} on axis 1",
        "(2, 3)",
        "equally long",
    ),
    "a mask of the encoder or across": (
        translated({"source": KEEP, "target": KEEP}, "encoder_mask", KEEP[:, None].expand(2, 3, 3)),
        "encoder_mask to go with one of",
        "(2, 3, 3)",
        "equally long",
    ),
    "two sequences, neither the output's": (
        lambda: check(same, {"x": TOKEN, "y": TOKEN}, {"x": KEEP, "y": KEEP}),
        "one sequence of keep that is the output's own",
        "['x', 'y']",
        "names",
    ),
    "another batch of targets": (
        lambda: check(translate, {"source": TOKEN, "target": TOKEN[:1]}, {"source": KEEP, "target": KEEP[:1]}),
        "keep of as many samples",
        "[(2, 3), (1, 3)]",
        "another batch",
    ),
    "a pooled output": (lambda: check(lambda x: x.mean(1), TOKEN, KEEP), "an output", "(2, 4)", "pooled"),
    "a shortened output": (
        lambda: check(lambda x: x[:, 1:], TOKEN, KEEP),
        "an output for each of 3 tokens of inputs",
        "2",
        "pooled, shortened or the last one only",
    ),
    "an output of a sequence without keep": (
        translated({"source": KEEP}, lengths=(3, 5)),
        "an output for each of 3 tokens of source",
        "5",
        "of a sequence that keep does not name",
    ),
    "predictions": (lambda: check(lambda x: x.argmax(-1), TOKEN, KEEP), "an output", "int64", "predictions"),
    "a batch of two and no other": (
        lambda: check(lambda x: x.view(2, 3, 4), TOKEN, KEEP),
        "a model that runs on one sample alone",
        "RuntimeError",
        "one size of batch or one length",
    ),
    "a class for a model": (lambda: check(torch.nn.Linear, TOKEN, KEEP), "a model", "Linear", "not called yet"),
    "ids alone that fit no memory": (
        lambda: check(lambda ids: ids[..., None].float(), IDS, KEEP, memory=5),
        "memory=5 bytes",
        "18 bytes",
        "a long sequence",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_judged_meets_a_sentence(name):
    meets_a_sentence(*CASES[name])
