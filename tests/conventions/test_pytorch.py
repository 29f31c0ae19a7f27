"""What is written for PyTorch, by hand."""

from dataclasses import asdict, replace

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_mask

from attnmask import Mask, causal, conventions, everything, padding, per_head, sliding_window
from oracles import cases, some_sizes

KEEP = torch.tensor([[True, True, True, False, False], [True, True, True, True, False]])


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


def test_one_query_behind_a_cache_needs_no_batch_axis():
    window = conventions.to_multihead(sliding_window(1).after(4), 1, 5)
    assert window["key_padding_mask"] is None
    assert window["attn_mask"].tolist() == [[True, True, True, False, False]]


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
        assert mask.same_as(masks[side], **asdict(sides[side]))


def test_flex_asks_for_every_sample_and_head():
    mask = per_head([causal(), everything()]) & padding(KEEP)
    arguments = conventions.to_flex(mask, 5)
    assert torch.equal(create_mask(arguments["mask_mod"], 2, 2, 5, 5, device="cpu"), mask.dense(5))
    assert (arguments["B"], arguments["H"]) == (2, 2)
