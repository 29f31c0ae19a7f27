"""`influence`: what reaches what, in our layers and in PyTorch's, however inputs and outputs lie."""

import functools
import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attnmask import attend, causal, padding, sliding_window
from attnmask.layers import Decoder, Encoder, Translator
from attnmask.probe import influence
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


# ---- our own layers are what their masks let through -------------------------------


@both_probes
@given(layers=stacks(), residual=st.booleans(), mlp=st.booleans(), norm=st.booleans())
def test_what_reaches_an_output_is_what_plain_loops_follow_through_the_masks(probe, layers, residual, mlp, norm):
    sizes = layers[0].sizes
    encoder = stack(len(layers), sizes.heads, residual=residual, mlp=mlp, norm=norm)
    x = torch.randn(sizes.batch, sizes.query_len, 6 * sizes.heads, dtype=torch.float64)
    expected, _ = reach_loop([case.rule for case in layers], sizes, residual)

    def model(x):
        return encoder(x, [case.mask for case in layers])

    found = influence(model, x, probe=probe)
    if probe == "gradient" and found.tolist() != expected:  # equal rows cancel up to rounding: look at the size
        gradient = torch.autograd.functional.jacobian(model, x).abs().amax(dim=(2, 5))  # (batch, token, batch, token)
        found &= torch.stack([gradient[sample, :, sample] for sample in range(len(x))]) > 1e-12
    assert found.tolist() == expected


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


# ---- parts of PyTorch --------------------------------------------------------------


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


# ---- layouts -----------------------------------------------------------------------


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


# ---- outputs -----------------------------------------------------------------------


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


# ---- what one probe sees and the other does not ------------------------------------


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
