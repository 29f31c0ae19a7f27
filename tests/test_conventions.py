"""`conventions`: every library gets what it understands, gives the output of `attend`, and can be read back."""

import math
from dataclasses import replace
from importlib.metadata import version
from itertools import combinations, product

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import torch
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention.flex_attention import create_mask
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel
from transformers.masking_utils import create_bidirectional_mask

from attnmask import (
    Mask,
    attend,
    causal,
    conventions,
    describe,
    documents,
    everything,
    from_dense,
    influence,
    padding,
    per_head,
    sliding_window,
)
from attnmask.conventions import LIBRARIES, Varlen
from libraries import FLAGS, MODULES, RUNS, hugging_face_2d, identity_layer, keras_layer, multihead, sdpa_float
from oracles import cases, some_sizes, table

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


# ---- the real libraries -----------------------------------------------------------------


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
    }[row.empty_row]
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
    corners = {row.alignment for row in LIBRARIES if row.call == call} - {""}
    torch.testing.assert_close(weights, by_hand[corners.pop()])
    assert not corners


def test_every_causal_flag_in_the_table_is_tested():
    assert {row.call for row in LIBRARIES if row.alignment and row.version} == set(FLAGS)


def test_the_notes_on_empty_rows():
    mask, query_len, key_len = MASKS["an empty sample"]
    query, key, value = qkv(query_len, key_len)
    mean = value[1].mean(-2, keepdim=True).expand_as(value[1])
    assert (keras_layer(query, key, value, mask, scores=True)[1] == 0).all()
    assert (keras_layer(query, key, value, mask, dropout=0.1)[1] == 0).all()
    torch.testing.assert_close(hugging_face_2d(query, key, value, mask, "eager")[1], mean)
    torch.testing.assert_close(sdpa_float(query, key, value, mask, fill=-1e9)[1], mean)
    assert (multihead(query, key, value, mask, need_weights=False, bias=3.0)[1] == 3.0).all()
    notes = {row.argument: row.note for row in LIBRARIES}
    assert "zeros with dropout, or return_attention_scores=True" in notes["attention_mask"]
    assert "eager: mean of all values" in notes["attention_mask (2-D)"]
    assert "-1e9 gives the mean of all values in float32" in notes["attn_mask (float)"]
    assert "out_proj.bias" in notes["key_padding_mask"]


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
    assert row.empty_row == "zeros"
    assert "before the output bias" in row.note
    attention._forward_hooks.clear()  # a hook keeps the layer off its fast path
    with torch.no_grad():
        assert model.eval()(src, tgt, **six)[1].isnan().all()
    assert "in evaluation without gradients NaN" in row.note


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


def test_packed_sequences_give_what_attend_gives_with_the_mask():
    """The kernel runs on GPUs only; here each sequence is one plain attention."""
    query, key, value = (each[:, :1] for each in qkv(5, 5))
    ids = torch.tensor([[0, 0, 0, 1, 1], [2, 2, 3, 3, 3]])
    for mask in (documents(ids), causal() & documents(ids), causal() & padding(KEEP) & padding(KEEP).T):
        packed = conventions.to_flash(mask, 5)
        output = torch.zeros(BATCH * 5, D)
        flat = [each.transpose(1, 2).flatten(0, 1)[:, 0] for each in (query, key, value)]  # (batch * token, d)
        bounds = zip(packed.cu_seqlens_q.tolist(), packed.cu_seqlens_k.tolist(), strict=True)
        (start, key_start), *others = bounds
        for end, key_end in others:
            at, key_at = packed.query_at[start:end], packed.key_at[key_start:key_end]
            own = causal().after(len(key_at) - len(at)) if packed.causal else None
            output[at] = attend(flat[0][at], flat[1][key_at], flat[2][key_at], own).output
            start, key_start = end, key_end
        torch.testing.assert_close(output.view(BATCH, 5, D), attend(query, key, value, mask).output[:, 0])


# ---- round trips ------------------------------------------------------------------------


def through_multihead(mask, at):
    return conventions.from_multihead(**conventions.to_multihead(mask, **at), heads=at["heads"])


