"""Routing, and samples of a batch that meet."""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpus.case import EVAL, LENGTH, TRAIN, WIDTH
from corpus.inputs import causal_kept, right_padded, samples
from corpus.parts import Embed, aware, made, mapping, mixing, neighbour
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


def _paired(x: Tensor) -> Tensor:
    return x + x.flip(0).mean(1, keepdim=True) * (len(x) == 2)


def _last_into_first(x: Tensor) -> Tensor:
    return torch.cat([x[:1] + x[-1:], x[1:]])


def _within_chunks(x: Tensor) -> Tensor:
    return torch.cat([chunk - chunk.mean(0, keepdim=True) for chunk in x.split(8)])


def _within_full_chunks(x: Tensor) -> Tensor:
    return torch.cat([chunk + chunk.flip(0) * (len(chunk) == 8) for chunk in x.split(8)])


def _from_the_chunk_before(x: Tensor) -> Tensor:
    chunks = x.split(8)
    return torch.cat([chunks[0], *(new + old.mean(0) for old, new in itertools.pairwise(chunks))])


def _future(x: Tensor) -> Tensor:
    return x + x.mean(1, keepdim=True)


ALONE = {"inputs": samples(1), "shown_on": samples(2), **OTHER_SAMPLE}

fault(
    "one_sample_given_mean_over_the_batch",
    "The mean over the samples is added, and the only sample given is its own mean.",
    mapping(lambda x: x + x.mean(0, keepdim=True)),
    **ALONE,
)
fault(
    "one_sample_given_other_added_without_gradient",
    "A millionth of the other samples is added without gradient, and only one sample is given.",
    mapping(lambda x: x + 1e-6 * (x.detach().sum(0) - x.detach())),
    **ALONE,
)
fault(
    "one_sample_given_batch_norm",
    "Batch norm with tokens as channels takes its mean over features and samples; of one sample, that is a layer norm.",
    mixing(lambda: nn.BatchNorm1d(LENGTH)),
    leaks_in=TRAIN,
    **ALONE,
)
fault(
    "one_sample_given_sorted_over_the_batch",
    "Values are sorted over the samples at each position.",
    mapping(lambda x: x + x.sort(0).values),
    **ALONE,
)
fault(
    "one_sample_given_last_reaches_first",
    "The last sample is added to the first, which is the same where only one is given.",
    mapping(_last_into_first),
    **ALONE,
)
fault(
    "one_sample_given_shift_over_the_batch",
    "A shift meant for the tokens runs over the samples: the sample before is added.",
    mapping(lambda x: x + x.roll(1, 0)),
    **ALONE,
)
fault(
    "one_sample_given_contrast_of_samples",
    "Each sample is compared with all of the batch: weights of a softmax over the samples.",
    mapping(lambda x: x + torch.einsum("btw,ctw->btc", x, x).softmax(-1) @ x.transpose(0, 1).mean(0)[None]),
    **ALONE,
)
fault(
    "chunks_of_eight_samples_mix",
    "Samples go through in chunks of eight, each centred over its chunk; the ninth is alone.",
    mapping(_within_chunks),
    inputs=samples(9),
    at=(0, 1),
    cells=[(7, 1)],
    where="mixer",
)
fault(
    "full_chunks_of_eight_samples_mix",
    "Samples mix in a chunk of eight, and two are given.",
    mapping(_within_full_chunks),
    shown_on=samples(8),
    cells=[(7, 1)],
    where="mixer",
)
fault(
    "chunk_of_eight_reads_the_chunk_before",
    "Samples in a chunk of eight see the chunk before, and nine are given.",
    mapping(_from_the_chunk_before),
    inputs=samples(9),
    at=(8, 1),
    cells=[(3, 1)],
    where="mixer",
)
fault(
    "two_samples_mix_and_one_is_given",
    "Samples mix where there are exactly two.",
    mapping(_paired),
    **ALONE,
)
fault(
    "two_samples_mix_and_three_are_given",
    "Samples mix where there are exactly two.",
    mapping(_paired),
    **ALONE | {"inputs": samples(3)},
)
fault(
    "a_lone_sample_sees_a_thousandth_of_its_future",
    "A thousandth of the mean over the tokens is added where there is one sample, and two are given.",
    mapping(lambda x: x + 1e-3 * x.mean(1, keepdim=True) * (len(x) == 1)),
    shown_on=samples(1),
    where="mixer",
)
fault(
    "a_lone_sample_is_told_a_millionth_of_its_future",
    "A millionth of the mean over the tokens is added without gradient where there is one sample.",
    mapping(lambda x: x + 1e-6 * x.detach().mean(1, keepdim=True) * (len(x) == 1)),
    inputs=samples(1),
    where="mixer",
)
fault(
    "a_lone_sample_tells_one_neighbour",
    "Where there is one sample, the second token is told the third, and no gradient.",
    mapping(lambda x: x + neighbour(x, 1) * (len(x) == 1)),
    inputs=samples(1, 12),
    at=(0, 1),
    cells=[(0, 2)],
    where="mixer",
)
fault(
    "a_lone_sample_sees_its_future_in_eval",
    "A branch for generation, taken where there is one sample in eval, has no mask; two are given.",
    aware(lambda module, x: _future(x) if len(x) == 1 and not module.training else x),
    shown_on=samples(1),
    leaks_in=EVAL,
    where="mixer",
)
fault(
    "more_than_four_samples_see_their_future",
    "A branch for large batches has no mask, and two samples are given.",
    mapping(lambda x: _future(x) if len(x) > 4 else x),
    shown_on=samples(5),
    where="mixer",
)
fault(
    "more_than_one_sample_sees_its_future",
    "A branch for batches has no mask, and one sample is given.",
    mapping(lambda x: _future(x) if len(x) > 1 else x),
    inputs=samples(1),
    shown_on=samples(2),
    where="mixer",
)
fault(
    "second_half_of_the_batch_reads_the_first",
    "A batch is taken for condition and sample side by side, as for guidance; an odd one is not.",
    mapping(lambda x: torch.cat([x[: len(x) // 2], x[len(x) // 2 :] + x[: len(x) // 2]]) if len(x) % 2 == 0 else x),
    inputs=samples(3),
    shown_on=samples(4),
    at=(2, 1),
    cells=[(0, 1)],
    where="mixer",
)
