"""Every library, run for real on what `conventions` writes, gives what `attend` gives and what its row says.

All that imports a framework of the table stands in this one file: they take long to load.
"""

import itertools
import math
import re
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import torch
from flax import nnx
from torch import nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel
from transformers.masking_utils import create_bidirectional_mask

from attnmask import (
    Mask,
    attend,
    causal,
    conventions,
    documents,
    everything,
    from_dense,
    influence,
    padding,
    per_head,
    sliding_window,
)
from attnmask.conventions import LIBRARIES
from libraries import FLAGS, MODULES, RUNS, WINDOWS, hugging_face_2d, identity_layer, keras_layer, multihead, sdpa_float
from real_models import t5

BATCH, HEADS, D = 2, 2, 4
KEEP = torch.tensor([[True, True, True, False, False], [True, True, True, True, False]])
GONE = torch.tensor([[True, True, True, True, True], [False, False, False, False, False]])
MASKS = {  # (mask, query length, key length)
    "none": (everything(), 5, 5),
    "padding": (padding(KEEP), 5, 5),
    "causal": (causal(), 5, 5),
    "both": (causal() & padding(KEEP), 5, 5),
    "cross": (padding(KEEP), 3, 5),
    "cross, each query its own": (causal().after(2) & padding(KEEP), 3, 5),
    "per head": (per_head([causal(), sliding_window(1, 1)]), 5, 5),
    "per head and sample": (per_head([causal(), sliding_window(2, 1)]) & padding(KEEP), 5, 5),
    "empty rows": (causal() & padding(KEEP.flip(1)), 5, 5),
    "an empty sample": (padding(GONE), 5, 5),
}
RUN = {row: RUNS[row.call, row.argument] for row in LIBRARIES if (row.call, row.argument) in RUNS}


def qkv(query_len, key_len):
    chance = torch.Generator().manual_seed(query_len * 10 + key_len)
    return [torch.randn(BATCH, HEADS, length, D, generator=chance) for length in (query_len, key_len, key_len)]


def test_every_row_that_names_a_version_is_run():
    # The six masks of nn.Transformer go through a whole model; they have a test of their own below.
    named = {(row.call, row.argument) for row in LIBRARIES if row.version} - {("nn.Transformer", "six masks")}
    assert named == set(RUNS)


@pytest.mark.parametrize("row", [row for row in LIBRARIES if row.version], ids=lambda row: f"{row.call} {row.argument}")
def test_the_table_names_the_installed_version(row):
    installed = MODULES[row.package].__version__ if row.package in MODULES else version(row.package)
    assert installed.split("+")[0] == row.version


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("row", RUN, ids=lambda row: f"{row.call} {row.argument}")
def test_a_library_with_the_converted_mask_gives_what_attend_gives(row, name):
    mask, query_len, key_len = MASKS[name]
    query, key, value = qkv(query_len, key_len)
    if row.argument == "attention_mask (2-D)" and name not in ("none", "padding", "cross", "an empty sample"):
        with pytest.raises(ValueError, match="2-D attention_mask is"):
            RUN[row](query, key, value, mask)
        return
    output = RUN[row](query, key, value, mask)
    if row.argument == "and_mask_function":  # asks for head 0 only, as the table says
        mask = from_dense(mask.dense(query_len, key_len)[:, :1])
    if row.call == "create_causal_mask":  # joins the mask to a causal one
        mask = mask & causal().after(key_len - query_len)
    wanted = attend(query, key, value, mask, empty_rows="nan")
    empty = wanted.output.isnan().any(-1)
    torch.testing.assert_close(output[~empty], wanted.output[~empty], atol=1e-5, rtol=1e-5)
    gets = {
        "zeros": torch.zeros_like(value),
        "NaN": torch.full_like(value, torch.nan),
        "mean of all values": value.mean(-2, keepdim=True).expand_as(value),
    }[row.empty_row.partition(";")[0]]
    torch.testing.assert_close(output[empty], gets[:, :, :query_len][empty], atol=1e-5, rtol=1e-5, equal_nan=True)
    assert empty.any() == ("empty" in name) or row.call == "create_causal_mask"


