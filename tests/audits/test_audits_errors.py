"""What `audit` refuses to judge."""

import itertools

import pytest
import torch
from torch import nn

from attnmask import Encoder, Translator, audit, causal, padding, reach
from errors import IDS, INF, KEEP, TOKEN, meets_a_sentence

pytestmark = pytest.mark.usefixtures("as_installed")

EMBEDDING = nn.Embedding(10, 4)
ENCODER = Encoder(layers=2, d_model=4)
TRANSLATOR = Translator(source_vocabulary=10, target_vocabulary=5, layers=1, d_model=4, longest=8)
TICKS = itertools.count()

CASES = {
    "a mode of no name": (
        lambda: audit(ENCODER, TOKEN, modes="test"),
        'among "eval" and "train"',
        "['test']",
        "a spelling",
    ),
    "no mode": (lambda: audit(ENCODER, TOKEN, modes=[]), 'among "eval" and "train"', "[]", "a spelling slip"),
    "a negative length to try": (
        lambda: audit(ENCODER, TOKEN, lengths=[-1]),
        "a length to be 0 or more",
        "-1",
        "a sign slip",
    ),
    "a maker of masks for an audit": (
        lambda: audit(ENCODER, TOKEN, causal),
        "allowed to be a Mask, a bool tensor, one of them by name, or a function of the inputs",
        "(function)",
        "forgotten parentheses",
    ),
    "an additive mask for an audit": (
        lambda: audit(ENCODER, TOKEN, torch.zeros(3, 3).masked_fill(torch.ones(3, 3).triu(1) > 0, -INF)),
        "allowed for inputs to be a Mask or a bool tensor of shape (2 or 1, 3, 3)",
        "a float32 tensor of shape (3, 3)",
        "an additive mask",
    ),
    "allowed of two axes": (
        lambda: audit(ENCODER, TOKEN, KEEP),
        "allowed for inputs to be a Mask or a bool tensor of shape (2 or 1, 3, 3)",
        "a bool tensor of shape (2, 3)",
        "two readings fit",
    ),
    "allowed of another length": (
        lambda: audit(ENCODER, TOKEN, reach([causal()], 4)),
        "a bool tensor of shape (2 or 1, 3, 3)",
        "a bool tensor of shape (1, 4, 4)",
        "reach(...) at another length",
    ),
    "allowed of other tokens": (
        lambda: audit(ENCODER, TOKEN, padding(torch.ones(2, 4) > 0)),
        "allowed for inputs to hold 2 samples of 3 outputs and 3 inputs",
        "padding(keep[2, 4])",
        "a mask made from other inputs",
    ),
    "allowed for an input that is not there": (
        lambda: audit(ENCODER, {"x": TOKEN}, {"y": causal()}),
        "allowed for some of the inputs ['x']",
        "['y']",
        "a spelling slip",
    ),
    "allowed by name for a lone tensor": (
        lambda: audit(ENCODER, TOKEN, {"inputs": causal()}),
        "allowed for some of the inputs",
        "['inputs']",
        "names for a lone tensor, which has none",
    ),
    "one mask for a source and a target": (
        lambda: audit(TRANSLATOR, {"source": IDS, "target": IDS % 5}, causal()),
        "allowed for each input by name, as the model takes ['source', 'target']",
        "causal()",
        "allowed={name: mask}",
    ),
    "a sequence that is not there": (
        lambda: audit(ENCODER, {"x": TOKEN}, same_sequence="y"),
        "same_sequence among ['x']",
        "y",
        "a spelling slip",
    ),
    "an output that is shorter": (
        lambda: audit(lambda x: x[:, 1:], TOKEN),
        "as many outputs as inputs under causal()",
        "2 for 3",
        "an output that is pooled, shortened or the last one only",
    ),
    "a mask that is all padding": (
        lambda: audit(ENCODER, TOKEN, padding(KEEP & False)),
        "an output to judge",
        "padding(keep[2, 3])",
        "lets no query look at any key",
    ),
    "chance from outside": (
        lambda: audit(lambda x: x + next(TICKS), TOKEN),
        "two runs on the same input to agree bit for bit",
        "two outputs",
        "chance or state of objects",
    ),
    "tables that do not fit": (
        lambda: audit(ENCODER, TOKEN, memory=500),
        "a measurement that fits into memory=500 bytes",
        "tables of 1,152 bytes",
        "a long sequence",
    ),
    "predictions to audit": (lambda: audit(lambda x: x.argmax(-1), TOKEN), "an output (batch,", "int64", "predictions"),
    "a mask to audit": (lambda: audit(ENCODER, KEEP), "inputs to be (batch, position", "a bool tensor", "a mask, or"),
    "ids of another tokenizer for an audit": (
        lambda: audit(EMBEDDING, IDS + 5),
        "inputs from 0 to 9",
        "ids from 5 to 12",
        "another model",
    ),
    "no model": (lambda: audit(None, TOKEN), "a model: a module or a function", "None (NoneType)", "not called yet"),
    "a class for a model": (
        lambda: audit(Encoder, TOKEN),
        "a model: a module",
        "Encoder",
        "a class that was not called",
    ),
    "a model that never ran": (
        lambda: audit(nn.LazyLinear(4), TOKEN),
        "a model whose weights are made",
        "lazy ones",
        "run it once",
    ),
    "a sparse output": (lambda: audit(lambda x: x.to_sparse(), TOKEN), "densely stored", "(2, 3, 4)", "sparse"),
    "a number for a sequence": (
        lambda: audit(ENCODER, TOKEN, same_sequence=3),
        "a name or a bool",
        "3 (int)",
        "a name",
    ),
    "no modes at all": (lambda: audit(ENCODER, TOKEN, modes=None), "modes among", "[None]", "a spelling slip"),
    "a mask of another batch": (
        lambda: audit(ENCODER, TOKEN[:1], padding(KEEP)),
        "allowed for inputs to hold 1 samples",
        "padding(keep[2, 3])",
        "a mask made from other inputs",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_meets_a_sentence(name):
    meets_a_sentence(*CASES[name])
