"""Every model of the corpus that changes with its padding is told, and none that does not is accused."""

import re
import warnings

import pytest

from attnmask import assert_padding_invariant
from corpus.invariant import INVARIANT
from corpus.padded_case import first_tensor
from corpus.variant import VARIANT

SEEDS = range(5)
pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.usefixtures("as_installed"),
]


def asked(case, seed):
    """Return the arguments: where the output is none of the first tensor's form, a function that gives what is."""
    model, inputs = case.make(seed), case.inputs(seed)
    if case.out is not first_tensor:
        inner = model.train(case.mode == "train")
        model = (lambda **given: case.out(inner(**given))) if isinstance(inputs, dict) else lambda x: case.out(inner(x))
    return {"model": model, "inputs": inputs, "keep": case.keep(inputs), "modes": case.mode}


@pytest.mark.parametrize("case", VARIANT, ids=[case.name for case in VARIANT])
def test_a_model_that_changes_with_its_padding_is_told(case):
    """For five seeds; the module named is the first that differs, or a part of it."""
    for seed in SEEDS:
        with pytest.raises(AssertionError, match=r"^sample \d+, real token \d+ .* differs by") as caught:
            assert_padding_invariant(**asked(case, seed))
        named = re.findall(r"first seen in ([\w.]+\w)", str(caught.value))
        if case.where and case.out is first_tensor:
            assert named
            assert f"{named[0]}.".startswith(f"{case.where}.") or case.where == "cross.out", named
        if case.cause != "convolution":
            assert "a convolution" not in str(caught.value)
        if case.cause != "positions" and case.name != "length_bucket_of_the_padded_length":  # which embeds a length
            assert not re.search(r"cause: (.*; )?positions", str(caught.value))


RIGHT = [case for case in INVARIANT if case.name != "no_padding_at_all"]  # nothing to try, which is refused
ROUGH = ("refuses", "alibi", "float16")  # what is compared to the rounding of float32 or half precision, which is said


@pytest.mark.parametrize("case", RIGHT, ids=[case.name for case in RIGHT])
def test_a_model_that_does_not_change_with_its_padding_is_not_accused(case):
    for seed in SEEDS:
        with warnings.catch_warnings():
            if any(part in case.name for part in ROUGH):
                warnings.filterwarnings("ignore", "compared only to")
            assert_padding_invariant(**asked(case, seed))
