import functools
import gc
import math
import random
import subprocess
import sys
import threading
import time
import warnings

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from tqdm import tqdm
from transformers.modeling_outputs import BaseModelOutput

from attnmask import attend, causal, padding, sliding_window
from attnmask.layers import Decoder, Encoder, Translator
from attnmask.probe import influence
from attnmask.stacks import reach
from oracles import reach_loop, stacks

TRIL = torch.ones(5, 5).tril().bool()
ALL = torch.ones(5, 5).bool()
SELF = torch.eye(5).bool()
X = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[7, 3, 9, 3, 5]])
both_probes = pytest.mark.parametrize("probe", ["gradient", "perturbation"])


def stack(depth, heads, **parts):
    torch.manual_seed(1)
    return Encoder(layers=depth, d_model=6 * heads, heads=heads, **parts).double()


# ---- influence of our own layers is what their masks let through ------------------


@both_probes
@given(layers=stacks(), residual=st.booleans(), mlp=st.booleans(), norm=st.booleans())
def test_what_reaches_an_output_is_what_plain_loops_follow_through_the_masks(probe, layers, residual, mlp, norm):
    sizes = layers[0].sizes
    encoder = stack(len(layers), sizes.heads, residual=residual, mlp=mlp, norm=norm)
    x = torch.randn(sizes.batch, sizes.query_len, 6 * sizes.heads, dtype=torch.float64)
    expected, _ = reach_loop([case.rule for case in layers], sizes, residual)
    found = influence(lambda x: encoder(x, [case.mask for case in layers]), x, probe=probe)
    assert found.tolist() == expected


def reach_of(layers, residual):
    sizes, masks = layers[0].sizes, [case.mask for case in layers]
    reached = reach(masks, sizes.query_len, residual=residual, batch=sizes.batch, heads=sizes.heads)
    return reached.expand(sizes.batch, -1, -1)


@given(stacks(), st.booleans())
def test_reach_is_what_influence_finds(layers, residual):
    sizes = layers[0].sizes
    expected, rows_coincide = reach_loop([case.rule for case in layers], sizes, residual)
    reached = reach_of(layers, residual)
    assert (reached | ~torch.tensor(expected)).all()  # never less than what really reaches
    if residual or not rows_coincide:
        assert reached.tolist() == expected


@given(stacks(everyone_sees_itself=True))
def test_reach_is_exact_without_residual_where_every_token_sees_itself(layers):
    sizes = layers[0].sizes
    encoder = stack(len(layers), sizes.heads, residual=False)
    masks = [case.mask for case in layers]
    x = torch.randn(sizes.batch, sizes.query_len, 6 * sizes.heads, dtype=torch.float64)
    found = influence(lambda x: encoder(x, masks), x)
    assert torch.equal(found, reach_of(layers, residual=False))


def test_reach_by_hand():
    keep = torch.tensor([[True, True, False]])
    # Padding in layer 1 only: the pad's own row, never masked by its residual, is seen by all in layer 2.
    assert reach([padding(keep), None], 3)[0].int().tolist() == [[1, 1, 1]] * 3
    assert reach([padding(keep)] * 2, 3)[0].int().tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    # Each token sees only the one before: without residual, two layers look exactly two back.
    before = sliding_window(1) & ~sliding_window(0)
    assert reach([before] * 2, 4, residual=False)[0].int().tolist() == [[0] * 4, [0] * 4, [1, 0, 0, 0], [0, 1, 0, 0]]
    # Two keys to weigh: the query, though it does not see itself, makes the weights.
    others = ~sliding_window(0)
    assert reach([others], 3, residual=False)[0].int().tolist() == [[1] * 3] * 3
    assert reach([others], 2, residual=False)[0].int().tolist() == [[0, 1], [1, 0]]
    assert reach([], 2)[0].int().tolist() == [[1, 0], [0, 1]]


@both_probes
def test_a_window_grows_layer_by_layer(probe):
    encoder = stack(3, 1)
    found = influence(lambda x: encoder(x, sliding_window(1)), torch.randn(1, 7, 6).double(), probe=probe)[0]
    assert [[q - k for k in range(7) if found[q, k]] for q in (2, 6)] == [[2, 1, 0], [3, 2, 1, 0]]


