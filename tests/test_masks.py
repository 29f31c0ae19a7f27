import pickle
import shutil
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

from attnmask import (
    Mask,
    attend,
    causal,
    documents,
    everything,
    from_dense,
    graph,
    padding,
    per_head,
    prefix,
    sliding_window,
)
from oracles import LEAVES, Sizes, cases, some_sizes, table


def dense(mask, sizes):
    small = mask.dense(sizes.query_len, sizes.key_len, batch=sizes.batch, heads=sizes.heads)
    return small.expand(sizes.batch, sizes.heads, sizes.query_len, sizes.key_len)


def every_index(sizes):
    return product(*(range(n) for n in (sizes.batch, sizes.heads, sizes.query_len, sizes.key_len)))


# ---- against plain loops ----------------------------------------------------------


@pytest.mark.parametrize("leaf", LEAVES)
@given(data=st.data())
def test_each_constructor_answers_like_a_plain_loop(leaf, data):
    case = data.draw(LEAVES[leaf](data.draw(some_sizes())))
    assert torch.equal(dense(case.mask, case.sizes), table(case.rule, case.sizes))


@given(cases())
@settings(max_examples=300)
def test_each_composition_answers_like_a_plain_loop(case):
    assert torch.equal(dense(case.mask, case.sizes), table(case.rule, case.sizes))


@given(cases())
def test_one_pair_answers_like_the_whole(case):
    for b, h, q, k in every_index(case.sizes):
        assert case.mask.allows(q, k, b, h) is bool(case.rule(b, h, q, k))


@given(cases())
def test_density_is_the_share_of_allowed_pairs(case):
    at_own_size = Sizes(case.mask.batch, case.mask.heads, case.sizes.query_len, case.sizes.key_len)
    expected = table(case.rule, at_own_size).double().mean().item()
    assert case.mask.density(case.sizes.query_len, case.sizes.key_len) == pytest.approx(expected)


def test_density_of_many_strips():
    assert causal().density(1300) == pytest.approx(1301 / 2600)


def test_interior_and_left_padding_and_an_empty_row():
    keep = torch.tensor([[True, False, True, False], [False, False, True, True], [False] * 4])
    both = (causal() & padding(keep)).dense(4)
    assert both[:, 0].int().tolist() == [
        [[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]],
        [[0] * 4] * 4,
    ]


@pytest.mark.parametrize(
    ("mask", "picture"),
    [
        (causal(), ["x...", "xx..", "xxx.", "xxxx"]),
        (causal(offset=2), ["xxx.", "xxxx", "xxxx", "xxxx"]),
        (sliding_window(1), ["x...", "xx..", ".xx.", "..xx"]),
        (sliding_window(0, 1), ["xx..", ".xx.", "..xx", "...x"]),
        (causal() | prefix(3), ["xxx.", "xxx.", "xxx.", "xxxx"]),
        (causal() & documents(torch.tensor([[7, 7, 2, 2]])), ["x...", "xx..", "..x.", "..xx"]),
        (causal(position_ids=torch.tensor([[0, 0, 1, 1]])), ["xx..", "xx..", "xxxx", "xxxx"]),
        (sliding_window(3) & documents(torch.arange(4)[None] % 2), ["x...", ".x..", "x.x.", ".x.x"]),
        (~everything(), ["....", "....", "....", "...."]),
    ],
    ids=repr,
)
def test_masks_drawn_by_hand(mask, picture):
    rows = mask.dense(4).expand(1, 1, 4, 4)[0, 0].tolist()
    assert ["".join("x" if cell else "." for cell in row) for row in rows] == picture


# ---- the laws of the algebra ------------------------------------------------------


@st.composite
def trios(draw):
    sizes = draw(some_sizes(4))
    return sizes, *(draw(cases(sizes, depth=1)).mask for _ in range(3))


@given(trios(), st.integers(0, 3))
def test_the_algebra_obeys_the_laws_of_sets(trio, cached):
    sizes, a, b, c = trio

    def equal(one, other):
        assert torch.equal(dense(one, sizes), dense(other, sizes))

    equal(a & b, b & a)
    equal(a | b, b | a)
    equal((a & b) & c, a & (b & c))
    equal(a & (b | c), (a & b) | (a & c))
    equal(~(a & b), ~a | ~b)
    equal(~(a | b), ~a & ~b)
    equal(~~a, a)
    equal(a & everything(), a)
    equal(a | ~everything(), a)
    equal(a & ~a, ~everything())
    equal(a.T.T, a)
    equal(a.after(0), a)


@st.composite
def pairs_behind_a_cache(draw):
    sizes, cached = draw(some_sizes(4)), draw(st.integers(0, 3))
    before = Sizes(sizes.batch, sizes.heads, sizes.query_len + cached, sizes.key_len)
    return sizes, cached, *(draw(cases(before, depth=1)).mask for _ in range(2))


@given(pairs_behind_a_cache())
def test_after_distributes_over_the_operators(drawn):
    sizes, cached, a, b = drawn
    for joined, apart in (
        ((a & b).after(cached), a.after(cached) & b.after(cached)),
        ((a | b).after(cached), a.after(cached) | b.after(cached)),
        ((~a).after(cached), ~a.after(cached)),
    ):
        assert torch.equal(dense(joined, sizes), dense(apart, sizes))


