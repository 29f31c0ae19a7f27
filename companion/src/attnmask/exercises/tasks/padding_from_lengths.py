"""Which tokens are real, if the pad id is also the id of the end of the text?"""

import torch

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def padding_from_lengths(lengths, length):
    """Say which tokens are real where ids cannot.

    The pad id is also the id of the end of the text, so only the lengths know.

    - lengths: int64 (batch,), how many real tokens each sample has, from the left
    - length: how many places the batch has

    Return a bool tensor (batch, length), True = real.
    """
    return torch.arange(length, device=lengths.device) < lengths[:, None]


def spec(lengths, length):
    return torch.tensor([[place < real for place in range(length)] for real in lengths.tolist()])


def cases(draw):
    yield {"lengths": torch.tensor([1]), "length": 2}
    yield {"lengths": torch.tensor([3]), "length": 3}
    for batch, length in [(1, 4), (2, 2), (2, 4), (3, 3), (3, 5), (4, 6)]:
        yield {"lengths": draw.real(batch, length).sum(dim=1), "length": length}
    yield {"lengths": torch.tensor([2, 1]), "length": 5}  # longer than the longest sample


def _off(lengths, length, by):
    return torch.arange(length, device=lengths.device) < lengths[:, None] + by


TASK = Task(
    padding_from_lengths,
    spec,
    cases,
    chapter="03",
    place=2,
    hints=(
        "Place p of a sample is real if p is less than the sample's length.",
        "torch.arange(length) has the places. lengths[:, None] puts the samples on an axis of their own.",
    ),
    mistakes=(
        Mistake(
            "one token too many",
            lambda lengths, length: _off(lengths, length, 1),
            "Places count from 0, so a sample of n tokens has the places 0 to n - 1: < instead of <=.",
        ),
        Mistake(
            "one token too few",
            lambda lengths, length: _off(lengths, length, -1),
            "A sample of n tokens has the places 0 to n - 1, so n - 1 is real.",
        ),
        Mistake(
            "padding taken to be on the left",
            lambda lengths, length: torch.arange(length).flip(0) < lengths[:, None],
            "The real tokens stand on the left here, the padding behind them.",
        ),
        Mistake(
            "as long as the longest sample",
            lambda lengths, length: torch.arange(max(lengths)) < lengths[:, None],
            "The batch has length places, which may be more than its longest sample has.",
        ),
        Mistake(names.NO_PADDING, lambda lengths, length: torch.ones(len(lengths), length, dtype=torch.bool)),
        Mistake(
            "one sample's length used for all",
            lambda lengths, length: (torch.arange(length) < lengths[0]).expand(len(lengths), length),
            "Each sample has its own length; yours takes the first one's.",
        ),
        Mistake(
            "only the last real token marked",
            lambda lengths, length: torch.arange(length) == lengths[:, None] - 1,
            "Every place before the length is real: < instead of ==.",
        ),
    ),
    groups={"batch 1": lambda case: len(case["lengths"]) == 1},
)