@both_probes
def test_source_and_target_of_a_translator_are_measured_apart(probe):
    torch.manual_seed(0)
    model = Translator(source_vocabulary=10, target_vocabulary=10, layers=2, d_model=16, heads=2).eval()
    keep = torch.tensor([[True, True, True, False, False]])
    inputs = {"source": IDS, "target": IDS[:, :4], "source_masks": padding(keep), "target_masks": causal()}
    found = influence(model, {**inputs, "memory_masks": padding(keep)}, probe=probe)
    assert torch.equal(found["source"][0], keep.expand(4, 5))
    assert torch.equal(found["target"][0], TRIL[:4, :4])
    # Without the memory mask, pads reach the output as keys: their rows of memory.
    assert influence(model, inputs, probe=probe)["source"].all()


@both_probes
def test_a_decoder_reads_all_memory_that_its_mask_allows(probe):
    decoder = Decoder(layers=1, d_model=8)
    memory = torch.randn(1, 7, 8)
    found = influence(
        decoder, {"x": X, "memory": memory, "masks": causal(), "memory_masks": causal().after(2)}, probe=probe
    )
    assert torch.equal(found["x"][0], TRIL)
    # Row q sees memory up to q + 2 in cross-attention, and what was mixed in stays in its row.
    assert torch.equal(found["memory"][0], torch.ones(5, 7).tril(2).bool())


# ---- parts of PyTorch -------------------------------------------------------------


def tokens_first(part):
    """Wrap a part that wants (batch, channel, token)."""
    return lambda x: part(x.mT).mT


BAND = torch.ones(5, 5).tril(1).triu(-1).bool()
PARTS = {
    "Linear": (nn.Linear(8, 3), SELF),
    "LayerNorm": (nn.LayerNorm(8), SELF),
    "MLP": (nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)), SELF),
    "BatchNorm in training": (tokens_first(nn.BatchNorm1d(8)), ALL),
    "BatchNorm in eval": (tokens_first(nn.BatchNorm1d(8).eval()), SELF),
    "InstanceNorm": (tokens_first(nn.InstanceNorm1d(8)), ALL),
    "GroupNorm": (tokens_first(nn.GroupNorm(2, 8)), ALL),
    "convolution": (tokens_first(nn.Conv1d(8, 8, 3, padding=1)), BAND),
    "LSTM": (nn.LSTM(8, 8, batch_first=True), TRIL),
    "mean over tokens": (lambda x: x - x.mean(1, keepdim=True), ALL),
    "flip": (lambda x: x.flip(1), SELF.flip(0)),
    "constant": (lambda x: 0 * x + 1, ~ALL),
}


@both_probes
@pytest.mark.parametrize("name", PARTS)
def test_parts_mix_tokens_or_keep_them_apart(name, probe):
    part, expected = PARTS[name]
    assert torch.equal(influence(part, X, probe=probe)[0], expected)


def blocked(allowed):
    """Write a mask as nn.MultiheadAttention and nn.Transformer read it: True = blocked."""
    return ~allowed


KEEP = torch.tensor([[True, True, True, True, False]])


@both_probes
def test_multihead_attention_of_other_lengths(probe):
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    memory, allowed = torch.randn(1, 7, 8), torch.rand(5, 7) > 0.5
    allowed[:, 0] = True
    inputs = {"query": X, "key": memory, "value": memory, "attn_mask": blocked(allowed)}
    found = influence(attention, inputs, probe=probe)
    assert set(found) == {"query", "key", "value"}
    weighs = allowed.sum(1) > 1
    assert torch.equal(found["query"][0], SELF & weighs[:, None])
    assert torch.equal(found["key"][0], allowed & weighs[:, None])  # a lone key's weight is 1, whatever it holds
    assert torch.equal(found["value"][0], allowed)


@both_probes
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nn_transformer_under_its_masks(probe):
    model = nn.Transformer(8, 2, 1, 2, 16, batch_first=True).eval()
    inputs = {"src": X, "tgt": X[:, :4], "tgt_mask": blocked(TRIL[:4, :4])}
    padded = {"src_key_padding_mask": blocked(KEEP), "memory_key_padding_mask": blocked(KEEP)}
    found = influence(model, {**inputs, **padded}, probe=probe)
    assert torch.equal(found["src"][0], KEEP.expand(4, 5))
    assert torch.equal(found["tgt"][0], TRIL[:4, :4])
    assert influence(model, inputs, probe=probe)["src"].all()


