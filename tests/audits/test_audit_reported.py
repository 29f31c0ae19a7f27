"""What users of real models ran into: models that refuse changes, kernels without float64, ids with a meaning."""

import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attnmask
from attnmask import NotTriedWarning, assert_allowed, audit, causal, influence, padding
from audited import KEEP, X, quick
from real_models import gpt2, mixtral

pytestmark = pytest.mark.usefixtures("as_installed")  # some 10,000 runs: with checks of every signature, half as fast
SIX = torch.tensor([[7, 3, 9, 4, 5, 11]])


class Embedded(nn.Module):
    """Token ids as vectors, to which a function of the ids and of the vectors adds something."""

    def __init__(self, more, vocabulary=97):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.more = nn.Embedding(vocabulary, 8), more

    def forward(self, ids, mask=None):
        h = self.embed(ids)
        return h + self.more(self, ids, h) if mask is None else h + self.more(self, ids, h, mask)


def to_all(module, ids, h):
    """Give every token what all of them hold, by no gradient."""
    return h.detach().mean(1, keepdim=True)


def picky(module, ids, h):
    if not torch.equal(ids, SIX):
        raise ValueError("image features and image tokens do not match")
    return to_all(module, ids, h)


# ---- no silent pass -------------------------------------------------------------------


def test_a_model_that_takes_no_other_ids_does_not_pass():
    """It leaks everything, and no change that could show it runs."""
    with pytest.raises(
        AssertionError, match=r"Nothing can be said: no change of inputs ran.*(?s:.*)features and image"
    ):
        assert_allowed(Embedded(picky), SIX, causal(), modes="eval")
    report = audit(Embedded(picky), SIX, modes="eval")
    assert (report.ok, report.unchanged, report.leaks) == (False, ("inputs",), ())
    assert "eval" not in report.tried


def test_a_mode_in_which_no_change_runs_is_not_called_tried():
    """Here it is training, which wants the ids as they were given; that is told, with the model's own words."""

    def strict_in_training(module, ids, h):
        return picky(module, ids, h) if module.training else torch.zeros_like(h)

    report = audit(Embedded(strict_in_training), SIX, lengths=[])
    assert report.ok
    assert "eval" in report.tried
    assert not any(each.startswith("train") for each in report.tried)
    assert any(
        each.startswith("train: no change of inputs ran to its end (ValueError: image features")
        for each in report.not_tried
    )
    with pytest.warns(NotTriedWarning, match=r"train: no change of inputs ran to its end \(ValueError: image features"):
        assert_allowed(Embedded(strict_in_training), SIX, lengths=[])


def test_ids_that_a_model_counts_stay_where_they_are():
    """It refuses another number of image tokens (here 9); all other ids are tried, and a leak through them is told."""

    def with_image(module, ids, h, leak):
        if not torch.equal((ids == 9), (SIX == 9).expand_as(ids)):
            raise ValueError("image features and image tokens do not match")
        return leak * to_all(module, ids, h)

    right = audit(Embedded(lambda *given: with_image(*given, 0.0)), SIX, **quick)
    assert right.ok
    assert "eval" in right.tried
    assert not audit(Embedded(lambda *given: with_image(*given, 1.0)), SIX, **quick).ok


