"""What cannot be told from rounding, from chance or from a mask of the model's own is a suspect, and no leak."""

import re

import pytest
import torch
from torch import nn

from attnmask import Encoder, assert_allowed, audit, causal, documents, padding
from audited import KEEP, Sees, X

pytestmark = pytest.mark.usefixtures("as_installed")  # with the checks of every signature, half as fast


def test_rounding_in_a_gradient_is_no_leak():
    """A convolution by Fourier transform gives every token a gradient in every other: 1e-9 of rounding."""
    kernel = torch.randn(8, generator=torch.Generator().manual_seed(2))

    def convolved(x):
        length = x.shape[1] + 8  # room for the kernel, so that nothing comes around
        spectrum = torch.fft.rfft(x, length, dim=1) * torch.fft.rfft(kernel.to(x), length)[:, None]
        return torch.fft.irfft(spectrum, length, dim=1)[:, : x.shape[1]]

    x = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    gradient = torch.autograd.grad(convolved(x)[:, 0].sum(), x)[0]
    assert 0 < gradient[:, 1:].abs().max() < 1e-6  # what a naive check would report
    report = audit(convolved, x.detach())
    assert report.ok, report
    assert not report.suspects


class NoDouble(nn.Module):
    """Rounds as a model with kernels for float32 only does, and refuses float64."""

    def forward(self, x):
        if x.dtype == torch.float64:
            raise RuntimeError("float32 only")
        return x * 2 + 1e-7 * x.mean(1, keepdim=True).detach()


def test_a_difference_that_float64_cannot_confirm_is_a_suspect():
    report = audit(NoDouble(), X, modes="eval")
    assert report.ok
    assert report.suspects
    assert "float64, which tells leaks from rounding, fails: RuntimeError: float32 only" in str(report)
    assert re.search(r"\d+ suspects, by \de-0\d at most:", str(report))
    with pytest.warns(UserWarning, match="suspect"):
        assert_allowed(NoDouble(), X, modes="eval")


def test_a_mask_that_the_model_makes_from_the_ids_makes_a_suspect_not_a_leak():
    torch.manual_seed(0)
    table, layers = nn.Embedding(12, 8), Encoder(layers=1, d_model=8)
    ids = torch.tensor([[3, 4, 5, 0, 0]])
    report = audit(lambda ids: layers(table(ids), padding(ids != 0)), ids, padding(ids != 0))
    assert report.ok
    assert {each.input for each in report.suspects} == {3, 4}
    assert "perhaps the model makes a mask or positions of its own from these ids" in str(report)
    report = audit(lambda ids: layers(table(ids), documents((ids > 99).long())), ids, padding(ids != 0))
    assert not report.ok  # its gradients tell


def test_chances_that_move_with_the_input_are_a_suspect_not_a_leak():
    class Routed(nn.Module):
        """Each token goes to one of two experts, who drop at random: who comes first takes the chances."""

        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
            self.dropout = nn.Dropout(0.5)

        def forward(self, x):
            y, first = torch.zeros_like(x), x[..., 0] > 0
            for expert, rows in zip(self.experts, (first, ~first), strict=True):
                y[rows] = self.dropout(expert(x[rows]))
            return y

    torch.manual_seed(0)
    report = audit(Routed(), X)
    assert report.ok, report
    assert report.suspects
    assert "only while there is dropout, whose chances may have moved" in str(report)
    assert not audit(Routed(), X, modes="eval").suspects


def test_chances_are_told_apart_wherever_they_come_from():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

        def forward(self, x):
            y, first = torch.zeros_like(x), x[..., 0] > 0
            for expert, rows in zip(self.experts, (first, ~first), strict=True):
                y[rows] = nn.functional.dropout(expert(x[rows]), 0.5, self.training)
            return y

    torch.manual_seed(0)
    report = audit(Routed(), X)
    assert report.ok, report
    assert report.suspects


def test_rounding_in_a_model_that_goes_back_to_float32_is_no_leak():
    class Convolved(nn.Module):
        """A causal convolution by Fourier transform, which is always done in float32."""

        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.linspace(1, 0, 8)[:, None])

        def forward(self, x):
            length = x.shape[1] + 8
            spectrum = torch.fft.rfft(x.float(), length, dim=1) * torch.fft.rfft(self.kernel.float(), length, dim=0)
            return torch.fft.irfft(spectrum, length, dim=1)[:, : x.shape[1]].to(x)

    report = audit(Convolved(), X.repeat(2, 1, 1))
    assert report.ok, report
    assert not report.suspects, report


def test_a_mask_made_from_zeros_makes_a_suspect():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    x = X.repeat(2, 1, 1) * KEEP[..., None]

    def model(x):
        return attention(x, x, x, key_padding_mask=(x == 0).all(-1))[0]

    report = audit(model, x, padding(KEEP))
    assert report.ok, report
    assert "perhaps the model makes a mask or positions of its own from these zeros" in str(report)


def test_allowed_as_a_function_follows_a_mask_that_the_model_makes():
    torch.manual_seed(0)
    table, layers = nn.Embedding(12, 8), Encoder(layers=1, d_model=8)
    ids = torch.tensor([[5, 6, 7, 1, 8, 9], [5, 6, 1, 7, 8, 9]])

    def in_documents(ids):
        return causal() & documents((ids == 1).cumsum(1))

    report = audit(lambda ids: layers(table(ids), in_documents(ids)), ids, in_documents)
    assert report.ok, report
    assert not report.suspects
    assert not audit(lambda ids: layers(table(ids), causal()), ids, in_documents).ok


def test_a_large_difference_is_a_leak_even_where_float64_fails():
    class NoDouble(nn.Module):
        def forward(self, x):
            if x.dtype == torch.float64:
                raise RuntimeError("float32 only")
            return x * 2 + x.mean(1, keepdim=True).detach()

    report = audit(NoDouble(), X, modes="eval")
    assert not report.ok
    assert not audit(torch.jit.trace(Sees(lambda x: x.mean(1, keepdim=True).detach()).eval(), X), X, modes="eval").ok
