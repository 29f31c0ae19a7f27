"""Routing, and samples of a batch that meet."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpus.case import LENGTH, WIDTH
from corpus.inputs import causal_kept, right_padded
from corpus.parts import Embed, made, mapping, mixing
from corpus.registry import fault


class Experts(nn.Module):
    """A mixture of experts; `choose` says which (batch, token, expert) pairs happen."""

    def __init__(self, choose: Callable[[Tensor], Tensor], experts: int = 2) -> None:
        super().__init__()
        self.choose, self.router = choose, nn.Linear(WIDTH, experts, bias=False)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        share = self.router(x).softmax(-1)
        chosen, output = self.choose(share), x.clone()
        for number, expert in enumerate(self.experts):
            rows = chosen[..., number]
            output[rows] += share[rows][:, number, None] * expert(x[rows])  # each expert sees its own tokens only
        return output


def _expert_choice(share: Tensor) -> Tensor:
    return torch.zeros_like(share, dtype=torch.bool).scatter(1, share.topk(3, 1).indices, True)


def token_choice(share: Tensor) -> Tensor:
    return F.one_hot(share.argmax(-1), share.shape[-1]).bool()


def _best_tokens_first(share: Tensor) -> Tensor:
    wanted = token_choice(share)
    order = (share * wanted).argsort(1, descending=True)
    return wanted & (order.argsort(1) < 2)


def first_come(share: Tensor) -> Tensor:
    wanted = token_choice(share)
    return wanted & (wanted.cumsum(1) <= 2)


def _first_come_in_the_batch(share: Tensor) -> Tensor:
    wanted = token_choice(share)
    return wanted & (wanted.flatten(0, 1).cumsum(0).reshape(wanted.shape) <= 4)


def _quantised(x: Tensor) -> Tensor:
    step = x.abs().max() / 127
    return (x / step).round() * step


class _Unsorted(nn.Module):
    """A recurrent layer over samples sorted by length, which are not put back in order."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.recurrent = Embed(), nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        return self.recurrent(self.embed(ids)[keep.sum(1).argsort(descending=True)])[0]


OTHER_SAMPLE = {"cells": [(1, position) for position in range(LENGTH)], "where": "mixer"}

fault(
    "experts_choose_their_tokens",
    "Each expert picks its best tokens of the whole sequence (expert choice).",
    mixing(lambda: Experts(_expert_choice)),
    search=True,
    where="mixer",
)
fault(
    "capacity_given_to_the_best_tokens",
    "An expert with too many tokens keeps those with the highest share, later ones too.",
    mixing(lambda: Experts(_best_tokens_first)),
    search=True,
    where="mixer",
)
fault(
    "capacity_shared_by_the_batch",
    "An expert's places are filled in the order of the flattened batch.",
    mixing(lambda: Experts(_first_come_in_the_batch)),
    search=True,
    at=(1, 0),
    where="mixer",
    cells=[(0, position) for position in range(LENGTH)],
)
fault(
    "quantised_by_the_tensor_maximum",
    "Activations are rounded in steps of the largest value in the whole batch.",
    mapping(_quantised),
    search=True,
    **OTHER_SAMPLE,
)
fault(
    "centred_over_the_batch",
    "The mean over the samples is taken away at each position.",
    mapping(lambda x: x - x.mean(0, keepdim=True)),
    cells=[(1, 1)],
    where="mixer",
)
fault(
    "maximum_over_the_batch",
    "The largest value over the samples is added at each position.",
    mapping(lambda x: x + x.amax(0, keepdim=True)),
    search=True,
    **OTHER_SAMPLE,
)
fault(
    "samples_not_put_back_in_order",
    "Samples sorted by length for a recurrent layer are not put back in order.",
    made(_Unsorted),
    inputs=right_padded,
    of="ids",
    allowed=causal_kept,
    cells=[(1, 0), (1, 1)],
    where="recurrent",
)
