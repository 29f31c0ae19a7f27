import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

from attnmask import (
    Mask,
    attend,
    causal,
    chunked,
    documents,
    everything,
    from_dense,
    graph,
    padding,
    per_head,
    prefix,
    sliding_window,
)
from oracles import Sizes, cases, table

# ---- asking -----------------------------------------------------------------------


@given(cases())
def test_density_is_the_share_of_allowed_pairs(case):
    at_own_size = Sizes(case.mask.batch, case.mask.heads, case.sizes.query_len, case.sizes.key_len)
    expected = table(case.rule, at_own_size).double().mean().item()
    assert case.mask.density(case.sizes.query_len, case.sizes.key_len) == pytest.approx(expected)


def test_density_of_many_strips():
    assert causal().density(1300) == pytest.approx(1301 / 2600)


def test_plain_integers_get_a_bool_tensor():
    keep = torch.tensor([[True, False]])
    for mask in (causal(), ~causal(), padding(keep), Mask(lambda b, h, q, k: True), ~Mask(lambda b, h, q, k: True)):
        answer = mask(0, 0, 0, 1)
        assert isinstance(answer, torch.Tensor)
        assert answer.dtype == torch.bool
    assert not (~Mask(lambda b, h, q, k: True))(0, 0, 0, 1)


def test_a_rule_of_ones_own_goes_by_the_last_name_it_was_given():
    adds = Mask(lambda batch, head, query, key: key - query, name="mine")
    for mask, name in ((adds, "mine"), (replace(adds, name="ours"), "ours"), (~replace(adds, name="ours").T, "ours")):
        with pytest.raises(TypeError, match=f"the rule of {name} to answer with bools"):
            mask(0, 0, 0, 0)


def test_a_rule_of_ones_own_is_compared_on_the_heads_asked_for():
    second_head = Mask(lambda batch, head, query, key: head == 1)
    assert second_head.same_as(~everything(), 3)  # asked for one head only
    assert not second_head.same_as(~everything(), 3, heads=2)
    assert second_head.density(3, heads=4) == 0.25


def test_equality_is_identity_and_same_as_compares():
    assert causal() != causal()
    assert causal().same_as(causal(), 4)
    assert not causal().same_as(causal(offset=1), 4)
    assert causal().same_as(sliding_window(3), 4)
    assert not causal().same_as(sliding_window(3), 5)
    keep = torch.tensor([[True, True], [True, False]])
    assert padding(keep).same_as(prefix(torch.tensor([2, 1])), 2)
    assert not padding(keep).same_as(everything(), 2)


# ---- shapes -----------------------------------------------------------------------


def test_the_dense_form_is_the_smallest_that_broadcasts():
    keep = torch.ones(2, 5, dtype=torch.bool)
    expected = {
        everything(): (1, 1, 1, 1),
        causal(): (1, 1, 5, 5),
        padding(keep): (2, 1, 1, 5),
        padding(keep[:1]): (1, 1, 1, 5),
        padding(keep).T: (2, 1, 5, 1),
        causal() & padding(keep): (2, 1, 5, 5),
        prefix(3): (1, 1, 1, 5),
        prefix(torch.tensor([1, 2])): (2, 1, 1, 5),
        documents(torch.zeros(2, 5, dtype=torch.long)): (2, 1, 5, 5),
        graph(torch.ones(5, 5, dtype=torch.bool)): (1, 1, 5, 5),
        per_head([causal(), everything(), causal()]): (1, 3, 5, 5),
        per_head([padding(keep), everything()]): (2, 2, 1, 5),
        from_dense(torch.ones(2, 1, 5, 1, dtype=torch.bool)): (2, 1, 5, 1),
        chunked(2): (1, 1, 5, 5),
        causal().at(torch.arange(5)): (1, 1, 5, 5),
        causal().at(torch.arange(5)[None].expand(2, 5)): (2, 1, 5, 5),
        padding(keep).at(torch.arange(5)): (2, 1, 1, 5),
    }
    assert {mask: tuple(mask.dense(5).shape) for mask in expected} == expected


