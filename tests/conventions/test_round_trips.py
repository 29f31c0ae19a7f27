"""What a `to_…` writes, its `from_…` reads back; and no function changes what it is given."""

from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnmask import causal, conventions, everything, padding
from oracles import cases, table


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


def dense_or_not(case, as_tensor):
    return table(case.rule, case.sizes) if as_tensor else case.mask


@pytest.mark.parametrize("name", ROUND_TRIPS)
@given(case=cases(), as_tensor=st.booleans())
def test_a_mask_comes_back_from_a_convention(name, case, as_tensor):
    back = ROUND_TRIPS[name](dense_or_not(case, as_tensor), asdict(case.sizes))
    wanted = table(case.rule, case.sizes)
    assert torch.equal(back.dense(**asdict(case.sizes)).expand_as(wanted), wanted)
    assert back.same_as(case.mask, **asdict(case.sizes))


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
    keep = torch.ones(2, 0, dtype=torch.bool)
    assert conventions.to_multihead(padding(keep), 3, 0) == {"key_padding_mask": None, "attn_mask": None}
    assert conventions.to_huggingface(padding(keep), 3, 0).shape == (2, 0)
    assert conventions.to_huggingface(causal(), 0).shape == (1, 0)
    assert conventions.to_flex(causal(), 3, 0)["KV_LEN"] == 0
    assert conventions.to_flash(everything(), 0).cu_seqlens_q.tolist() == [0]
    assert conventions.from_multihead(attn_mask=torch.zeros(4, 0, 3, dtype=torch.bool), heads=2).heads == 2