@pytest.mark.parametrize("call", FLAGS)
def test_a_causal_flag_counts_from_the_corner_that_the_table_names(call):
    query, key, value = torch.zeros(1, 1, 2, 5), torch.zeros(1, 1, 5, 5), torch.eye(5)[None, None]
    weights = FLAGS[call](query, key, value)[0, 0]
    by_hand = {
        "upper left": torch.tensor([[1, 0, 0, 0, 0], [1 / 2, 1 / 2, 0, 0, 0]]),
        "lower right": torch.tensor([[1 / 4, 1 / 4, 1 / 4, 1 / 4, 0], [1 / 5] * 5]),
    }
    corners = {row.corner for row in LIBRARIES if row.call == call} - {""}
    torch.testing.assert_close(weights, by_hand[corners.pop()])
    assert not corners


def test_every_causal_flag_in_the_table_is_tested():
    assert {row.call for row in LIBRARIES if row.corner and row.version} == set(FLAGS)


@pytest.mark.parametrize("call", WINDOWS)
def test_a_window_holds_as_many_keys_as_the_table_says(call):
    """Of nine tokens; the words of the table say how many keys the token in the middle sees, itself included."""
    (words,) = {row.window for row in LIBRARIES if row.call == call} - {""}
    holds = {"W keys": lambda left, right: left, "l + 1 + r keys": lambda left, right: left + 1 + right}
    for left, right in ((2, 0), (3, 0), (2, 1)):
        if (left, right) == (2, 1) and "(l, r)" not in words:
            continue
        seen = WINDOWS[call](left, right)[4]  # (query, key)
        assert int(seen.sum()) == holds[words.split(": ")[1]](left, right)
        assert bool(seen[4])


def test_every_window_in_the_table_is_tested():
    assert {row.call for row in LIBRARIES if row.window and row.version} == set(WINDOWS)


@pytest.mark.parametrize(
    "row", [row for row in RUN if "broadcasts" in row.shape], ids=lambda row: f"{row.call} {row.argument}"
)
def test_any_axis_may_be_one_where_the_table_says_broadcasts(row):
    query, key, value = qkv(3, 5)
    sizes = [(1, full) for full in (BATCH, HEADS, 3, 5)]
    chance = torch.Generator().manual_seed(0)
    for shape in itertools.product(*sizes):
        allowed = torch.rand(shape, generator=chance) > 0.5
        allowed[..., 0] = True  # no row is empty
        wanted = attend(query, key, value, from_dense(allowed.expand(BATCH, HEADS, 3, 5))).output
        output = RUN[row](query, key, value, from_dense(allowed))
        torch.testing.assert_close(output, wanted, atol=1e-5, rtol=1e-5)


def test_keras_jax_and_flax_broadcast_every_axis():
    """Handed over as they are: the converters write the axes of queries and keys in full."""
    query, key, value = qkv(3, 5)
    merged = [each.transpose(1, 2).flatten(2).numpy() for each in (query, value, key)]
    layer = identity_layer(HEADS, D, merged)
    three = [jnp.asarray(each.transpose(1, 2).numpy()) for each in (query, key, value)]
    for shape in itertools.product((1, BATCH), (1, HEADS), (1, 3), (1, 5)):
        allowed = torch.ones(shape, dtype=torch.bool)
        allowed[0, -1, -1, 1:] = False
        mask = from_dense(allowed.expand(BATCH, HEADS, 3, 5))
        wanted = attend(query, key, value, mask).output.transpose(1, 2)  # (batch, token, head, d)
        outputs = [layer(*merged, attention_mask=allowed.numpy()).numpy().reshape(wanted.shape)]
        if shape[1] == 1:
            outputs.append(layer(*merged, attention_mask=allowed[:, 0].numpy()).numpy().reshape(wanted.shape))
        for function in (jax.nn.dot_product_attention, nnx.dot_product_attention):
            outputs.append(np.asarray(function(*three, mask=jnp.asarray(allowed.numpy()))))
        for output in outputs:
            torch.testing.assert_close(torch.tensor(output), wanted, atol=1e-5, rtol=1e-5)