@given(pairs_behind_a_cache())
def test_after_gives_the_last_rows_of_the_whole(drawn):
    sizes, cached, a, _ = drawn
    whole = dense(a, Sizes(sizes.batch, sizes.heads, sizes.query_len + cached, sizes.key_len))
    assert torch.equal(dense(a.after(cached), sizes), whole[:, :, cached:])


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


# ---- behaviour of the object ------------------------------------------------------


def test_plain_integers_get_a_bool_tensor():
    keep = torch.tensor([[True, False]])
    for mask in (causal(), ~causal(), padding(keep), Mask(lambda b, h, q, k: True), ~Mask(lambda b, h, q, k: True)):
        answer = mask(0, 0, 0, 1)
        assert isinstance(answer, torch.Tensor)
        assert answer.dtype == torch.bool
    assert not (~Mask(lambda b, h, q, k: True))(0, 0, 0, 1)


@given(cases(depth=2).filter(lambda case: "Mask(" not in repr(case.mask)))
def test_a_mask_survives_pickling(case):
    again = pickle.loads(pickle.dumps(case.mask))
    assert torch.equal(dense(again, case.sizes), dense(case.mask, case.sizes))
    assert repr(again) == repr(case.mask)


def test_a_mask_does_not_follow_later_changes_of_its_tensor():
    keep = torch.tensor([[True, True]])
    mask = padding(keep)
    keep[0, 0] = False
    assert mask.allows(0, 0)
    with pytest.raises(AttributeError):
        mask.batch = 2


def test_writing_into_an_answer_does_not_reach_the_mask():
    table = torch.tensor([[True, True]])
    for mask in (padding(table), from_dense(table[None, None]), graph(table)):
        mask.dense(1, 2).zero_()
        mask(0, 0, 0, 1).fill_(False)
        mask.dense(1, 2)[..., :1].zero_()
        assert mask.dense(1, 2).all(), mask
    one = padding(torch.tensor([[True]]))
    one.dense(1).zero_()
    assert one.allows(0, 0)


def test_an_empty_batch_gives_an_empty_answer():
    assert padding(torch.zeros(0, 3, dtype=torch.bool)).dense(3).shape == (0, 1, 1, 3)


def test_a_rule_of_ones_own_is_compared_on_the_heads_asked_for():
    second_head = Mask(lambda batch, head, query, key: head == 1)
    assert second_head.same_as(~everything(), 3)  # asked for one head only
    assert not second_head.same_as(~everything(), 3, heads=2)
    assert second_head.density(3, heads=4) == 0.25


def test_many_heads_stay_flat():
    mask = per_head([sliding_window(left) for left in range(300)])
    assert mask.dense(2).shape == (1, 300, 2, 2)
    assert len(pickle.dumps(mask)) < 100_000


def test_held_tensors_follow_the_device_of_the_indices():
    ids = torch.zeros(2, 3, dtype=torch.long)
    elsewhere = [torch.zeros(1, dtype=torch.long, device="meta")] * 4
    for mask in (padding(ids == 0), documents(ids), prefix(ids[:, 0]), graph(ids == 0), per_head([causal()] * 2)):
        assert mask(*elsewhere).device.type == "meta"


def test_equality_is_identity_and_same_as_compares():
    assert causal() != causal()
    assert causal().same_as(causal(), 4)
    assert not causal().same_as(causal(offset=1), 4)
    assert causal().same_as(sliding_window(3), 4)
    assert not causal().same_as(sliding_window(3), 5)
    keep = torch.tensor([[True, True], [True, False]])
    assert padding(keep).same_as(prefix(torch.tensor([2, 1])), 2)
    assert not padding(keep).same_as(everything(), 2)


def test_repr_reads_as_it_was_written():
    keep, ids = torch.ones(2, 5, dtype=torch.bool), torch.zeros(2, 5, dtype=torch.long)
    assert [
        repr(mask)
        for mask in (
            causal() & padding(keep),
            causal(offset=3),
            causal().after(3),
            (causal() | prefix(2)) & ~documents(ids),
            causal() & padding(keep) | everything(),
            ~(causal() & padding(keep)),
            (~causal()).after(2),
            padding(keep).T,
            per_head([causal(), sliding_window(2, 1)]) & everything(),
            causal(offset=1, position_ids=ids),
            prefix(torch.tensor([1, 2])),
            graph(keep),
            from_dense(keep[None, None]),
        )
    ] == [
        "causal() & padding(keep[2, 5])",
        "causal(offset=3)",
        "causal().after(3)",
        "(causal() | prefix(2)) & ~documents(ids[2, 5])",
        "causal() & padding(keep[2, 5]) | everything()",
        "~(causal() & padding(keep[2, 5]))",
        "(~causal()).after(2)",
        "padding(keep[2, 5]).T",
        "per_head([causal(), sliding_window(2, 1)]) & everything()",
        "causal(position_ids=ids[2, 5]).after(1)",
        "prefix(lengths[2])",
        "graph(allowed[2, 5])",
        "from_dense(allowed[1, 1, 2, 5])",
    ]


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