def test_batch_and_heads_only_widen_what_a_rule_is_asked_for():
    keep = torch.ones(2, 5, dtype=torch.bool)
    assert padding(keep).dense(5, batch=2, heads=3).shape == (2, 1, 1, 5)
    assert causal().dense(5, batch=8).shape == (1, 1, 5, 5)
    own = Mask(lambda batch, head, query, key: batch + key > head)
    assert own.dense(5, batch=2, heads=3).shape == (2, 3, 1, 5)


def test_key_len_defaults_to_query_len():
    assert torch.equal(causal().dense(3), causal().dense(3, 3))
    assert causal().dense(2, 5).shape == (1, 1, 2, 5)


def test_no_query_and_no_key_give_an_empty_tensor():
    assert causal().dense(0).shape == (1, 1, 0, 0)


def test_an_empty_batch_gives_an_empty_answer():
    assert padding(torch.zeros(0, 3, dtype=torch.bool)).dense(3).shape == (0, 1, 1, 3)


# ---- handed straight to FlexAttention ---------------------------------------------


@given(cases(depth=2))
@settings(max_examples=40)
def test_create_mask_takes_a_mask_as_it_stands(case):
    s = case.sizes
    made = create_mask(case.mask, s.batch, s.heads, s.query_len, s.key_len, device="cpu")
    assert torch.equal(made, table(case.rule, s))


@given(cases(Sizes(2, 2, 8, 8), depth=2))
@settings(max_examples=40)
def test_create_block_mask_takes_a_mask_as_it_stands(case):
    s, block = case.sizes, 4
    made = create_block_mask(case.mask, s.batch, s.heads, s.query_len, s.key_len, device="cpu", BLOCK_SIZE=block)
    blocks = table(case.rule, s).unflatten(3, (-1, block)).unflatten(2, (-1, block)).transpose(3, 4)
    allowed = blocks.flatten(-2).sum(-1)  # (batch, head, query block, key block)
    assert torch.equal(made.full_kv_num_blocks, (allowed == block * block).sum(-1).int())
    assert torch.equal(made.kv_num_blocks, ((allowed > 0) & (allowed < block * block)).sum(-1).int())


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("cl")), reason="torch.compile needs a C++ compiler")
@pytest.mark.usefixtures("as_installed")
def test_compiled_flex_attention_takes_a_mask_as_it_stands():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 128, 16)
    keep = torch.arange(128) < torch.tensor([[128], [70]])
    mask = per_head([causal(), sliding_window(9, 2)]) & padding(keep) | documents(torch.arange(128)[None] // 50)
    compiled = torch.compile(flex_attention)
    block_mask = create_block_mask(mask, 2, 2, 128, 128, device="cpu")
    expected = attend(query, key, value, mask).output
    torch.testing.assert_close(compiled(query, key, value, block_mask=block_mask), expected)


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("cl")), reason="torch.compile needs a C++ compiler")
@pytest.mark.usefixtures("as_installed")
def test_compiled_flex_attention_without_a_batch_size_loses_the_blocks_of_the_other_samples():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 1, 256, 16)
    keep = torch.arange(256) < torch.tensor([[100], [256]])
    block_mask = create_block_mask(padding(keep), None, None, 256, 256, device="cpu")
    of_sample_0 = padding(torch.arange(256)[None] < 128).dense(256)  # the one block of keys that it lists
    expected = attend(query, key, value, padding(keep).dense(256) & of_sample_0).output
    torch.testing.assert_close(torch.compile(flex_attention)(query, key, value, block_mask=block_mask), expected)


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("cl")), reason="torch.compile needs a C++ compiler")
@pytest.mark.usefixtures("as_installed")
def test_compiled_flex_attention_takes_a_mask_at_other_places():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 128, 16)
    shuffled, each = torch.randperm(128), torch.arange(128) + torch.tensor([[0], [40]])
    mask = (causal() & chunked(50)).at(shuffled, shuffled) | sliding_window(5, dilation=3).at(each)
    block_mask = create_block_mask(mask, 2, 2, 128, 128, device="cpu")
    expected = attend(query, key, value, mask).output
    torch.testing.assert_close(torch.compile(flex_attention)(query, key, value, block_mask=block_mask), expected)