def test_what_the_table_says_of_empty_rows_on_other_paths():
    mask, query_len, key_len = MASKS["an empty sample"]
    query, key, value = qkv(query_len, key_len)
    mean = value[1].mean(-2, keepdim=True).expand_as(value[1])
    assert (keras_layer(query, key, value, mask, scores=True)[1] == 0).all()
    assert (keras_layer(query, key, value, mask, dropout=0.1)[1] == 0).all()
    torch.testing.assert_close(hugging_face_2d(query, key, value, mask, "eager")[1], mean)
    torch.testing.assert_close(sdpa_float(query, key, value, mask, fill=-1e9)[1], mean)
    assert (multihead(query, key, value, mask, need_weights=False, bias=3.0)[1] == 3.0).all()
    others = {row.call + " " + row.argument: row.empty_row.partition("; ")[2] for row in LIBRARIES if row.version}
    on_a_gpu = others.pop("F.scaled_dot_product_attention attn_mask")
    assert on_a_gpu == "on a GPU in half precision (cuDNN): the unmasked row"  # tests/test_on_gpu.py
    assert {call: other for call, other in others.items() if other} == {
        "layers.MultiHeadAttention attention_mask": "with dropout or return_attention_scores=True: zeros",
        "model(...) attention_mask (2-D)": "eager attention, or T5: mean of all values",
        "create_causal_mask and_mask_function": "eager attention: mean of all values",
        "F.scaled_dot_product_attention attn_mask (float)": "-1e9 in float32: mean of all values",
        "nn.MultiheadAttention key_padding_mask": "without weights, off the fast path: the output bias",
        "nn.MultiheadAttention attn_mask": "without weights, off the fast path: the output bias",
        "nn.Transformer six masks": "on the fast path: NaN, or zeros in nested tensors",
    }


def test_the_rows_that_cast_numbers_turn_an_additive_mask_upside_down():
    """0 becomes False and minus infinity True: what is seen is what was blocked."""
    query, key, value = qkv(5, 5)
    keep, blocked = padding(KEEP), padding(~KEEP)
    additive = torch.zeros(2, 5).masked_fill(~KEEP, -math.inf)
    pretends = Mask(lambda b, h, q, k: additive[b, k].bool(), batch=2)  # as casting to bool reads it
    assert pretends.same_as(blocked, 5)
    assert not pretends.same_as(keep, 5)
    states = torch.empty(2, 5, 1)
    assert torch.equal(
        create_bidirectional_mask(LlamaConfig(attn_implementation="sdpa"), states, additive),
        blocked.dense(5, 5).expand(2, 1, 5, 5),
    )
    merged = [each.transpose(1, 2).flatten(2).numpy() for each in (query, key, value)]
    layer = identity_layer(HEADS, D, merged)
    output = layer(merged[0], merged[2], merged[1], attention_mask=additive[:, None].expand(2, 5, 5).numpy())
    wanted = attend(query, key, value, blocked).output.transpose(1, 2).flatten(2)
    torch.testing.assert_close(torch.tensor(np.array(output)), wanted, atol=1e-5, rtol=1e-5)
    tokens = [jnp.asarray(each.transpose(1, 2).numpy()) for each in (query, key, value)]
    output = nnx.dot_product_attention(*tokens, mask=jnp.asarray(additive[:, None, None].numpy()))
    torch.testing.assert_close(torch.tensor(np.array(output)).flatten(2), wanted, atol=1e-5, rtol=1e-5)
    casting = [row.argument for row in LIBRARIES if "cast to bool" in row.note]
    assert casting == ["attention_mask (2-D)", "attention_mask", "mask"]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_t5_spreads_an_empty_row_over_the_whole_target(attention):
    """Its mask joins a position bias, so that SDPA gets no bools either."""
    ids = {"input_ids": torch.tensor([[5, 6]]), "decoder_input_ids": torch.tensor([[0, 7, 8]])}
    model = t5(attention)
    for first, reached in {0: [True] * 3, 1: [True, False, False]}.items():
        given = {**ids, "decoder_attention_mask": torch.tensor([[first, 1, 1]])}
        assert influence(model, given)["decoder_input_ids"][0, 0].tolist() == reached


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_empty_row_in_nn_transformer_as_its_row_says():
    """Finite in training, where the attention gives zeros and its bias; NaN in evaluation without gradients."""
    row = next(row for row in LIBRARIES if row.call == "nn.Transformer")
    torch.manual_seed(0)
    model = nn.Transformer(8, 2, 2, 2, 16, dropout=0.0, batch_first=True)
    left = torch.tensor([[True] * 3, [False, True, True]])
    six = conventions.to_transformer(everything(), causal() & padding(left), source_len=3, target_len=3, batch=2)
    src, tgt = torch.randn(2, 2, 3, 8)
    caught = []
    attention = model.decoder.layers[0].self_attn
    nn.init.constant_(attention.out_proj.bias, 3.0)
    attention.register_forward_hook(lambda module, inputs, output: caught.append(output[0]))
    output = model(src, tgt, **six)
    output.sum().backward()
    assert output.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert (caught[0][1, 0] == 3.0).all()
    assert row.empty_row == "the output bias; on the fast path: NaN, or zeros in nested tensors"
    attention._forward_hooks.clear()  # a hook keeps the layer off its fast path
    with torch.no_grad():
        assert model.eval()(src, tgt, **six)[1].isnan().all()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        empty = {"src_key_padding_mask": torch.tensor([[False] * 3, [True] * 3])}
        assert (nn.TransformerEncoder(layer, 1).eval()(src, **empty)[1] == 0).all()
        assert nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval()(src, **empty)[1].isnan().all()