ROUND_TRIPS = {
    "additive": lambda mask, at: conventions.from_additive(conventions.to_additive(mask, **at)),
    "additive, -1e9": lambda mask, at: conventions.from_additive(conventions.to_additive(mask, **at, fill=-1e9)),
    "additive, bfloat16": lambda mask, at: conventions.from_additive(
        conventions.to_additive(mask, **at, dtype=torch.bfloat16, fill=-1e4)
    ),
    "sdpa": lambda mask, at: conventions.from_sdpa(**conventions.to_sdpa(mask, **at)),
    "multihead": through_multihead,
    "flex": lambda mask, at: conventions.from_flex(**conventions.to_flex(mask, **at)),
    "huggingface_4d": lambda mask, at: conventions.from_huggingface(conventions.to_huggingface_4d(mask, **at)),
    "keras": lambda mask, at: conventions.from_keras(conventions.to_keras(mask, **at)),
    "flax": lambda mask, at: conventions.from_flax(conventions.to_flax(mask, **at)),
    "xformers": lambda mask, at: conventions.from_xformers(conventions.to_xformers(mask, **at)),
}


def at(sizes):
    return {"query_len": sizes.query_len, "key_len": sizes.key_len, "batch": sizes.batch, "heads": sizes.heads}


def dense_or_not(case, as_tensor):
    return table(case.rule, case.sizes) if as_tensor else case.mask


@pytest.mark.parametrize("name", ROUND_TRIPS)
@given(case=cases(), as_tensor=st.booleans())
def test_a_mask_comes_back_from_a_convention(name, case, as_tensor):
    back = ROUND_TRIPS[name](dense_or_not(case, as_tensor), at(case.sizes))
    wanted = table(case.rule, case.sizes)
    assert torch.equal(back.dense(**at(case.sizes)).expand_as(wanted), wanted)
    assert back.same_as(case.mask, **at(case.sizes))


@given(sizes=some_sizes(), data=st.data())
def test_the_three_masks_come_back_from_the_six(sizes, data):
    """The target is query_len long, the source key_len."""
    sides = {
        "source": replace(sizes, query_len=sizes.key_len),
        "target": replace(sizes, key_len=sizes.query_len),
        "memory": sizes,
    }
    drawn = {side: data.draw(cases(each, depth=2)) for side, each in sides.items()}
    lengths = {"source_len": sizes.key_len, "target_len": sizes.query_len}
    masks = {side: case.mask for side, case in drawn.items()}
    six = conventions.to_transformer(**masks, **lengths, batch=sizes.batch, heads=sizes.heads)
    back = conventions.from_transformer(**six, heads=sizes.heads)
    for side, mask in back._asdict().items():
        assert mask.same_as(masks[side], **at(sides[side]))


@given(cases())
def test_huggingface_holds_masks_of_keys_and_refuses_others(case):
    wanted, sizes = table(case.rule, case.sizes), at(case.sizes)
    del sizes["heads"]
    if (wanted == wanted[:, :1, :1]).all() and case.mask.heads == 1:
        written = conventions.to_huggingface(case.mask, **sizes)
        assert written.tolist() == wanted[:, 0, 0].int().tolist()
        assert conventions.from_huggingface(written).same_as(case.mask, **at(case.sizes))
    elif (wanted[:, :1] != wanted[:, :1, :1]).any():
        with pytest.raises(ValueError, match="a causal part, which a decoder model adds by itself"):
            conventions.to_huggingface(case.mask, **sizes)


def splits(places):
    """All ways to cut a list into runs."""
    inner = range(1, len(places))
    for number in range(len(places)):
        for cuts in combinations(inner, number):
            yield [places[i:j] for i, j in zip((0, *cuts), (*cuts, len(places)), strict=True)]
    if not places:
        yield []


def packable(allowed):
    """Try every way to cut the queries and the keys of one sample into sequences."""
    queries = [q for q, row in enumerate(allowed) if any(row)]
    keys = [k for k in range(len(allowed[0])) if any(row[k] for row in allowed)]
    found = set()
    for of_queries, of_keys, flag in product(splits(queries), splits(keys), (False, True)):
        if len(of_queries) == len(of_keys):
            pairs = {
                (q, k)
                for own, others in zip(of_queries, of_keys, strict=True)
                for i, q in enumerate(own)
                for j, k in enumerate(others)
                if not flag or j <= i + len(others) - len(own)
            }
            if pairs == {(q, k) for q in queries for k in keys if allowed[q][k]}:
                found.add(flag)
    return found