def test_what_was_not_tried_reaches_the_user_in_one_line():
    asked = {"inputs": {"ids": SIX, "other": X}, "allowed": {"ids": causal()}}
    embed = nn.Embedding(97, 8)

    def model(ids, other=None):
        return embed(ids)

    with pytest.warns(NotTriedWarning) as caught:
        assert_allowed(model, **asked)
    assert [str(each.message) for each in caught] == [
        "Not tried: what depends on other (allowed says nothing about it); other lengths (inputs can be a function)."
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_allowed(model, {"ids": SIX}, {"ids": causal()}, lengths=[])


# ---- float64 --------------------------------------------------------------------------


class Experts(nn.Module):
    """Each token goes through the matrix of one of four experts, in one product for all."""

    def __init__(self, leak, kernel):
        super().__init__()
        torch.manual_seed(0)
        self.leak, self.kernel, self.embed, self.router = leak, kernel, nn.Embedding(97, 16), nn.Linear(16, 4)
        self.weights = nn.Parameter(torch.randn(4, 16, 16) / 4)

    def forward(self, ids):
        h = self.embed(ids)
        x = (h + self.leak * h.detach().mean(1, keepdim=True)).flatten(0, 1)
        expert = self.router(x).argmax(-1)
        order, ends = expert.argsort(), torch.bincount(expert, minlength=4).cumsum(0).int()
        return torch.zeros_like(x).index_copy(0, order, self.kernel()(x[order], self.weights, offs=ends)).view_as(h)


KERNELS = {"torch._grouped_mm": lambda: torch._grouped_mm, "grouped_mm": lambda: F.grouped_mm}


@pytest.mark.parametrize("kernel", KERNELS)
def test_experts_in_one_product_are_told_from_rounding(kernel):
    before = torch._grouped_mm, F.grouped_mm
    ids = torch.randint(97, (2, 8), generator=torch.Generator().manual_seed(0))
    clean = audit(Experts(0.0, KERNELS[kernel]), ids)
    assert clean.ok
    assert not clean.suspects
    assert not audit(Experts(1e-4, KERNELS[kernel]), ids, **quick).ok
    assert (torch._grouped_mm, F.grouped_mm) == before


def test_experts_of_mixtral_in_one_product():
    report = audit(mixtral("sdpa", experts="grouped_mm"), {"input_ids": SIX}, lengths=[], exact=True)
    assert report.ok, report
    assert not report.suspects


# ---- weights that are elsewhere -------------------------------------------------------

SHARDED = """
import os, torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from attnmask import assert_allowed, causal
dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
mesh, ids = init_device_mesh("cpu", (1,)), torch.randint(97, (1, 4))
def made():
    return nn.Sequential(nn.Embedding(97, 8), nn.Linear(8, 8))
new, used, parallel = made(), made(), made()
for each in (new, used):
    fully_shard(each, mesh=mesh)
used(ids)
parallelize_module(parallel, mesh, {"1": ColwiseParallel()})
for model in (new, used, lambda ids: used(ids), parallel):
    try:
        assert_allowed(model, ids, causal())
    except ValueError as error:
        print(error)
"""


def test_sharded_weights_are_refused_and_the_process_lives():
    """In a process of its own, which such weights used to end."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SHARDED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.startswith("Expected a model whose weights are plain tensors; got ")
        assert "Likely cause: sharding or quantisation; measure the model before: its masks are the same." in line


def test_meta_and_lazy_weights_are_refused():
    with pytest.raises(ValueError, match=r'weights hold numbers; got weight of Embedding on the device "meta"'):
        audit(nn.Sequential(nn.Embedding(97, 8)).to("meta"), SIX)
    lazy = nn.Sequential(nn.Embedding(97, 8), nn.LazyLinear(8))
    with pytest.raises(ValueError, match="weights are made; got lazy ones"):
        audit(lambda ids: lazy(ids), SIX)


def test_nan_names_the_module_that_makes_it():
    model = nn.Sequential(nn.Embedding(97, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight.data[0, 0] = torch.nan
    report = audit(model, SIX, **quick)
    assert {each.module for each in report.nan} == {"1"}
    assert "output 0 is NaN; first seen in 1" in str(report)


# ---- leaks, suspects, missing pairs ---------------------------------------------------


def test_no_pair_is_both_leak_and_suspect():
    """Zeros in the padding make a change doubtful; the gradient of the same pair is not."""
    torch.manual_seed(0)
    convolution = nn.Conv1d(8, 8, 3, padding=1)
    report = audit(lambda x: convolution(x.mT).mT, torch.randn(2, 5, 8) * KEEP[..., None], padding(KEEP))
    assert [(each.output, each.input) for each in report.leaks] == [(2, 3)]
    assert not {each[:5] for each in report.leaks} & {each[:5] for each in report.suspects}


def test_missing_pairs_are_counted_once_and_not_after_an_early_stop():
    report = audit(lambda x: x.clone(), X)
    assert [(each.output, each.input) for each in report.missing] == [(q, k) for q in range(5) for k in range(q)]
    stopped = audit(lambda x: x.flip(1), X, until_leak=True)
    assert "nothing reached them" not in str(stopped)


# ---- ids ------------------------------------------------------------------------------

COUNTS = {
    "==": lambda module, ids, h: (ids == 3).sum(1)[:, None, None],
    "isin": lambda module, ids, h: torch.isin(ids, torch.tensor([3, 5])).sum(1)[:, None, None],
}


@pytest.mark.parametrize("vocabulary", [33, 1000, 32000])
@pytest.mark.parametrize("count", COUNTS)
def test_an_id_that_a_model_compares_with_is_tried(count, vocabulary):
    for seed in range(5):
        ids = torch.randint(6, vocabulary, (2, 8), generator=torch.Generator().manual_seed(seed))
        assert not audit(Embedded(COUNTS[count], vocabulary), ids, **quick, until_leak=True).ok


@pytest.mark.parametrize("vocabulary", [33, 1000, 32000])
def test_an_id_that_a_model_counts_in_the_padding_is_tried(vocabulary):
    """As where mask tokens are counted over all that was given: the padding holds other ids."""

    def share(module, ids, h, mask):
        return ((ids == 3).sum(1) / mask.sum(1))[:, None, None]

    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0], [1] * 8])
    for seed in range(5):
        ids = torch.randint(4, vocabulary, (2, 8), generator=torch.Generator().manual_seed(seed))
        report = audit(
            Embedded(share, vocabulary), {"ids": ids, "mask": mask}, {"ids": padding(mask.bool())}, modes="eval"
        )
        assert not report.ok


def test_ids_that_stand_in_the_inputs_are_tried():
    """Here it is the first id of the sample that tells, wherever else it stands: a comparison of ids with ids."""
    report = audit(Embedded(lambda module, ids, h: (ids == ids[:, :1]).sum(1)[:, None, None], 32000), SIX, **quick)
    assert not report.ok


def test_ids_can_be_left_out():
    """A pad id in the middle moves the positions of later tokens; that is no leak of a model which never gets one."""
    seen = set()

    def positions(module, ids, h):
        seen.update(ids.flatten().tolist())
        return (ids != 1).cumsum(1).flip(1)[..., None] / 10.0

    assert not audit(Embedded(positions), SIX, **quick).ok
    assert 1 in seen
    seen.clear()
    assert audit(Embedded(positions), SIX, causal() | padding(torch.ones(1, 6).bool()), without_ids=(1, 2), **quick).ok
    assert not seen & {1, 2}


@pytest.mark.parametrize("first", [1, 2])
def test_an_id_that_is_left_out_is_not_repeated_from_the_inputs(first):
    seen = set()

    def watch(module, ids, h):
        seen.update(ids[:, 1:].flatten().tolist())
        return h

    audit(Embedded(watch), torch.cat([torch.tensor([[first]]), SIX], 1), without_ids=first, **quick)
    assert first not in seen


def test_influence_says_how_to_leave_ids_out():
    """Targets that are compared, and not looked up, stand in the way of the ids' gradients."""
    with pytest.raises(ValueError, match=r'targets that the model looks up.* of="idx" leaves them out'):
        influence(
            lambda idx, targets: F.one_hot(targets, 97).float() + nn.Embedding(97, 97)(idx),
            {"idx": SIX, "targets": SIX.clone()},
        )


# ---- modes, layouts, lengths ----------------------------------------------------------


def test_an_exported_program_is_audited_as_it_is():
    exported = torch.export.export(nn.Sequential(nn.Embedding(97, 8), nn.Linear(8, 8)), (SIX,)).module()
    for model in (exported, lambda ids: exported(ids)):
        report = audit(model, SIX)
        assert report.ok
        assert "as it is" in report.tried
        assert "eval and train (the model cannot switch its mode)" in report.not_tried


def test_images_and_heads_need_the_axis_of_their_positions():
    """Their second axis is no axis of tokens, though a table of its size can be written."""
    four_axes = torch.randn(1, 3, 4, 4)
    for ask in (audit, influence):
        with pytest.raises(ValueError, match=r"position_axis for inputs, which has 4 axes.*heads.*an image"):
            ask(lambda x: x, four_axes)
    assert audit(lambda x: x, four_axes, position_axis=1, **quick).ok


def test_more_tokens_than_a_window_are_tried_or_named():
    class Windowed(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.sliding_window = size

        def forward(self, x):
            return x + (x.mean(1, keepdim=True) if x.shape[1] > self.sliding_window else 0)  # leaks beyond its window

    assert not audit(Windowed(30), X, modes="eval").ok
    large = audit(Windowed(4096), X, modes="eval")
    assert large.ok
    assert "more tokens than sliding_window=4096 (lengths can say how many)" in large.not_tried


def test_a_mask_of_one_length_is_said_in_short():
    keep = torch.ones(1, 5, dtype=torch.bool)
    assert audit(lambda x: x, X, padding(keep)).not_tried == ("other lengths (allowed can be a function)",)


# ---- masks that do nothing ------------------------------------------------------------

MASKS = {
    "bool": torch.ones(2, 5).bool(),
    "zeros and ones": torch.ones(2, 5),
    "additive": torch.zeros(2, 1, 1, 5),
    "a table": torch.ones(5, 5).bool(),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_argument_that_does_nothing_is_told(kind):
    asked = {"inputs": {"x": torch.randn(2, 5, 8), "attention_mask": MASKS[kind]}, "allowed": {"x": causal()}}

    def unused(x, attention_mask):
        return x.cumsum(1)

    def used(x, attention_mask):
        return x.cumsum(1) + attention_mask.float().sum()

    assert audit(unused, **asked).unused == ("attention_mask",)
    assert audit(used, **asked).unused == ()
    with pytest.warns(UserWarning, match="Changing attention_mask moved no output"):
        assert_allowed(unused, **asked)


# ---- layers by themselves -------------------------------------------------------------


def test_a_layer_is_asked_by_itself():
    """The second layer makes up for what the first hides, so that nothing is missing in the end."""
    model = gpt2("eager")
    attention = model.transformer.h[0].attn
    forward = attention.forward

    def short(hidden_states, attention_mask=None, **named):
        attention_mask = attention_mask.clone()
        attention_mask[..., 4, 2] = torch.finfo(torch.float32).min
        return forward(hidden_states, attention_mask=attention_mask, **named)

    attention.forward = short
    ids = {"input_ids": SIX}
    assert audit(model, ids, exact=True, lengths=[]).ok
    report = audit(model, ids, exact=True, lengths=[], layers={"transformer.h.*.attn": causal()})
    assert not report.ok
    assert list(report.layers) == ["transformer.h.0.attn", "transformer.h.1.attn"]
    assert [each.ok for each in report.layers.values()] == [False, True]
    first = report.layers["transformer.h.0.attn"]
    assert [(each.output, each.input) for each in first.missing] == [(4, 2)]
    assert first.verdict == "The layer hides more than its mask does, as far as was tried."
    assert report.layers["transformer.h.1.attn"].verdict == "The layer obeys its mask exactly, as far as was tried."
    assert "In transformer.h.0.attn:" in str(report)
    assert "In transformer.h.1.attn:" not in str(report)


def test_layers_take_arguments_without_names_and_functions_have_layers():
    encoder = attnmask.Encoder(layers=2, d_model=8)
    asked = {"inputs": X, "exact": True, "layers": {"Encoder.layers.*.attention": causal()}, "lengths": []}
    assert audit(lambda x: encoder(x, causal()), **asked).ok
    blind = audit(lambda x: encoder(x, [causal(), attnmask.sliding_window(1)]), **asked)
    assert [each.ok for each in blind.layers.values()] == [True, False]
    assert "sliding_window(1) would fit" in blind.layers["Encoder.layers.1.attention"].hint


def test_a_layer_that_is_not_called_is_an_error():
    with pytest.raises(ValueError, match=r"layers to name modules that the model calls with tokens; got 'h\.\*'.*attn"):
        audit(gpt2("eager"), {"input_ids": SIX}, lengths=[], layers={"h.*": causal()})
    with pytest.raises(TypeError, match="layers to give masks by the names of modules"):
        audit(gpt2("eager"), {"input_ids": SIX}, lengths=[], layers=causal())


def test_the_version_is_that_of_the_distribution():
    project = tomllib.loads((Path(__file__).parents[2] / "companion" / "pyproject.toml").read_text())
    assert attnmask.__version__ == project["project"]["version"]