@pytest.mark.parametrize("memory", [None, sliding_window(1, 1)], ids=["default", "its own"])
def test_the_six_masks_reach_the_attention_they_are_named_for(memory):
    """One layer each side: what an output depends on follows from the three masks, one after the other."""
    torch.manual_seed(0)
    model = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True).double().eval()
    source, target = padding(KEEP[:, :4]) & sliding_window(1, 1), causal() & padding(KEEP[:, :3])
    six = conventions.to_transformer(source, target, memory, source_len=4, target_len=3, batch=2, heads=2)
    found = influence(
        lambda src, tgt: model(src, tgt, **six),
        {"src": torch.randn(2, 4, 8).double(), "tgt": torch.randn(2, 3, 8).double()},
    )
    at_source = source.dense(4)[:, 0] | torch.eye(4, dtype=torch.bool)
    at_target = target.dense(3)[:, 0] | torch.eye(3, dtype=torch.bool)
    at_memory = (padding(KEEP[:, :4]) if memory is None else memory).dense(3, 4)[:, 0].expand(2, 3, 4)
    assert torch.equal(found["src"], (at_memory.float() @ at_source.float()) > 0)
    assert torch.equal(found["tgt"], at_target)


def test_the_mask_function_of_hugging_face_is_a_mask_as_it_stands():
    row = next(row for row in LIBRARIES if row.argument == "and_mask_function")
    query, key, value = qkv(5, 5)
    mask = documents(torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]]))
    wanted = attend(query, key, value, causal() & mask).output
    for attention in ("eager", "sdpa"):
        torch.testing.assert_close(RUN[row](query, key, value, mask, attention), wanted)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_real_model_reads_both_kinds_of_attention_mask_alike(attention):
    """Two axes and the model's own causal mask, or four axes that hold both: the real tokens get the same."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    left = KEEP.flip(1)
    ids = torch.randint(1, 50, (2, 5), generator=torch.Generator().manual_seed(0))
    for config, model, own in (
        (LlamaConfig(vocab_size=50, **sizes, num_key_value_heads=2), LlamaModel, causal()),
        (BertConfig(vocab_size=50, **sizes), BertModel, everything()),
    ):
        config._attn_implementation = attention
        torch.manual_seed(0)
        network = model(config).eval()
        with torch.no_grad():
            two_axes, four_axes = (
                network(ids, attention_mask=mask).last_hidden_state[left]
                for mask in (
                    conventions.to_huggingface(padding(left), 5),
                    conventions.to_huggingface_4d(own & padding(left), 5),
                )
            )
            none = network(ids).last_hidden_state[left]
        torch.testing.assert_close(two_axes, four_axes, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(two_axes, none, atol=1e-3)


def test_arrays_of_other_frameworks_are_read():
    array = np.tril(np.ones((1, 1, 3, 3)))
    for read in (conventions.from_flax, conventions.from_keras):
        assert read(array).same_as(causal(), 3)
        assert read(jnp.asarray(array)).same_as(causal(), 3)
        assert read(tf.constant(array)).same_as(causal(), 3)
    assert conventions.from_huggingface(np.where(array == 1, 0.0, -np.inf)).same_as(causal(), 3)


def test_the_recipes_of_the_cheat_sheet_give_what_attend_gives(capsys):
    sheet = (Path(__file__).parents[2] / "book" / "reference" / "cheat-sheet.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", sheet, flags=re.DOTALL)
    start, pytorch, empty, cache, packing, loss, hugging, others, unknown = blocks
    names = {}
    exec(start, names)
    query, key, value, mask, keep, ids = (names[each] for each in ("query", "key", "value", "mask", "keep", "ids"))
    wanted = attend(query, key, value, mask).output
    assert torch.equal(keep, ids != 0)
    torch.testing.assert_close(names["output"], wanted)

    exec(pytorch, names)
    written = torch.nn.functional.scaled_dot_product_attention(query, key, value, **names["written"])
    torch.testing.assert_close(written, wanted)
    assert (names["weights"][~mask.dense(4)[:, 0]] == 0).all()
    assert names["output"].isfinite().all()

    exec(empty, names)
    left = attend(query, key, value, causal() & padding(keep.flip(1)), empty_rows="nan").output
    assert left.isnan().any()
    assert torch.equal(names["output"].isfinite(), torch.ones_like(left, dtype=torch.bool))
    torch.testing.assert_close(names["output"][left.isfinite()], left[left.isfinite()])

    exec(cache, names)
    torch.testing.assert_close(names["output"], wanted[:, :, -1:])

    exec(packing, names)
    assert names["position_ids"].tolist() == [[0, 1, 2, 0], [0, 0, 1, 2]]
    assert names["targets"].tolist() == [[-100, 6, 7, -100], [-100, -100, 0, 0]]

    exec(loss, names)
    pairs = [(0, 0), (0, 1), (1, 0)]  # tokens 5 and 6 of the first sample and 8 of the second have a real next token
    by_hand = [-names["logits"][b, t].log_softmax(-1)[ids[b, t + 1]] for b, t in pairs]
    torch.testing.assert_close(names["loss"], sum(by_hand) / 3)

    exec(hugging, names)
    alone = names["model"](ids[1:, :2].flip(1)).logits[0]
    torch.testing.assert_close(names["output"].logits[1, 2:], alone, atol=1e-5, rtol=1e-5)
    assert names["text"].shape == (2, 6)

    exec(others, names)
    in_jax = torch.tensor(np.array(names["output"])).transpose(1, 2)
    torch.testing.assert_close(in_jax, wanted, atol=1e-5, rtol=1e-5)

    exec(unknown, names)
    assert "2 readings fit" in capsys.readouterr().out


@pytest.mark.parametrize("argument", ["mask", "src_key_padding_mask"])
def test_the_fast_path_of_the_encoder_casts_floats_to_bool(argument):
    """Off the fast path they are added; minus infinity means the same either way, a bias does not."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    encoder, x = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(2, 5, 8)
    places = torch.arange(5.0)
    bias = -(places[:, None] - places).abs() if argument == "mask" else -places.expand(2, 5)
    blocked = torch.zeros_like(bias).masked_fill(bias < -1, -torch.inf)
    added = {name: encoder(x, **{argument: each}) for name, each in (("bias", bias), ("blocked", blocked))}
    with torch.no_grad():
        fast = encoder.eval()
        assert (fast(x, **{argument: bias}) - added["bias"]).abs().max() > 0.1
        torch.testing.assert_close(fast(x, **{argument: bias}), fast(x, **{argument: bias != 0}))
        torch.testing.assert_close(fast(x, **{argument: blocked}), added["blocked"])
