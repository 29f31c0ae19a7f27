"""`audit` leaves the model as it was, in every mode, also after an interruption."""

import copy
import math

import pytest
import torch
from torch import nn

from attnmask import attend, audit, causal
from audited import X

pytestmark = pytest.mark.usefixtures("as_installed")  # with the checks of every signature, half as fast


def state(model):
    tensors = {name: (each.data_ptr(), each.dtype, each.clone()) for name, each in model.state_dict().items()}
    modules = {name: dict(vars(part)) for name, part in model.named_modules()}
    return tensors, modules


def same_state(one, other):
    tensors = all(
        a[:2] == b[:2] and torch.equal(a[2], b[2]) for a, b in zip(one[0].values(), other[0].values(), strict=True)
    )
    return tensors and one[0].keys() == other[0].keys() and repr(one[1]) == repr(other[1])


class Trouble(nn.Module):
    """Batch norm, tied weights, a buffer that counts, a leak, and an error in some run."""

    def __init__(self, fails_at=math.inf):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.register_buffer("calls", torch.zeros(()))
        self.fails_at, self.runs = fails_at, [0]

    def forward(self, x):
        self.calls += 1
        self.runs[0] += 1
        x = self.lstm(self.norm(self.second(self.first(x)).mT).mT)[0]
        if self.runs[0] >= self.fails_at:
            raise KeyboardInterrupt
        return x + 1e-3 * x.mean(1, keepdim=True).detach()


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(training):
    torch.manual_seed(0)
    model = Trouble().train(training)
    model.first.weight.grad = torch.ones(8, 8)
    handle = model.register_forward_hook(lambda *_: None)
    before, chance, x = state(model), torch.get_rng_state(), X.clone()
    assert not audit(model, x).ok
    assert same_state(state(model), before)
    assert torch.equal(torch.get_rng_state(), chance)
    assert torch.equal(x, X)
    assert torch.get_default_dtype() == torch.float32
    assert model.training == training
    assert model.second.weight is model.first.weight
    assert model.first.weight.grad.sum() == 64
    handle.remove()


@pytest.mark.parametrize("run", [1, 3, 10, 60, 150])
def test_the_model_is_left_as_it_was_after_an_interruption(run):
    torch.manual_seed(0)
    model = Trouble(fails_at=10**9)
    seen = []
    model.first.register_forward_pre_hook(lambda *_: seen.append(1))

    def counted(module, _):
        if len(seen) >= run:
            raise KeyboardInterrupt

    model.norm.register_forward_pre_hook(counted)
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        audit(model, X)
    assert same_state(state(model), before)
    assert torch.get_default_dtype() == torch.float32


def test_flat_weights_of_a_recurrent_layer_still_share_their_storage():
    model = Trouble().eval()
    expected = model(X)
    audit(model, X, modes="eval")
    model.lstm.weight_ih_l0.data.mul_(2)
    doubled = copy.deepcopy(model)
    assert torch.equal(model(X), doubled(X))
    assert not torch.equal(model(X), expected)


class Kept(list):
    """A list that is no part of a model's state: it is not put back."""


class Adapted(nn.Module):
    """Adds a small product to a large weight: in training in each run, in eval once and for all, as LoRA layers do."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(80, 80)
        self.down, self.up = nn.Parameter(torch.randn(2, 80)), nn.Parameter(torch.randn(80, 2))
        self.merged = False
        self.used = Kept()  # in training, the size of the weight of each run

    def train(self, mode=True):
        super().train(mode)
        if self.merged == mode:
            self.base.weight.data += (self.up @ self.down).detach() * (-1 if mode else 1)
            self.merged = not mode
        return self

    def weight(self):
        return self.base.weight if self.merged else self.base.weight + self.up @ self.down

    def forward(self, x):
        weight = self.weight()
        if self.training:
            self.used.append(weight.detach().double().norm().item())
        x = nn.functional.linear(x, weight)
        return attend(x, x, x, causal()).output


both_modes = pytest.mark.parametrize("training", [False, True])


@both_modes
def test_a_weight_that_is_merged_when_the_mode_is_switched_is_left_as_it_was(training):
    torch.manual_seed(0)
    model = Adapted().train(training)
    x, before = torch.randn(1, 4, 80), {name: each.numpy().tobytes() for name, each in model.state_dict().items()}
    report = audit(model, x, lengths=[])
    assert report.ok, report
    assert {name: each.numpy().tobytes() for name, each in model.state_dict().items()} == before
    assert (model.training, model.merged) == (training, not training)


@both_modes
def test_such_a_weight_is_merged_once_in_every_run_in_training(training):
    torch.manual_seed(0)
    model = Adapted().train(training)
    expected = model.weight().double().norm().item()
    audit(model, torch.randn(1, 4, 80), lengths=[])
    assert model.used
    assert all(each == pytest.approx(expected) for each in model.used)
