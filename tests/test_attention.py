import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attnmask import Mask, attend, causal, everything, padding, per_head
from oracles import Sizes, attention_loop, cases, some_sizes, table


def random_inputs(sizes, seed=0, width=4, value_width=3, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    shapes = [(sizes.query_len, width), (sizes.key_len, width), (sizes.key_len, value_width)]
    return [
        torch.randn(sizes.batch, sizes.heads, *shape, generator=draw, dtype=dtype).requires_grad_() for shape in shapes
    ]


def gradients(output, inputs):
    direction = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
    return torch.autograd.grad((output * direction).sum(), inputs)


# ---- against plain loops and against PyTorch --------------------------------------


@given(cases(), st.integers(0, 99))
@settings(max_examples=60)
def test_attend_equals_a_float64_loop(case, seed):
    query, key, value = random_inputs(case.sizes, seed)
    steps = attend(query, key, value, case.mask)
    allowed = table(case.rule, case.sizes)
    for b in range(case.sizes.batch):
        for h in range(case.sizes.heads):
            weights, output = attention_loop(query[b, h], key[b, h], value[b, h], allowed[b, h].tolist())
            torch.testing.assert_close(steps.weights[b, h], weights)
            torch.testing.assert_close(steps.output[b, h], output)


@given(cases(), st.integers(0, 99))
def test_attend_and_its_gradients_equal_sdpa(case, seed):
    inputs = random_inputs(case.sizes, seed)
    ours = attend(*inputs, case.mask).output
    theirs = F.scaled_dot_product_attention(*inputs, attn_mask=table(case.rule, case.sizes))
    torch.testing.assert_close(ours, theirs)
    for one, other in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("mask", [everything(), causal(), "padding", "both"])
def test_attend_and_its_gradients_equal_multihead_attention(mask):
    torch.manual_seed(1)
    keep = torch.tensor([[True, True, True, False, False], [True] * 5])
    mask = {"padding": padding(keep), "both": causal() & padding(keep)}.get(mask, mask)
    layer = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)

    blocked = ~mask.dense(5).expand(2, 2, 5, 5).flatten(0, 1)  # (batch * head, query, key); True = blocked there
    theirs, their_weights = layer(x, x, x, attn_mask=blocked, average_attn_weights=False)

    projected = F.linear(x, layer.in_proj_weight, layer.in_proj_bias)  # (batch, token, 3 * 8)
    query, key, value = projected.unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)  # each (batch, head, token, 4)
    steps = attend(query, key, value, mask)
    ours = layer.out_proj(steps.output.transpose(1, 2).flatten(2))

    torch.testing.assert_close(steps.weights, their_weights)
    torch.testing.assert_close(ours, theirs)
    wanted = [x, *layer.parameters()]
    for one, other in zip(gradients(ours, wanted), gradients(theirs, wanted), strict=True):
        torch.testing.assert_close(one, other)


def test_attend_agrees_with_sdpa_in_every_floating_dtype():
    sizes = Sizes(2, 2, 5, 5)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        inputs = [tensor.detach() for tensor in random_inputs(sizes, dtype=dtype)]
        ours = attend(*inputs, causal()).output
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, F.scaled_dot_product_attention(*inputs, is_causal=True), atol=2e-2, rtol=2e-2)


# ---- the record of steps ----------------------------------------------------------


@given(some_sizes(), st.integers(0, 99))
def test_the_steps_follow_from_each_other(sizes, seed):
    query, key, value = random_inputs(sizes, seed)
    steps = attend(query, key, value, causal())
    torch.testing.assert_close(steps.scores, query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1]))
    blocked = ~causal().dense(sizes.query_len, sizes.key_len).expand_as(steps.scores)
    assert torch.equal(steps.masked_scores[~blocked], steps.scores[~blocked])
    assert bool((steps.masked_scores[blocked] == -math.inf).all())
    assert bool((steps.weights[blocked] == 0).all())
    torch.testing.assert_close(steps.weights.sum(-1), torch.ones_like(steps.weights[..., 0]))
    torch.testing.assert_close(steps.output, steps.weights @ value)


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_the_record_keeps_the_rank_of_the_query(rank):
    shape = {2: (), 3: (2,), 4: (2, 3)}[rank]
    query, key, value = torch.randn(*shape, 4, 6), torch.randn(*shape, 5, 6), torch.randn(*shape, 5, 7)
    steps = attend(query, key, value, causal(offset=1))
    assert [tuple(step.shape) for step in steps] == [(*shape, 4, 5)] * 3 + [(*shape, 4, 7)]


def test_three_axes_are_batch_token_width():
    keep = torch.tensor([[True, False], [True, True]])
    token = torch.zeros(2, 2, 1)
    assert attend(token, token, token, padding(keep)).weights.tolist() == [[[1, 0], [1, 0]], [[0.5, 0.5], [0.5, 0.5]]]