def encoder_of_pytorch(**options):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype, it says
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=not options).eval()


@both_probes
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_transformer_encoder_on_and_off_the_fast_path(probe):
    encoder = encoder_of_pytorch()
    found = influence(encoder, {"src": X, "src_key_padding_mask": blocked(KEEP)}, probe=probe)["src"][0]
    on_the_fast_path = probe == "perturbation"  # which gradients shut
    own = SELF & (KEEP if on_the_fast_path else True)  # on it, padded outputs are zeros
    seen = KEEP & (KEEP.mT if on_the_fast_path else True)
    assert torch.equal(found, own | seen)


def test_a_model_that_runs_on_the_fast_path_only_is_measured_there():
    embedding = nn.Embedding(10, 8)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()

    def model(ids):  # a causal hint without a mask: refused off the fast path, and on it not obeyed
        hidden = embedding(ids)
        return attention(hidden, hidden, hidden, is_causal=True, need_weights=False)

    assert influence(model, IDS, probe="perturbation").all()
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        influence(model, IDS)


@both_probes
def test_a_transformer_decoder(probe):
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2).eval()
    found = influence(decoder, {"tgt": X, "memory": X, "tgt_mask": blocked(TRIL)}, probe=probe)
    assert torch.equal(found["tgt"][0], TRIL)
    assert found["memory"].all()


@both_probes
def test_dropout_in_training_draws_the_same_in_every_run(probe):
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(64, 2, 16, 0.5, norm_first=True), 2, enable_nested_tensor=False
    )
    found = influence(
        encoder.train(), {"src": torch.randn(5, 1, 64), "mask": blocked(TRIL)}, probe=probe, position_axis=0
    )
    assert torch.equal(found["src"][0], TRIL)


# ---- layouts ----------------------------------------------------------------------


@both_probes
def test_positions_may_come_first(probe):
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 1, enable_nested_tensor=False).eval()
    several = torch.randn(5, 3, 8)
    found = influence(encoder, {"src": several, "mask": blocked(TRIL)}, position_axis=0, probe=probe)
    assert torch.equal(found["src"], TRIL.expand(3, 5, 5))


@both_probes
def test_one_sample_without_a_batch(probe):
    found = influence(lambda x: attend(x, x, x, causal()).output, X[0], position_axis=0, probe=probe)
    assert torch.equal(found, TRIL[None])
    embedding = nn.Embedding(10, 8)
    assert torch.equal(influence(embedding, IDS[0], position_axis=0, probe=probe), SELF[None])


@both_probes
def test_each_input_and_the_output_may_have_an_axis_of_its_own(probe):
    heard = torch.randn(2, 8, 6)  # (batch, mel bin, frame)
    listener = nn.Conv1d(8, 8, 2, stride=2)
    found = influence(
        lambda sound, x: listener(sound).mean(2, keepdim=True) + x.mT,  # (batch, channel, token)
        {"sound": heard, "x": X.expand(2, -1, -1)},
        position_axis={"sound": 2, "output": 2},
        probe=probe,
    )
    assert found["sound"].shape == (2, 5, 6)
    assert found["sound"].all()
    assert torch.equal(found["x"], SELF.expand(2, 5, 5))


def test_the_axis_of_a_lone_tensor_has_a_name_too():
    found = influence(lambda x: x.mT, torch.randn(1, 8, 5), position_axis={"inputs": 2})
    assert torch.equal(found[0], SELF)


@both_probes
def test_samples_are_measured_each_by_itself(probe):
    keep = torch.tensor([[True, True, True, False, False], [True, True, True, True, False]])
    encoder = stack(1, 1)
    found = influence(lambda x: encoder(x, padding(keep)), torch.randn(2, 5, 6).double(), probe=probe)
    assert torch.equal(found, keep[:, None] | SELF)


@both_probes
def test_what_one_sample_sends_to_another_is_not_taken_for_its_own(probe):
    swapped = influence(lambda x: x.flip(0), torch.randn(2, 5, 8), probe=probe)
    assert not swapped.any()


