"""`describe` names the right reading of whatever was written, and says how many remain."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnmask import causal, conventions, describe, documents, padding
from oracles import cases, some_sizes

KEEP = torch.tensor([[True, True, True, False, False], [True, True, True, True, False]])
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
    sizes = asdict(case.sizes)
    written = WRITTEN[name](case.mask, sizes)
    if written is not None:
        described = says_how_many_remain(describe(written))
        assert any(each.mask.same_as(case.mask, **sizes) for each in described.readings if fits(each.mask, sizes))


@given(case=cases(depth=2))
def test_describe_names_the_right_reading_of_each_argument_of_multihead(case):
    sizes = asdict(case.sizes)
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
        for shape in ((sizes.key_len,), (sizes.batch, sizes.key_len), tuple(asdict(sizes).values())):
            says_how_many_remain(describe(torch.full(shape, value)))
