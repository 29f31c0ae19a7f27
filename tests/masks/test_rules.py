import pickle
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnmask import (
    Mask,
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
from oracles import Sizes, cases, dense, positions, some_sizes, table


def every_index(sizes):
    return product(*(range(n) for n in (sizes.batch, sizes.heads, sizes.query_len, sizes.key_len)))


# ---- against plain loops ----------------------------------------------------------


@given(cases())
@settings(max_examples=300)
def test_each_composition_answers_like_a_plain_loop(case):
    assert torch.equal(dense(case.mask, case.sizes), table(case.rule, case.sizes))


@given(cases())
def test_one_pair_answers_like_the_whole(case):
    for b, h, q, k in every_index(case.sizes):
        assert case.mask.allows(q, k, b, h) is bool(case.rule(b, h, q, k))


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


# ---- other places -----------------------------------------------------------------


@st.composite
def pairs_at_positions(draw):
    inner, sizes = draw(some_sizes(4)), draw(some_sizes(4))
    inner = replace(inner, batch=sizes.batch, heads=sizes.heads)
    query_at = draw(positions(sizes.batch, sizes.query_len, inner.query_len))
    key_at = draw(positions(sizes.batch, sizes.key_len, inner.key_len))
    return inner, sizes, query_at, key_at, *(draw(cases(inner, depth=1)).mask for _ in range(2))


@given(pairs_at_positions())
def test_at_distributes_over_the_operators(drawn):
    _, sizes, query_at, key_at, a, b = drawn
    for joined, apart in (
        ((a & b).at(query_at, key_at), a.at(query_at, key_at) & b.at(query_at, key_at)),
        ((a | b).at(query_at, key_at), a.at(query_at, key_at) | b.at(query_at, key_at)),
        ((~a).at(query_at, key_at), ~a.at(query_at, key_at)),
        (a.T.at(key_at, query_at).T, a.at(query_at, key_at)),
        (a.at(query_at).at(None, key_at), a.at(query_at, key_at)),
        (a.at(None, key_at).at(query_at), a.at(query_at, key_at)),
    ):
        assert torch.equal(dense(joined, sizes), dense(apart, sizes))


@given(pairs_at_positions())
def test_at_picks_rows_and_columns_of_the_whole(drawn):
    inner, sizes, query_at, key_at, a, _ = drawn
    whole = dense(a, inner)
    for sample in range(sizes.batch):
        rows, columns = (at if at.dim() == 1 else at[sample] for at in (query_at, key_at))
        picked = whole[sample][:, rows][:, :, columns]
        assert torch.equal(dense(a.at(query_at, key_at), sizes)[sample], picked)


@given(st.data())
def test_positions_of_positions_are_looked_up_in_turn(data):
    first = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=5).map(torch.tensor))
    second = data.draw(positions(2, 4, len(first)))
    mask = data.draw(cases(Sizes(2, 1, 4, 4), depth=1)).mask
    sizes = Sizes(2, 2, 4, 4)
    assert torch.equal(dense(mask.at(first).at(second), sizes), dense(mask.at(first[second]), sizes))


@given(pairs_behind_a_cache())
def test_after_is_a_case_of_at(drawn):
    sizes, cached, a, _ = drawn
    behind = a.at(torch.arange(cached, cached + sizes.query_len))
    assert torch.equal(dense(behind, sizes), dense(a.after(cached), sizes))


def test_a_mask_at_positions_knows_how_many_it_answers_for():
    keep, one, two = torch.ones(2, 5, dtype=torch.bool), torch.tensor([4, 0, 4]), torch.tensor([[1], [2]])
    sizes = {
        causal().at(one): (1, 3, None),
        causal().at(None, one): (1, None, 3),
        causal().at(two, one): (2, 1, 3),
        padding(keep).at(None, one): (2, None, 3),
        padding(keep).at(two): (2, 1, 5),
        padding(keep).at(None, one).T: (2, 3, None),
        causal().at(one[None]).after(1): (1, 2, None),
        causal().at(one[:0]): (1, 0, None),
        per_head([causal()] * 2).at(two): (2, 1, None),
    }
    assert {mask: (mask.batch, mask.query_len, mask.key_len) for mask in sizes} == sizes
    assert per_head([causal()] * 2).at(two).heads == 2
    assert causal().at(one[:0]).dense(0, 5).shape == (1, 1, 0, 5)