# ---- outputs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: (y, None),
        lambda y: [torch.tensor(3), y],
        lambda y: {"weights": torch.zeros(5), "output": y},
        lambda y: {"loss": y.mean(), "logits": y, "hidden": (y.flip(1),)},
    ],
    ids=["tuple", "list", "dict", "loss first"],
)
@both_probes
def test_the_output_is_the_first_tensor_with_the_axes(wrap, probe):
    assert torch.equal(influence(lambda x: wrap(x * 2), X, probe=probe)[0], SELF)


def test_half_precision_and_minus_infinity_in_the_output_are_no_hindrance():
    def model(x):
        hidden = (x * 1000).masked_fill(torch.arange(8) == 3, -math.inf)
        return hidden

    assert torch.equal(influence(model, X.half())[0], SELF)


# ---- token ids --------------------------------------------------------------------


class Lookup(nn.Module):
    """Look ids up in one of several ways, then mix them causally."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.how, self.embedding, self.encoder = how, nn.Embedding(10, 8), Encoder(layers=1, d_model=8)

    def forward(self, ids):
        return self.encoder(self.how(self.embedding, ids), causal())


WAYS = {
    "module": lambda embedding, ids: embedding(ids),
    "function": lambda embedding, ids: nn.functional.embedding(ids, embedding.weight),
    "named arguments": lambda embedding, ids: nn.functional.embedding(input=ids, weight=embedding.weight),
    "indexing": lambda embedding, ids: embedding.weight[ids],
    "flat": lambda embedding, ids: embedding.weight.index_select(0, ids.flatten()).reshape(*ids.shape, 8),
    "view": lambda embedding, ids: embedding(ids.view(-1, ids.shape[-1])),
    "int32": lambda embedding, ids: embedding(ids.int()),
    "twice": lambda embedding, ids: embedding(ids) + embedding(ids.clone()).roll(1, 1),
    "frozen": lambda embedding, ids: nn.functional.embedding(ids, embedding.weight.detach()),
    "written into": lambda embedding, ids: embedding(ids).mul_(3).add_(1),
    "frozen and written into": lambda embedding, ids: embedding.weight.detach()[ids].mul_(3).add_(1),
}


@both_probes
@pytest.mark.parametrize("way", WAYS)
def test_token_ids_are_followed_to_where_they_are_looked_up(way, probe):
    model = Lookup(WAYS[way])
    expected = TRIL
    if way == "twice":
        expected = (TRIL.float() @ (SELF | SELF.roll(1, 0)).float()) > 0  # own token and, rolled, the one before
    several = torch.tensor([[7, 3, 9, 3, 5], [1, 1, 1, 1, 1]])
    for ids in (IDS, several):
        assert torch.equal(influence(model, ids, probe=probe), expected.expand(len(ids), 5, 5))


@both_probes
def test_an_embedding_that_is_overwritten_does_not_reach(probe):
    def overwrite(embedding, ids):
        hidden = embedding(ids)
        hidden[:, 2] = 0.5
        return hidden

    expected = TRIL.clone()
    expected[:, 2] = False
    assert torch.equal(influence(Lookup(overwrite), IDS, probe=probe)[0], expected)


def test_ids_changed_on_the_way_need_the_perturbation_probe():
    model = Lookup(lambda embedding, ids: embedding(ids.roll(1, 1)))
    expected = TRIL.float() @ SELF.roll(1, 0).float() > 0
    assert torch.equal(influence(model, IDS, probe="perturbation")[0], expected)


def test_ids_that_meet_no_embedding_are_exchanged_among_themselves():
    def one_hot(ids):
        return nn.functional.one_hot(ids, 10).float().cumsum(1)

    assert torch.equal(influence(one_hot, IDS, probe="perturbation")[0], TRIL)


BESIDE = {
    "shifted": lambda embedding, ids: embedding(ids.roll(1, 1)),
    "shifted in place": lambda embedding, ids: embedding(shift(ids)),
    "as a number": lambda embedding, ids: ids.float()[..., None],
    "one-hot": lambda embedding, ids: nn.functional.one_hot(ids, 10).float()[..., :8],
    "by several indices": lambda embedding, ids: embedding.weight[ids, :].cumsum(1),
    "of a table the other way up": lambda embedding, ids: embedding.weight.T.index_select(1, ids[0]).T[None],
    "outside PyTorch": lambda embedding, ids: embedding(torch.tensor(ids.tolist())).cumsum(1),
    "through NumPy": lambda embedding, ids: embedding(torch.from_numpy(ids.numpy()[:, ::-1].copy())),
    "gathered": lambda embedding, ids: embedding.weight[:, :1].T.expand(5, 10).gather(1, ids.T)[None],
}


def shift(ids):
    ids[:, 1:] = ids[:, :-1].clone()
    return ids


@pytest.mark.parametrize("way", BESIDE)
@pytest.mark.parametrize("beside", [True, False], ids=["beside a plain lookup", "alone"])
def test_a_way_on_which_ids_cannot_be_followed_is_not_passed_over(way, beside):
    def model(ids):
        hidden = embedding(ids) if beside else 0
        return hidden + BESIDE[way](embedding, ids) + embedding.weight[0]

    embedding = nn.Embedding(10, 8)
    with pytest.raises(ValueError, match="Expected inputs that the model looks up in an embedding as they are"):
        influence(model, IDS)
    assert influence(model, IDS, probe="perturbation").any()


def test_two_inputs_that_are_joined_are_both_refused():
    embedding = nn.Embedding(10, 8)
    for of in ("source", "target"):
        with pytest.raises(ValueError, match=f"Expected {of} that the model looks up"):
            influence(
                lambda source, target: embedding(target) + embedding(torch.cat([source, target], 1))[:, :5],
                {"source": IDS, "target": IDS},
                of=of,
            )


def test_bools_and_fresh_tensors_made_from_ids_are_no_way_of_ids():
    embedding, kinds, places = nn.Embedding(10, 8), nn.Embedding(2, 8), nn.Embedding(9, 8)

    def model(ids):
        real = (ids != 0).int()
        at = real.cumsum(1) * real
        bias = torch.where((ids == 3)[..., None], 1.0, 0.0)
        return embedding(ids) + kinds(torch.zeros_like(ids)) + places(at) + kinds(ids.new_zeros(1, 5)) + bias

    assert torch.equal(influence(model, IDS)[0], SELF)


def test_a_table_of_one_axis_is_looked_up_too():
    bias, embedding = nn.Parameter(torch.randn(10)), nn.Embedding(10, 8)
    found = influence(lambda ids: embedding(ids) + bias[ids].cumsum(1)[..., None], IDS)
    assert torch.equal(found[0], TRIL)


def test_bart_which_makes_its_target_from_the_source_is_refused_not_misread():
    from test_real_models import IDS as SOURCE
    from test_real_models import bart

    with pytest.raises(ValueError, match="input_ids that the model looks up in an embedding as they are"):
        influence(bart("eager"), {"input_ids": SOURCE})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_ids_may_be_small_integers(dtype):
    embedding = nn.Embedding(300, 8)
    found = influence(lambda ids: embedding(ids.long()), IDS.to(dtype), probe="perturbation")
    assert torch.equal(found[0], SELF)


# ---- what one probe sees and the other does not -----------------------------------


def test_detach_hides_from_gradients_only():
    def peek(x):
        return x + x.flip(1).detach()

    assert torch.equal(influence(peek, X)[0], SELF)
    assert torch.equal(influence(peek, X, probe="perturbation")[0], SELF | SELF.flip(0))


def test_a_choice_hides_from_gradients_only():
    def route(x):
        return x * (x.sum() > 0)

    loud = X + 10
    assert torch.equal(influence(route, loud)[0], SELF)

    def choose(x):
        return x + x.sum((1, 2), keepdim=True).argmax(-1, keepdim=True) + x.sum().round()

    assert influence(choose, loud, probe="perturbation").all()


def test_effects_below_rounding_hide_from_perturbation_only():
    def whisper(x):
        return x + 1e-30 * x.flip(1)

    assert torch.equal(influence(whisper, X)[0], SELF | SELF.flip(0))
    assert torch.equal(influence(whisper, X, probe="perturbation")[0], SELF)


def test_a_step_that_one_change_may_not_cross_is_seen_by_three_changes():
    missed = 0
    for seed in range(20):
        x = torch.randn(1, 5, 1, generator=torch.Generator().manual_seed(seed))
        missed += (TRIL & ~influence(lambda x: (x > 0).float().cumsum(1), x, probe="perturbation")[0]).sum().item()
    assert missed < 0.2 * 20 * TRIL.sum()  # one change alone misses about half


@both_probes
@pytest.mark.parametrize("seed", range(3))
def test_inputs_of_any_seed_reach_their_own_outputs_through_a_norm(seed, probe):
    torch.manual_seed(seed)
    x = torch.randn(2, 20, 16)
    for norm in (nn.RMSNorm(16), functools.partial(nn.functional.normalize, dim=-1)):
        assert torch.equal(influence(norm, x, probe=probe), torch.eye(20).bool().expand(2, -1, -1))


def test_new_values_that_a_model_cannot_take_are_not_taken_for_an_effect():
    def of_positive(x):
        return attend(x.log(), x.log(), x.log(), causal()).output

    assert torch.equal(influence(of_positive, X.abs() + 0.1, probe="perturbation")[0], TRIL)
    half = (X * 5000).half()
    weights = (TRIL / 5).half()
    assert torch.equal(influence(lambda x: weights @ x, half, probe="perturbation")[0], TRIL)
    with pytest.raises(ValueError, match="an output for new values of inputs of numbers; got NaN"):
        influence(lambda x: x + (x - X).sqrt() * 0, X, probe="perturbation")


def test_weights_masked_after_the_softmax_look_right_and_leak():
    def too_late(x):
        weights = (x @ x.mT).softmax(-1) * TRIL
        return weights @ x

    assert influence(too_late, X).all()


# ---- left as it was ---------------------------------------------------------------


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


def test_a_measurement_leaves_no_memory_behind():
    model = nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1), nn.Tanh())
    alive = []
    for _ in range(3):
        influence(model, X)
        gc.collect()
        alive.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))
    assert alive[0] == alive[1] == alive[2]


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
    encoder = stack(1, 1)
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
    model = Lookup(WAYS["module"])
    loss = model(IDS).sum()
    influence(model, IDS)
    loss.backward()
    assert model.embedding.weight.grad is not None


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


@both_probes
def test_gradients_switched_off_outside_do_not_matter(probe):
    encoder = stack(1, 1)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            x = torch.randn(1, 5, 6).double()
            found = influence(lambda x: encoder(x, causal()), x, probe=probe)
        assert torch.equal(found[0], TRIL)


# ---- memory, speed, progress ------------------------------------------------------


class Unbatchable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return torch.from_numpy(gradient.detach().numpy() * 2)


def test_a_backward_pass_that_cannot_be_batched_is_run_row_by_row():
    encoder = stack(1, 1)
    found = influence(lambda x: encoder(Unbatchable.apply(x), causal()), torch.randn(1, 5, 6).double())
    assert torch.equal(found[0], TRIL)


def test_less_memory_means_smaller_pieces_and_the_same_answer():
    encoder = Encoder(layers=2, d_model=8)
    x = torch.randn(2, 5, 8)
    found = [influence(lambda x: encoder(x, causal()), x, memory=memory) for memory in (2**31, 60_000)]
    assert torch.equal(*found)
    with pytest.raises(ValueError, match="fits into memory=1,000 bytes"):
        influence(lambda x: encoder(x, causal()), x, memory=1_000)


def slow(x):
    time.sleep(0.45)
    return x * 2


def test_a_bar_shows_when_it_takes_longer(capsys, monkeypatch):
    monkeypatch.setattr(tqdm, "__init__", functools.partialmethod(tqdm.__init__, disable=False))  # notebooks have none
    influence(lambda x: x * 2, torch.randn(1, 4, 2), probe="perturbation")
    assert capsys.readouterr().err == ""
    influence(slow, torch.randn(1, 4, 2), probe="perturbation")
    assert "influence: changed inputs" in capsys.readouterr().err


def test_no_bar_without_tqdm(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert torch.equal(influence(lambda x: x * 2, X)[0], SELF)
