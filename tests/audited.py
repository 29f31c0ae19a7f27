"""What the tests of `audit` share: small inputs, encoders under masks, a model that sees what a function makes."""

import re

import pytest
import torch
from torch import nn

from attnmask import Encoder, assert_allowed
from corpus import FAST_PATH, Case

X = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[7, 3, 9, 3, 5]])
KEEP = torch.tensor([[True, True, True, False, False], [True, True, True, True, True]])
quick = {"modes": "eval", "lengths": []}


def encoder(masks, width=8, **parts):
    torch.manual_seed(1)
    layers = Encoder(layers=len(masks) if isinstance(masks, list) else 2, d_model=width, **parts)
    return lambda x: layers(x, masks)


def pairs(leaks):
    return {(each.sample, each.output, each.input) for each in leaks}


class Sees(nn.Module):
    """Adds to each token what a function makes of all of them."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.inner = nn.Linear(8, 8)

    def forward(self, x):
        return self.inner(x) + self.function(x)


def finds(case: Case, seed: int) -> None:
    """See that a fault is found on the inputs of its case, none of which need to show the leak by themselves.

    The module is the one where it first shows, a part of it, or on the fast path, which
    calls no parts, the one around it.
    """
    with pytest.raises(AssertionError, match=r"(leak|NaN)s?:\n  output \d+ (depends on|turns NaN with) ") as caught:
        assert_allowed(case.make(seed), **case.asked(case.inputs(seed)))
    named = re.findall(r"first seen in (\S+)", str(caught.value))
    around = case.where.rpartition(".")[0] if case.leaks_in == FAST_PATH else case.where
    assert not case.where or any(f"{each}.".startswith((f"{case.where}.", f"{around}.")) for each in named), named