@given(cases(depth=2))
def test_flash_holds_sequences_and_refuses_others(case):
    wanted, sizes = table(case.rule, case.sizes), at(case.sizes)
    del sizes["heads"]
    same_heads = (wanted == wanted[:, :1]).all() and case.mask.heads == 1
    ways = [packable(sample[0].tolist()) for sample in wanted]
    possible = set.intersection(*ways)
    if not same_heads:
        wanted = case.mask.dense(**sizes)
        possible = possible if (wanted == wanted[:, :1]).all() else set()
    if possible:
        packed = conventions.to_flash(case.mask, **sizes)
        assert packed.causal in possible
        assert conventions.from_flash(packed, **sizes).same_as(case.mask, **sizes)
        assert packed.max_seqlen_q == max(packed.cu_seqlens_q.diff().tolist(), default=0)
        assert packed.max_seqlen_k == max(packed.cu_seqlens_k.diff().tolist(), default=0)
    else:
        with pytest.raises(ValueError, match="a mask that cumulative lengths cannot hold"):
            conventions.to_flash(case.mask, **sizes)


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=3), st.booleans())
def test_packed_documents_come_back(lengths, flag):
    """Cumulative lengths by hand: the sum of the lengths so far."""
    longest = max(sum(row) for row in lengths)
    ids = [[d for d, n in enumerate(row) for _ in range(n)] + [-1] * (longest - sum(row)) for row in lengths]
    keep = torch.tensor(ids) >= 0
    mask = documents(torch.tensor(ids)) & padding(keep) & padding(keep).T
    mask = causal() & mask if flag else mask
    packed = conventions.to_flash(mask, longest)
    assert packed.cu_seqlens_q.diff().tolist() == [n for row in lengths for n in row]
    assert packed.cu_seqlens_q.dtype == torch.int32
    assert isinstance(packed, Varlen)
    assert conventions.from_flash(packed, longest, batch=len(ids)).same_as(mask, longest)


# ---- what each function writes, by hand --------------------------------------------------


def test_multihead_splits_a_mask_into_its_two_arguments():
    both = conventions.to_multihead(causal() & padding(KEEP), 5)
    assert torch.equal(both["key_padding_mask"], ~KEEP)
    by_hand = torch.ones(5, 5, dtype=torch.bool).triu(1)
    by_hand[:, 4] = True  # blocked in both samples
    assert torch.equal(both["attn_mask"], by_hand)
    only_padding = conventions.to_multihead(padding(KEEP), 5)
    assert only_padding["attn_mask"] is None
    assert torch.equal(only_padding["key_padding_mask"], ~KEEP)
    only_causal = conventions.to_multihead(causal(), 5, batch=2, heads=2)
    assert only_causal["key_padding_mask"] is None
    assert torch.equal(only_causal["attn_mask"], torch.ones(5, 5, dtype=torch.bool).triu(1))
    assert conventions.to_multihead(everything(), 5, batch=2) == {"key_padding_mask": None, "attn_mask": None}


def test_the_long_form_of_multihead_counts_heads_within_samples():
    own = Mask(lambda b, h, q, k: 10 * b + h + 0 * q + 0 * k > 10, batch=2, heads=3)
    written = conventions.to_multihead(own, 1, 1, batch=2, heads=3)["attn_mask"]
    assert written.shape == (6, 1, 1)
    assert (~written).flatten().tolist() == [False, False, False, False, True, True]  # sample 1, heads 1 and 2


def test_flex_asks_for_every_sample_and_head():
    mask = per_head([causal(), everything()]) & padding(KEEP)
    arguments = conventions.to_flex(mask, 5)
    assert torch.equal(create_mask(arguments["mask_mod"], 2, 2, 5, 5, device="cpu"), mask.dense(5))
    assert (arguments["B"], arguments["H"]) == (2, 2)


def test_keras_gets_three_axes_and_four_only_where_heads_differ():
    assert conventions.to_keras(padding(KEEP), 5).shape == (2, 5, 5)
    assert conventions.to_keras(per_head([causal(), everything()]), 5).shape == (1, 2, 5, 5)


def test_a_missing_library_is_one_line_in_a_notebook():
    with pytest.raises(ImportError) as caught:
        conventions.need("torch", "no_such_framework.part")
    assert caught.value._render_traceback_() == [str(caught.value)]
    assert "pip install 'attnmask[frameworks]'" in str(caught.value)


