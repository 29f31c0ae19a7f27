"""A model is left bit for bit as it was, whatever a run changes, and also after an error."""

import functools
import math
import random
import subprocess
import sys
import threading
import warnings

import numpy
import pytest
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from attnmask import audit, causal
from attnmask._measure.snapshot import Snapshot
from attnmask.layers import Encoder
from attnmask.probe import influence
from attnmask.stacks import reach

TRIL = torch.ones(5, 5).tril().bool()
SELF = torch.eye(5).bool()
X = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[7, 3, 9, 3, 5]])
both_probes = pytest.mark.parametrize("probe", ["gradient", "perturbation"])


class Restless(nn.Module):
    """Changes everything that a forward pass can change, then stops where it is told."""

    runs_left = math.inf

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 8, max_norm=0.5)  # renormalises its weight in place
        self.norm = nn.BatchNorm1d(8)
        self.register_buffer("seen", torch.zeros(3))
        self.cache, self.calls, self.plain = [], 0, torch.zeros(2)
        self.notes = {"runs": 0}

    def forward(self, ids):
        self.calls += 1
        self.notes["runs"] += 1
        self.cache.append(ids)
        self.plain += 1
        self.seen = self.seen + 1
        self.register_buffer("late", torch.ones(2), persistent=False)
        self.embedding.weight.data.mul_(1.5)
        self.register_forward_hook(lambda *_: None)
        self.norm.eval() if self.norm.training else self.norm.train()
        self.norm.train()
        noise = torch.rand(()) + random.random() + numpy.random.rand()
        hidden = self.norm(self.embedding(ids).mT).mT * noise
        Restless.runs_left -= 1
        if Restless.runs_left < 0:
            raise RuntimeError("stopped")
        return hidden


def everything_of(model):
    """Freeze all that can be compared: values by their bytes, objects by who they are."""
    parts = [
        (
            part.training,
            sorted(vars(part)),
            [id(value) for name, value in sorted(vars(part).items())],
            list(part._forward_hooks),
            list(part._buffers),
        )
        for part in model.modules()
    ]
    tensors = {
        name: (id(each), each.detach().numpy().tobytes()) for name, each in model.state_dict(keep_vars=True).items()
    }
    grads = [None if each.grad is None else (id(each.grad), each.grad.numpy().tobytes()) for each in model.parameters()]
    rest = (model.plain.tolist(), list(map(id, model.cache)), dict(model.notes), model.calls)
    return parts, tensors, grads, rest


def random_state():
    return torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist()


@pytest.mark.parametrize("runs", [math.inf, 0, 1, 3])
@pytest.mark.parametrize("through", ["module", "function"])
@both_probes
def test_the_model_is_left_bit_for_bit_as_it_was_also_after_an_error(probe, through, runs, monkeypatch, as_installed):
    model = Restless()
    model.plain += 2
    model.cache.append("kept")
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    monkeypatch.setattr(Restless, "runs_left", runs)
    ids, before, drawn = IDS.clone(), everything_of(model), random_state()
    called = model if through == "module" else lambda ids: model(ids)
    if runs < (1 if probe == "gradient" else 8):
        with pytest.raises(RuntimeError, match="stopped"):
            influence(called, ids, probe=probe)
    else:
        assert influence(called, ids, probe=probe).all()  # batch statistics mix the tokens
    assert everything_of(model) == before
    assert random_state() == drawn
    assert torch.equal(ids, IDS)
    assert not nn.modules.module._global_forward_pre_hooks