def test_a_dense_mask_of_four_axes_and_a_mask_agree():
    query, key, value = random_inputs(Sizes(2, 3, 4, 4))
    mask = per_head([causal(), everything(), causal(offset=1)])
    ours = attend(query, key, value, mask)
    torch.testing.assert_close(attend(query, key, value, mask.dense(4)), ours)


def test_a_rule_of_ones_own_is_asked_for_every_sample():
    lengths = torch.tensor([1, 3])
    own = Mask(lambda batch, head, query, key: key < lengths[batch])
    token = torch.zeros(2, 3, 1)
    assert attend(token, token, token, own).weights[:, 0].tolist() == [[1, 0, 0], pytest.approx([1 / 3] * 3)]


def test_no_mask_means_everyone():
    inputs = random_inputs(Sizes(1, 1, 3, 4))
    torch.testing.assert_close(attend(*inputs), attend(*inputs, everything()))


def test_scale_replaces_one_over_root_d():
    query, key, value = random_inputs(Sizes(1, 1, 3, 3))
    torch.testing.assert_close(attend(query, key, value, scale=0.5).scores, query @ key.mT * 0.5)


def test_half_precision_does_not_overflow_where_sdpa_does_not():
    query = torch.full((4, 64), 60.0, dtype=torch.float16)
    ours, theirs = attend(query, query, query).output, F.scaled_dot_product_attention(*[query[None, None]] * 3)[0, 0]
    assert ours.isfinite().all()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mask", [None, everything(), causal()])
def test_a_query_without_any_key_is_an_empty_row_whatever_the_mask(mask):
    query, nothing = torch.zeros(1, 3, 4), torch.zeros(1, 0, 4)
    assert attend(query, nothing, nothing, mask).output.shape == (1, 3, 4)
    with pytest.raises(ValueError, match="empty row"):
        attend(query, nothing, nothing, mask, empty_rows="error")


def test_an_empty_batch_has_no_empty_row():
    none = torch.zeros(0, 3, 4)
    assert attend(none, none, none, ~everything(), empty_rows="error").output.shape == (0, 3, 4)


COMPILED = """
import torch, torch._dynamo.testing
from attnmask import attend, causal, padding

graphs = torch._dynamo.testing.CompileCounter()

@torch.compile(backend=graphs, fullgraph=True)
def compiled(x, keep):
    return attend(x, x, x, causal() & padding(keep)).output

for length in range(3, 12):
    x, keep = torch.randn(2, length, 8), torch.arange(length) < torch.tensor([[2], [length]])
    torch.testing.assert_close(compiled(x, keep), attend(x, x, x, causal() & padding(keep)).output)
print(graphs.frame_count)
"""


def test_attend_compiles_once_for_all_lengths():
    # In a process of its own: the run-time shape checks of this one cannot be compiled.
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.stdout in ("1\n", "2\n"), done.stderr  # the first length, and one graph for all others


def test_nothing_is_changed_in_place():
    inputs = random_inputs(Sizes(1, 1, 3, 3))
    mask = torch.tensor([[[[True, False, True]] * 3]])
    before = [tensor.clone() for tensor in (*inputs, mask)]
    attend(*inputs, mask)
    assert all(torch.equal(*pair) for pair in zip(before, (*inputs, mask), strict=True))


# ---- empty rows -------------------------------------------------------------------

LEFT_PADDED = causal() & padding(torch.tensor([[False, True, True]]))  # query 0 has no key


def test_an_empty_row_is_zero_with_zero_gradients_by_default():
    query, key, value = inputs = random_inputs(Sizes(1, 1, 3, 3))
    steps = attend(query, key, value, LEFT_PADDED)
    assert steps.weights[0, 0, 0].tolist() == [0, 0, 0]
    assert steps.output[0, 0, 0].tolist() == [0, 0, 0]
    assert bool((steps.masked_scores[0, 0, 0] == -math.inf).all())
    to_query, to_key, to_value = gradients(steps.output, inputs)
    assert all(gradient.isfinite().all() for gradient in (to_query, to_key, to_value))
    assert to_query[0, 0, 0].tolist() == [0] * 4


def test_an_empty_row_is_nan_as_the_formula_says():
    steps = attend(*random_inputs(Sizes(1, 1, 3, 3)), LEFT_PADDED, empty_rows="nan")
    assert steps.weights[0, 0, 0].isnan().all()
    assert steps.output[0, 0, 1:].isfinite().all()


def test_an_empty_row_is_an_error_when_asked_for():
    with pytest.raises(ValueError, match=r"got an empty row at \(0, 0, 0\).*left padding under a causal mask"):
        attend(*random_inputs(Sizes(1, 1, 3, 3)), LEFT_PADDED, empty_rows="error")
    attend(*random_inputs(Sizes(1, 1, 3, 3)), causal(), empty_rows="error")