def test_no_function_changes_what_it_is_given():
    allowed = causal().dense(4)
    kept = allowed.clone()
    additive = conventions.to_additive(allowed, 4)
    conventions.to_xformers(allowed, 4)
    read = conventions.from_additive(additive)
    additive.zero_()
    assert torch.equal(allowed, kept)
    assert read.same_as(causal(), 4)  # a copy


def test_masks_are_made_where_they_are_asked_for():
    for write in (conventions.to_additive, conventions.to_xformers, conventions.to_huggingface_4d):
        assert write(causal(), 3, device="meta").device.type == "meta"


def test_lengths_of_zero_are_lengths():
    assert conventions.to_multihead(padding(KEEP[:, :0]), 3, 0) == {"key_padding_mask": None, "attn_mask": None}
    assert conventions.to_huggingface(padding(KEEP[:, :0]), 3, 0).shape == (2, 0)
    assert conventions.to_huggingface(causal(), 0).shape == (1, 0)
    assert conventions.to_flex(causal(), 3, 0)["KV_LEN"] == 0
    assert conventions.to_flash(everything(), 0).cu_seqlens_q.tolist() == [0]
    assert conventions.from_multihead(attn_mask=torch.zeros(4, 0, 3, dtype=torch.bool), heads=2).heads == 2


def test_one_query_behind_a_cache_needs_no_batch_axis():
    window = conventions.to_multihead(sliding_window(1).after(4), 1, 5)
    assert window["key_padding_mask"] is None
    assert window["attn_mask"].tolist() == [[True, True, True, False, False]]


def test_every_entry_has_a_place_of_its_own():
    for write in (conventions.to_keras, conventions.to_flax):
        written = write(padding(KEEP), 5, batch=2)
        before = written.clone()
        written[0, ..., 0, 0] = False
        assert (written != before).sum() == 1


def test_arrays_of_other_frameworks_are_read():
    array = np.tril(np.ones((1, 1, 3, 3)))
    for read in (conventions.from_flax, conventions.from_keras):
        assert read(array).same_as(causal(), 3)
        assert read(jnp.asarray(array)).same_as(causal(), 3)
        assert read(tf.constant(array)).same_as(causal(), 3)
    assert conventions.from_huggingface(np.where(array == 1, 0.0, -np.inf)).same_as(causal(), 3)


# ---- describe ----------------------------------------------------------------------------

WRITTEN = {
    "bool": lambda mask, at: mask.dense(**at),
    "blocked": lambda mask, at: ~mask.dense(**at),
    "zeros and ones": lambda mask, at: mask.dense(**at).int(),
    "additive": lambda mask, at: conventions.to_additive(mask, **at),
    "additive, -1e9": lambda mask, at: conventions.to_additive(mask, **at, fill=-1e9),
    "sdpa": lambda mask, at: conventions.to_sdpa(mask, **at)["attn_mask"],
    "huggingface_4d": lambda mask, at: conventions.to_huggingface_4d(mask, **at),
    "keras": lambda mask, at: conventions.to_keras(mask, **at),
    "flax": lambda mask, at: conventions.to_flax(mask, **at),
    "xformers": lambda mask, at: conventions.to_xformers(mask, **at),
}


def says_how_many_remain(described):
    many = len(described.readings)
    assert many
    assert ("only its maker can tell" in str(described)) == (many > 1)
    assert all(each.call in str(described) for each in described.readings)
    return described


@pytest.mark.parametrize("name", WRITTEN)
@given(case=cases(depth=2))
def test_describe_names_the_right_reading(name, case):
    sizes = at(case.sizes)
    written = WRITTEN[name](case.mask, sizes)
    if written is not None:
        described = says_how_many_remain(describe(written))
        assert any(each.mask.same_as(case.mask, **sizes) for each in described.readings if fits(each.mask, sizes))


