"""What `influence` refuses to measure."""

import itertools

import pytest
import torch
from torch import nn

from attnmask import Encoder, attend, influence
from errors import IDS, KEEP, TOKEN, meets_a_sentence

pytestmark = pytest.mark.usefixtures("as_installed")

EMBEDDING = nn.Embedding(10, 4)
ENCODER = Encoder(layers=2, d_model=4)
TICKS = itertools.count()

CASES = {
    "a probe of no name": (lambda: influence(ENCODER, TOKEN, probe="grad"), '"gradient" or', "'grad'", "spelling slip"),
    "a list of ids": (lambda: influence(EMBEDDING, [[1, 2]]), "inputs to be (batch, position", "[[1, 2]]", "no tensor"),
    "a mask to measure": (lambda: influence(EMBEDDING, KEEP), "inputs to be (batch,", "a bool tensor", "a mask, or"),
    "only masks": (lambda: influence(EMBEDDING, {"mask": KEEP}), "to measure, among ['mask']", "[]", "only masks"),
    "an input that is not there": (
        lambda: influence(EMBEDDING, {"input": IDS}, of=["inputs"]),
        "inputs to measure, among ['input']",
        "['inputs']",
        "a spelling slip",
    ),
    "ids of one sample": (
        lambda: influence(EMBEDDING, IDS[0]),
        "(batch, position) token ids, none of them empty, with positions on axis 1",
        "an int64 tensor of shape (3,)",
        "one sample lacks its batch axis",
    ),
    "positions on an axis that is not there": (
        lambda: influence(ENCODER, TOKEN, position_axis=3),
        "positions on axis 3",
        "(2, 3, 4)",
        "(position_axis=)",
    ),
    "positions from the end": (lambda: influence(ENCODER, TOKEN, position_axis=-2), "0 or more", "-2", "a sign slip"),
    "ids outside the vocabulary": (
        lambda: influence(EMBEDDING, {"input": IDS + 5}),
        "input from 0 to 9, as the embedding has 10 rows",
        "ids from 5 to 12",
        "the tokenizer of another model, or -100 left over from labels",
    ),
    "ids below the vocabulary, looked up by an index": (
        lambda: influence(lambda ids: EMBEDDING.weight[ids], IDS - 1, probe="perturbation"),
        "inputs from 0 to 9",
        "ids from -1 to 6",
        "-100 left over",
    ),
    "ids that meet no embedding": (
        lambda: influence(lambda input: nn.functional.one_hot(input, 10).float(), {"input": IDS}),
        "input that the model looks up in an embedding as they are",
        "no lookup of just these",
        'try probe="perturbation", or give the embedded tokens instead',
    ),
    "ids that are changed on the way": (
        lambda: influence(lambda ids: EMBEDDING(ids + 1), IDS),
        "inputs that the model looks up",
        "no lookup of just these",
        "they are shifted, changed or turned into floats on the way",
    ),
    "ids that nothing can replace": (
        lambda: influence(lambda ids: ids[..., None] * 1.0, torch.zeros(1, 3, dtype=torch.long), probe="perturbation"),
        "inputs that the model looks up",
        "no lookup",
        "embedded tokens instead",
    ),
    "predictions": (
        lambda: influence(lambda x: ENCODER(x).argmax(-1, keepdim=True), TOKEN),
        "an output (batch, position, feature) of floats",
        "an int64 tensor of shape (2, 3, 1)",
        "have the model return the scores they were chosen from",
    ),
    "predictions compared": (
        lambda: influence(lambda x: ENCODER(x).argmax(-1, keepdim=True), TOKEN, probe="perturbation"),
        "of floats",
        "an int64 tensor",
        "predictions",
    ),
    "a pooled output": (
        lambda: influence(lambda x: ENCODER(x).mean(1), TOKEN),
        "an output (batch, position, feature) of floats, positions on axis 1",
        "a float32 tensor of shape (2, 4)",
        "have the model return the one before pooling",
    ),
    "one number a position": (lambda: influence(lambda x: x.sum(-1), TOKEN), "(batch,", "(2, 3)", "output[..., None]"),
    "no output": (lambda: influence(lambda x: None, TOKEN), "an output (batch,", "None (NoneType)", "a pooled output"),
    "one sample without a batch, unsaid": (
        lambda: influence(lambda x: attend(x, x, x).output, TOKEN[0]),
        "an output (batch, position, feature)",
        "(3, 4)",
        "pooled",
    ),
    "an output of another batch": (
        lambda: influence(lambda x: x.flatten(0, 1)[None], TOKEN),
        "as many samples in the output as in each input",
        "1 out, [2] in",
        "the batch folded into the positions",
    ),
    "an output with NaN": (
        lambda: influence(lambda x: x / 0 * 0, TOKEN),
        "an output of numbers",
        "NaN",
        "a query that may look at no key",
    ),
    "a gradient of NaN": (
        lambda: influence(lambda x: x + (x * 0).sum(1, keepdim=True).sqrt().nan_to_num() * 0, TOKEN),
        "gradients of numbers",
        "NaN",
        "a query that may look at no key",
    ),
    "a model without a gradient": (
        lambda: influence(lambda x: x.detach() * 2, TOKEN),
        "an output with a gradient for inputs",
        "none",
        "the model ignores it, or cuts it off (no_grad, detach)",
    ),
    "a model that cannot be trained": (
        lambda: influence(lambda x: (y := x.exp(), y.mul_(2))[1], TOKEN),
        "what the backward pass needs unchanged",
        "a float32 tensor of shape (2, 3, 4) changed in place",
        "cannot be trained",
    ),
    "runs that differ": (
        lambda: influence(lambda x: x + next(TICKS), TOKEN, probe="perturbation"),
        "two runs on the same input to agree bit for bit",
        "two outputs that differ",
        "chance or state of objects",
    ),
    "a forward pass beyond memory": (
        lambda: influence(ENCODER, TOKEN, memory=500),
        "a measurement that fits into memory=500 bytes",
        "more than 500 bytes saved in the forward pass",
        "a shorter input mostly shows the same",
    ),
    "a result beyond memory": (
        lambda: influence(lambda x: x * 1, torch.ones(1, 100, 1), probe="perturbation", memory=9_999),
        "fits into memory=9,999 bytes",
        "a result of 10,000 bytes",
        "a long sequence",
    ),
    "a backbone without gradients": (
        lambda: influence(lambda x: nn.functional.linear(ENCODER(x).detach(), torch.eye(4, requires_grad=True)), TOKEN),
        "an output with a gradient for inputs",
        "none",
        "cuts it off",
    ),
    "an embedding without gradients": (
        lambda: influence(lambda ids: ENCODER(torch.no_grad()(EMBEDDING)(ids)), IDS),
        "an output with a gradient for inputs",
        "none",
        "cuts it off",
    ),
    "an input that is ignored": (
        lambda: influence(lambda x, y: 2 * x, {"x": TOKEN, "y": TOKEN}),
        "an output with a gradient for y",
        "none",
        "the model ignores it",
    ),
    "an axis of no name": (
        lambda: influence(ENCODER, {"x": TOKEN}, position_axis={"inputs": 0}),
        "position_axis for ['x', 'output']",
        "['inputs']",
        "a spelling slip",
    ),
    "an empty batch": (lambda: influence(ENCODER, TOKEN[:0]), "none of them empty", "(0, 3, 4)", "lacks its batch"),
    "an empty sequence": (lambda: influence(ENCODER, TOKEN[:, :0]), "none of them empty", "(2, 0, 4)", "its batch"),
    "lengths among the inputs": (
        lambda: influence(ENCODER, {"x": TOKEN, "lengths": torch.tensor([3, 2])}),
        "lengths to be (batch, position, feature) floats or",
        "an int64 tensor of shape (2,)",
        "it is not to be measured (of= names what is",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_meets_a_sentence(name):
    meets_a_sentence(*CASES[name])
