"""Gradients are taken in pieces that fit, row by row where they must be, wherever gradients are off outside."""

import gc

import pytest
import torch
from torch import nn

from attnmask import causal
from attnmask.layers import Encoder
from attnmask.probe import influence

TRIL = torch.ones(5, 5).tril().bool()
X = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
both_probes = pytest.mark.parametrize("probe", ["gradient", "perturbation"])


def test_a_measurement_leaves_no_memory_behind():
    model = nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1), nn.Tanh())
    alive = []
    for _ in range(3):
        influence(model, X)
        gc.collect()
        alive.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))
    assert alive[0] == alive[1] == alive[2]


@both_probes
def test_gradients_switched_off_outside_do_not_matter(probe):
    encoder = Encoder(layers=1, d_model=6).double()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            x = torch.randn(1, 5, 6).double()
            found = influence(lambda x: encoder(x, causal()), x, probe=probe)
        assert torch.equal(found[0], TRIL)


class Unbatchable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return torch.from_numpy(gradient.detach().numpy() * 2)


def test_a_backward_pass_that_cannot_be_batched_is_run_row_by_row():
    encoder = Encoder(layers=1, d_model=6).double()
    found = influence(lambda x: encoder(Unbatchable.apply(x), causal()), torch.randn(1, 5, 6).double())
    assert torch.equal(found[0], TRIL)


def test_less_memory_means_smaller_pieces_and_the_same_answer():
    encoder = Encoder(layers=2, d_model=8)
    x = torch.randn(2, 5, 8)
    found = [influence(lambda x: encoder(x, causal()), x, memory=memory) for memory in (2**31, 60_000)]
    assert torch.equal(*found)
    with pytest.raises(ValueError, match="fits into memory=1,000 bytes"):
        influence(lambda x: encoder(x, causal()), x, memory=1_000)
