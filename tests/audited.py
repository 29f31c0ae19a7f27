"""What the tests of `audit` share: small inputs, encoders under masks, and a model that sees what a function makes."""

import torch
from torch import nn

from attnmask import Encoder

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