class Hoarder(nn.Module):
    """Keeps state in places that are no buffers, behind a method of its own."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(8, 8), 0
        self.nested = {"layers": [[torch.zeros(2)], [torch.ones(2)]], "seen": {1}}
        self.pair = (torch.zeros(2), [])
        self.generator = torch.Generator().manual_seed(3)
        self.register_buffer("window", torch.zeros(2))
        self.zero = torch.tensor([0.0])

    def encode(self, x):
        self.calls += 1
        self.nested["layers"][0][0] += 1
        self.nested["layers"].append([])
        self.nested["seen"].add(2)
        self.pair[0].add_(1)
        self.pair[1].append(x)
        self.window.data = torch.ones(3)
        self.zero.mul_(-1)
        self.linear.weight.grad.add_(1)
        self.linear.bias.requires_grad_(False)
        self.linear.bias.grad = torch.ones(8)
        return self.linear(x) + torch.rand((), generator=self.generator)

    def state(self):
        return (
            self.calls,
            str(self.nested),
            str(self.pair),
            self.generator.get_state().tolist(),
            self.window.tolist(),
            str(self.zero),
            self.linear.weight.grad.tolist(),
            self.linear.bias.requires_grad,
            self.linear.bias.grad,
        )


class Caller:
    def __init__(self, module):
        self.module = module

    def __call__(self, x):
        return self.module.encode(x)


@both_probes
@pytest.mark.parametrize(
    "through",
    [
        lambda module: module.encode,
        lambda module: lambda x: module.encode(x),
        lambda module: functools.partial(Hoarder.encode, module),
        Caller,
    ],
    ids=["method", "function", "partial", "object"],
)
def test_state_is_put_back_wherever_it_is_kept_and_however_it_is_reached(through, probe, as_installed):
    module = Hoarder()
    module.linear.weight.grad = torch.zeros(8, 8)
    before = module.state()
    influence(through(module), X, probe=probe)
    assert module.state() == before


class Unregistered(nn.Module):
    """Holds a module in a list, a frozen dict, a lock, and a statistic that it writes into under gradients."""

    def __init__(self):
        super().__init__()
        self.hidden, self.linear, self.lock = [nn.BatchNorm1d(5)], nn.Linear(8, 8), threading.Lock()
        self.register_buffer("mean", torch.zeros(8))
        self.last = BaseModelOutput(last_hidden_state=torch.zeros(1))

    def forward(self, x):
        hidden = self.linear(self.hidden[0](x))
        self.mean.mul_(0.9).add_(0.1 * hidden.mean((0, 1)))
        self.last = BaseModelOutput(last_hidden_state=hidden)
        return hidden


@both_probes
def test_modules_in_lists_are_put_back_and_statistics_stay_out_of_the_graph(probe):
    model = Unregistered()
    last = model.last
    influence(model, torch.randn(2, 5, 8), probe=probe)
    assert model.hidden[0].num_batches_tracked == 0
    assert (model.mean.requires_grad, model.mean.is_leaf, model.mean.tolist()) == (False, True, [0.0] * 8)
    assert model.last is last


@both_probes
def test_state_behind_two_functions_is_put_back(probe):
    module = Hoarder()
    module.linear.weight.grad = torch.zeros(8, 8)

    def inner(x):
        return [module][0].encode(x)

    influence(lambda x: inner(x), X, probe=probe)
    assert module.calls == 0


def test_a_tensor_made_in_inference_mode_may_sit_on_the_model():
    model = nn.Linear(8, 8)
    with torch.inference_mode():
        model.table = torch.ones(8)
    assert torch.equal(influence(model, X, probe="perturbation")[0], SELF)
    assert torch.equal(influence(model, X)[0], SELF)


def test_an_argument_that_cannot_be_copied_is_passed_on():
    lock = threading.Lock()
    assert torch.equal(influence(lambda x, lock: x * 2, {"x": X, "lock": lock})["x"][0], SELF)


def test_scripted_statistics_are_put_back():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, it says; models in use are still scripts
        norm = torch.jit.script(nn.BatchNorm1d(5))
    influence(norm, torch.randn(3, 5, 8))
    assert norm.num_batches_tracked == 0


@both_probes
def test_a_cache_that_still_has_its_graph_can_be_an_argument(probe):
    weight = torch.randn(8, 8, requires_grad=True)
    cache = {"keys": [X @ weight]}
    found = influence(lambda x, cache: x + cache["keys"][0], {"x": X, "cache": cache}, probe=probe)
    assert torch.equal(found["x"][0], SELF)


@both_probes
def test_sparse_and_meta_tensors_are_left_alone(probe):
    model = nn.Linear(8, 8)
    model.adjacency, model.offloaded = TRIL.float().to_sparse(), torch.empty(3, device="meta")
    found = influence(lambda x: torch.sparse.mm(model.adjacency, model(x)[0])[None], X, probe=probe)
    assert torch.equal(found[0], TRIL)


@both_probes
def test_a_default_device_elsewhere_does_not_matter(probe):
    encoder = Encoder(layers=1, d_model=6).double()
    x = torch.randn(1, 5, 6).double()
    with torch.device("meta"):
        assert torch.equal(influence(encoder, {"x": x, "masks": causal()}, probe=probe)["x"][0], TRIL)
        assert torch.equal(reach([causal()], 5)[0], TRIL)


COMPILED = """
import torch
from attnmask import Encoder, causal, influence
tril = torch.ones(5, 5).tril().bool()
encoder = Encoder(layers=1, d_model=8)
embedding = torch.nn.Embedding(10, 8)
x, ids = torch.randn(1, 5, 8), torch.tensor([[7, 3, 9, 3, 5]])
compiled = torch.compile(torch.nn.Sequential(embedding, torch.nn.LSTM(8, 8, batch_first=True)), backend="eager")
for probe in ("gradient", "perturbation"):
    inputs = {"x": x, "masks": causal()}
    assert torch.equal(influence(torch.compile(encoder, backend="eager"), inputs, probe=probe)["x"][0], tril)
    assert torch.equal(influence(compiled, ids, probe=probe)[0], tril)
    assert torch.equal(influence(lambda ids: compiled(ids), ids, probe=probe)[0], tril)
