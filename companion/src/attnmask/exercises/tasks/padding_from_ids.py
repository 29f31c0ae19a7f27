"""Which tokens are real, if one id stands for padding?"""

import torch

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def padding_from_ids(ids, pad_id):
    """Say which tokens are real.

    - ids: int64 (batch, token)
    - pad_id: the id that stands for padding

    Return a bool tensor (batch, token), True = real.
    """
    return ids != pad_id


def spec(ids, pad_id):
    return torch.tensor([[token != pad_id for token in sample] for sample in ids.tolist()])


def cases(draw):
    for batch, length, pad_id in [(1, 3, 0), (1, 4, 0), (2, 3, 0), (2, 5, 1), (3, 4, 7), (3, 6, 99)]:
        ids = draw.integers(0, 9, batch, length)
        ids[ids == pad_id] += 1  # no real token has the id of the padding
        yield {"ids": ids.masked_fill(~draw.real(batch, length), pad_id), "pad_id": pad_id}


TASK = Task(
    padding_from_ids,
    spec,
    cases,
    chapter="03",
    place=1,
    hints=("Compare each id with one number.", "== says which tokens are padding. You want the others."),
    mistakes=(
        Mistake(
            "pad id taken to be 0",
            lambda ids, pad_id: ids != 0,
            "The pad id is an argument; in many tokenizers it is not 0.",
        ),
        Mistake(
            "ids below the pad id taken to be padding",
            lambda ids, pad_id: ids > pad_id,
            "The pad id need not be the smallest id: compare with != instead of >.",
        ),
        Mistake(
            "ids above the pad id taken to be padding",
            lambda ids, pad_id: ids < pad_id,
            "The pad id need not be the largest id: compare with != instead of <.",
        ),
        Mistake(names.NO_PADDING, lambda ids, pad_id: torch.ones_like(ids, dtype=torch.bool)),
        Mistake(
            "padding filled, not marked",
            lambda ids, pad_id: ids.masked_fill(ids == pad_id, 0),
            "Yours is still a tensor of ids. Asked for was a bool tensor that says which of them are real.",
        ),
        Mistake(
            "one sample's padding used for all",
            lambda ids, pad_id: (ids[:1] != pad_id).expand_as(ids),
            "Each sample has its own padding; yours takes the first one's.",
        ),
    ),
    groups={"batch 1": lambda case: len(case["ids"]) == 1, "pad id 0": lambda case: case["pad_id"] == 0},
)