@given(case=cases(depth=2))
def test_describe_names_the_right_reading_of_each_argument_of_multihead(case):
    sizes = at(case.sizes)
    for name, written in conventions.to_multihead(case.mask, **sizes).items():
        for mask in [] if written is None else [written, torch.zeros(written.shape).masked_fill(written, -torch.inf)]:
            wanted = conventions.from_multihead(**{name: mask}, heads=sizes["heads"])
            described = says_how_many_remain(describe(mask, heads=sizes["heads"] if mask.dim() == 3 else None))
            fitting = [each for each in described.readings if fits(each.mask, sizes)]
            assert any(each.mask.same_as(wanted, **sizes) for each in fitting)
            assert any(name in each.call for each in fitting)


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=3))
def test_describe_names_the_right_reading_of_a_padding_mask(keep):
    mask = padding(torch.tensor(keep))
    described = says_how_many_remain(describe(conventions.to_huggingface(mask, 4)))
    assert any(each.mask.same_as(mask, 4) for each in described.readings if each.axes == "(batch, key)")


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans())
def test_describe_names_the_right_reading_of_cumulative_lengths(lengths, flag):
    mask = documents(torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None])
    mask = causal() & mask if flag else mask
    described = says_how_many_remain(describe(conventions.to_flash(mask, sum(lengths)).cu_seqlens_q))
    assert any(each.mask.same_as(mask, sum(lengths)) for each in described.readings if "cumulative" in each.meaning)


def fits(mask, sizes):
    return all(mask.fits(axis, size) for axis, size in sizes.items())


def test_two_readings_remain_for_a_square_bool_mask_and_the_likelier_comes_first():
    described = describe(torch.ones(3, 3, dtype=torch.bool).tril(), batch=1)
    assert [each.call for each in described.readings] == ["graph(mask)", "from_multihead(attn_mask=mask)"]
    assert "2 readings fit, and only its maker can tell" in str(described)
    assert "1 of 3 rows is empty" in described.readings[1].says


def test_known_sizes_leave_one_reading():
    described = describe(torch.zeros(2, 5).masked_fill(~KEEP, -math.inf), batch=2, query_len=5)
    assert [each.axes for each in described.readings] == ["(batch, key)"]
    assert str(described).startswith("a float32 tensor of shape (2, 5): one reading.")
    assert described.readings[0].mask.same_as(padding(KEEP), 5)


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (torch.tensor([[5, 6, 0]]), "compare them with the pad id"),
        (torch.tensor([[0.0, -0.5], [-1.0, 0.0]]), "a bias such as ALiBi"),
        (torch.tensor([[math.nan, 0.0]]), "It holds NaN"),
        (torch.ones(1, 1, 1, 2, 2, dtype=torch.bool), "one to four axes"),
    ],
)
def test_what_is_no_mask_is_said_to_be_none(tensor, why):
    described = describe(tensor)
    assert not described.readings
    assert why in str(described)


def test_a_known_batch_gives_the_number_of_heads():
    described = describe(torch.full((8, 3, 3), -math.inf).triu(1), batch=4)
    assert [each.call for each in described.readings] == ["from_multihead(attn_mask=mask, heads=2)"]
    heads = [each.axes for each in describe(torch.full((6, 3, 3), -math.inf).triu(1)).readings]
    assert heads == [f"(batch * heads, query, key) of {each} heads" for each in (1, 2, 3, 6)]


def test_an_axis_of_one_is_described_as_broadcasting():
    described = describe(KEEP[:, None], batch=2, query_len=4)
    assert any(each.mask.same_as(padding(KEEP), 4, 5) for each in described.readings)


def test_cumulative_lengths_may_be_long_and_may_have_gaps():
    described = describe(torch.tensor([0, 101, 2003, 20000]))
    assert "too many pairs to look at each" in str(described)
    assert describe(torch.tensor([0, 3, 3, 5])).readings[0].mask.same_as(documents(torch.tensor([[0, 0, 0, 2, 2]])), 5)


def test_an_array_is_described_with_the_tensor_that_its_calls_want():
    described = describe(np.tril(np.ones((3, 3))))
    assert str(described).startswith("mask = torch.as_tensor(mask), a float64 tensor of shape (3, 3): 4 readings")


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 0), (2, 1, 0, 0)])
def test_masks_without_entries_are_described(shape):
    assert "no pairs at all" in str(describe(torch.zeros(shape, dtype=torch.bool)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16])
def test_small_integers_are_described(dtype):
    assert "These look like token ids" in str(describe(torch.tensor([0, 5, 3], dtype=dtype)))


def test_sizes_that_no_reading_has_are_said():
    assert "Its sizes are not those given" in str(describe(torch.ones(2, 3, dtype=torch.bool), key_len=7))


@given(some_sizes())
def test_all_true_and_all_false_are_described_too(sizes):
    for value in (True, False):
        for shape in ((sizes.key_len,), (sizes.batch, sizes.key_len), tuple(at(sizes).values())):
            says_how_many_remain(describe(torch.full(shape, value)))
