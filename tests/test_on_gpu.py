"""What the book says of GPUs, tried where there is one."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnmask import attend, causal, padding
from attnmask.exercises import check
from attnmask.exercises.task import Draw, tasks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
LEFT = torch.tensor([[True] * 8, [False] * 3 + [True] * 5])


def masked(dtype):
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 8, 64, generator=generator).to("cuda", dtype)
    mask = causal() & padding(LEFT)
    return (query, key, value), mask, mask.dense(8, device="cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_real_rows_of_sdpa_are_right(dtype):
    inputs, mask, allowed = masked(dtype)
    output = F.scaled_dot_product_attention(*inputs, attn_mask=allowed)
    wanted = attend(*(each.double() for each in inputs), mask).output
    real = LEFT[:, None, :, None].cuda()
    difference = ((output.double() - wanted).abs() * real).max().item()
    assert difference < (1e-5 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cudnn_leaves_an_empty_row_of_a_bool_mask_unmasked(dtype):
    """And gives zeros where the mask is one of minus infinity, as other kernels do for both."""
    inputs, _, allowed = masked(dtype)
    additive = torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, -torch.inf)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        of_bools, of_infinity = (
            F.scaled_dot_product_attention(*inputs, attn_mask=mask) for mask in (allowed, additive)
        )
    unmasked = attend(*(each.double() for each in inputs)).output
    torch.testing.assert_close(of_bools[1, :, :3].double(), unmasked[1, :, :3], atol=2e-2, rtol=2e-2)
    assert (of_infinity[1, :, :3] == 0).all()
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        assert (F.scaled_dot_product_attention(*inputs, attn_mask=allowed)[1, :, :3] == 0).all()


@pytest.mark.parametrize("name", [name for name in tasks() if name != "leaking_layer"])
def test_solutions_of_the_exercises_pass_there(name):
    result = check(name, tasks()[name].solution)
    assert result.passed
    takes_tensors = any(
        isinstance(value, torch.Tensor | torch.device) for value in next(tasks()[name].cases(Draw())).values()
    )
    assert ("and on cuda" in result.words) == takes_tensors


def test_an_answer_that_works_on_the_cpu_only_is_named():
    result = check("padding_from_lengths", lambda lengths, length: torch.arange(length) < lengths[:, None])
    assert result.mistakes == ("wrong device",)