"""


def test_compiled_models_run_as_they_were_written():
    # In a process of its own: the run-time shape checks of these tests cannot be compiled.
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", COMPILED], check=True)


def test_a_graph_of_the_caller_survives():
    model = nn.Sequential(nn.Embedding(10, 8), Encoder(layers=1, d_model=8))
    loss = model(IDS).sum()
    influence(model, IDS)
    loss.backward()
    assert model[0].weight.grad is not None


@both_probes
def test_inputs_are_not_written_into(probe):
    x, mask = X.clone().requires_grad_(), {"cache": [torch.zeros(2)]}

    def model(x, extra_mask):
        extra_mask["cache"].append(1)
        extra_mask["cache"][0] += 1
        return x.mul_(2) * len(extra_mask["cache"])

    influence(model, {"x": x, "extra_mask": mask}, probe=probe)
    assert torch.equal(x, X)
    assert x.grad is None
    assert (len(mask["cache"]), mask["cache"][0].tolist()) == (1, [0, 0])


# ---- what is compared after every run, and what only at the end --------------------


def bits(*tensors):
    return [each.detach().numpy().tobytes() for each in tensors]


@pytest.fixture
def model():
    """A layer whose weight is too large to be compared after every run, and whose bias is not."""
    torch.manual_seed(0)
    layer = nn.Linear(80, 80)
    layer.register_buffer("table", torch.randn(5000))
    return layer


def test_a_large_parameter_written_without_a_trace_is_measured_again_from_where_it_was(model):
    before, starts = bits(model.weight), []

    def measure():
        for _ in range(2):
            with kept.run():
                starts.append(bits(model.weight))
                model.weight.data.add_(1)
        return starts[-1]

    with Snapshot(model) as kept:
        assert kept.settled(measure) == before
        assert [each == before for each in starts] == [True, False, True, True]  # unnoticed, noticed, watched
        assert bits(model.weight) == before


def test_it_is_measured_again_also_where_what_was_written_made_the_measurement_fail(model):
    before, starts = bits(model.weight), []

    def measure():
        for _ in range(2):
            with kept.run():
                starts.append(bits(model.weight))
                model.weight.data.add_(1)
                if starts[-1] != before:
                    raise RuntimeError("what was written is in the way")
        return "measured"

    with Snapshot(model) as kept:
        assert kept.settled(measure) == "measured"
        assert len(starts) == 4
        assert bits(model.weight) == before


def test_an_error_of_the_model_itself_is_raised_and_everything_put_back(model):
    before, starts = bits(model.weight), []

    def measure():
        with kept.run():
            starts.append(bits(model.weight))
            model.weight.data.add_(1)
            raise RuntimeError("its own")

    with Snapshot(model) as kept:
        with pytest.raises(RuntimeError, match="its own"):
            kept.settled(measure)
        assert starts == [before] * 2
        assert bits(model.weight) == before


def test_nothing_is_measured_twice_where_nothing_is_written_or_with_a_trace_only(model):
    starts = []

    def measure():
        for _ in range(2):
            with kept.run(), torch.no_grad():
                starts.append(bits(model.weight))
                model.weight.add_(1)
                model.bias.data.add_(1)

    with Snapshot(model) as kept:
        kept.settled(measure)
    assert starts == [bits(model.weight)] * 2


WRITTEN = {
    "a large parameter": lambda model: model.weight.detach().add_(1),
    "a large parameter in another place": lambda model: setattr(model.weight, "data", torch.zeros(80, 80)),
    "a small parameter": lambda model: model.bias.detach().add_(1),
    "a small parameter without a trace": lambda model: model.bias.data.add_(1),
    "a buffer": lambda model: model.table.add_(1),
    "a buffer without a trace": lambda model: model.table.data.add_(1),
}


@pytest.mark.parametrize("what", WRITTEN)
def test_what_is_written_is_put_back_after_each_run(model, what):
    before = bits(*model.state_dict().values())
    with Snapshot(model) as kept:
        for _ in range(2):
            with kept.run():
                WRITTEN[what](model)
                assert bits(*model.state_dict().values()) != before
            assert bits(*model.state_dict().values()) == before
            assert not kept.surprised


@pytest.mark.parametrize("name", ["weight", "bias", "table"])
def test_minus_zero_and_nan_are_put_back_bit_for_bit(model, name):
    tensor = getattr(model, name).detach()
    tensor.view(-1)[:3] = torch.tensor([-0.0, torch.nan, 0.0])
    before = bits(tensor)
    with Snapshot(model) as kept:
        for _ in range(2):
            with kept.run():
                tensor.view(-1)[:3] = torch.tensor([0.0, 1.0, -0.0])
            assert bits(tensor) == before


def test_a_sign_of_zero_that_is_written_without_a_trace_is_put_back():
    model = nn.Linear(2, 2)
    nn.init.zeros_(model.weight)
    before = bits(model.weight)
    with Snapshot(model) as kept, kept.run():
        model.weight.data.neg_()
    assert bits(model.weight) == before


def test_nan_in_a_large_parameter_is_not_taken_for_a_change(model):
    model.weight.data[0, 0] = torch.nan
    measured = []
    with Snapshot(model) as kept:
        kept.settled(lambda: measured.append(1))
    assert len(measured) == 1


def test_everything_is_put_back_after_an_interruption(model):
    before = bits(*model.state_dict().values())

    def interrupted(x):
        model.weight.data.add_(1)
        model.bias.data.add_(1)
        model.table.data.add_(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Snapshot(model) as kept, kept.run():
        interrupted(None)
    assert bits(*model.state_dict().values()) == before
    for measured in (influence, audit):
        with pytest.raises(KeyboardInterrupt):
            measured(interrupted, X)
        assert bits(*model.state_dict().values()) == before


# ---- copies that are shared --------------------------------------------------------


class Merges(nn.Linear):
    """Writes to its weight without a trace when its mode is switched."""

    def train(self, mode=True):
        self.weight.data.add_(1 if mode else -1)
        return super().train(mode)


def copies(snapshot, tensor):
    return snapshot.tensors[id(tensor)].values


def test_a_snapshot_like_another_shares_its_copies_of_large_parameters(model):
    first = Snapshot(model)
    second = Snapshot(model.eval(), like=first)
    assert copies(second, model.weight).data_ptr() == copies(first, model.weight).data_ptr()
    for each in (model.bias, model.table):  # these may change with every run
        assert copies(second, each).data_ptr() != copies(first, each).data_ptr()


def test_it_does_not_share_what_was_written_in_between(model):
    first, before = Snapshot(model), model.weight.detach().clone()
    model.weight.detach().add_(1)
    second = Snapshot(model, like=first)
    assert copies(second, model.weight).data_ptr() != copies(first, model.weight).data_ptr()
    assert torch.equal(copies(first, model.weight), before)
    assert torch.equal(copies(second, model.weight), before + 1)


def test_it_shares_nothing_that_switching_the_mode_wrote_without_a_trace():
    model = Merges(80, 80)
    first, before = Snapshot(model), model.weight.detach().clone()
    second = Snapshot(model.eval(), like=first)
    assert copies(second, model.weight).data_ptr() != copies(first, model.weight).data_ptr()
    assert torch.equal(copies(first, model.weight), before)
    assert torch.equal(copies(second, model.weight), before - 1)
