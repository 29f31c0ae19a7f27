"""What is written for Hugging Face, and what its two axes cannot hold."""

from dataclasses import asdict

import pytest
from hypothesis import given

from attnmask import conventions
from oracles import cases, table


@given(cases())
def test_huggingface_holds_masks_of_keys_and_refuses_others(case):
    wanted, sizes = table(case.rule, case.sizes), asdict(case.sizes)
    del sizes["heads"]
    if (wanted == wanted[:, :1, :1]).all() and case.mask.heads == 1:
        written = conventions.to_huggingface(case.mask, **sizes)
        assert written.tolist() == wanted[:, 0, 0].int().tolist()
        assert conventions.from_huggingface(written).same_as(case.mask, **asdict(case.sizes))
    elif (wanted[:, :1] != wanted[:, :1, :1]).any():
        with pytest.raises(ValueError, match="a causal part, which a decoder model adds by itself"):
            conventions.to_huggingface(case.mask, **sizes)