def test_a_shard_of_everyones_sequence_and_slots_of_a_static_cache():
    seven = torch.arange(7)
    whole = (causal() & sliding_window(2)).dense(7)
    for mine in (torch.tensor([0, 1, 6]), torch.tensor([5, 2]), torch.tensor([3])):
        shard = (causal() & sliding_window(2)).at(mine, seven)
        assert torch.equal(shard.dense(len(mine), 7), whole[:, :, mine])
    two_samples = causal().at(torch.tensor([[2], [4]]))  # each sample has come as far as it has
    assert two_samples.dense(1, 6)[:, 0, 0].int().tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]]


def test_a_ring_cache_of_any_age():
    slots, window = 4, 4
    for now in range(3, 12):
        held = torch.tensor([max(p for p in range(now + 1) if p % slots == slot) for slot in range(slots)])
        mask = sliding_window(window - 1).at(torch.tensor([now]), held)
        assert mask.dense(1, slots).all()  # the ring is as long as the window: it holds just what may be seen
        shorter = sliding_window(1).at(torch.tensor([now]), held).dense(1, slots)[0, 0, 0]
        assert sorted(held[shorter].tolist()) == [now - 1, now]


# ---- what a rule holds, and how it was written ---------------------------------------


@given(cases(depth=2).filter(lambda case: "Mask(" not in repr(case.mask)))
def test_a_mask_survives_pickling(case):
    again = pickle.loads(pickle.dumps(case.mask))
    assert torch.equal(dense(again, case.sizes), dense(case.mask, case.sizes))
    assert repr(again) == repr(case.mask)


def test_a_mask_does_not_follow_later_changes_of_its_tensor():
    keep = torch.tensor([[True, True]])
    place = torch.tensor([1])
    mask, elsewhere = padding(keep), causal().at(place)
    keep[0, 0] = False
    place[0] = 0
    assert mask.allows(0, 0)
    assert elsewhere.allows(0, 1)
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


def test_many_heads_stay_flat():
    mask = per_head([sliding_window(left) for left in range(300)])
    assert mask.dense(2).shape == (1, 300, 2, 2)
    assert len(pickle.dumps(mask)) < 100_000


def test_held_tensors_follow_the_device_of_the_indices():
    ids = torch.zeros(2, 3, dtype=torch.long)
    elsewhere = [torch.zeros(1, dtype=torch.long, device="meta")] * 4
    for mask in (
        padding(ids == 0),
        documents(ids),
        prefix(ids[:, 0]),
        graph(ids == 0),
        per_head([causal()] * 2),
        causal().at(ids),
        causal().at(ids[0], ids[0]),
    ):
        assert mask(*elsewhere).device.type == "meta"


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
            sliding_window(2, dilation=3),
            sliding_window(2, 1, dilation=3, position_ids=ids),
            causal() & chunked(4),
            causal().at(ids[0], ids),
            (causal() | prefix(2)).at(ids[0]),
            padding(keep).at(None, ids[0]).T,
            causal(offset=2).at(ids).after(1) & everything(),
            Mask(lambda batch, head, query, key: True),
            ~Mask(lambda batch, head, query, key: True, name="mine").after(1),
            replace(causal() & everything(), name="both").T,
            replace(Mask(lambda batch, head, query, key: True, name="mine"), name="ours"),
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
        "sliding_window(2, dilation=3)",
        "sliding_window(2, 1, dilation=3, position_ids=ids[2, 5])",
        "causal() & chunked(4)",
        "causal().at(query_positions[5], key_positions[2, 5])",
        "(causal() | prefix(2)).at(query_positions[5])",
        "padding(keep[2, 5]).at(None, key_positions[5]).T",
        "causal(offset=2).at(query_positions[2, 5]).after(1) & everything()",
        "Mask(<lambda>)",
        "~mine.after(1)",
        "both.T",
        "ours",
    ]
