"""Which positions do the tokens of a batch have that is padded on the left?"""

import torch

from attnmask.exercises.task import Mistake, Task


def left_padded_positions(keep):
    """Number the real tokens of a batch that is padded on the left.

    Each sample's first real token has position 0, as it has alone. Padded tokens
    get 0 too, since an embedding takes no negative position.

    - keep: bool (batch, token), True = real

    Return integers (batch, token).
    """
    return (keep.long().cumsum(dim=1) - 1).clamp(min=0)


def spec(keep):
    rows = []
    for sample in keep.tolist():
        row, position = [], 0
        for real in sample:
            row.append(position if real else 0)
            position += real
        rows.append(row)
    return torch.tensor(rows)


def cases(draw):
    for batch, length in [(1, 3), (1, 4), (2, 3), (2, 5), (3, 4), (4, 6)]:
        yield {"keep": draw.real(batch, length, side="left")}


TASK = Task(
    left_padded_positions,
    spec,
    cases,
    chapter="16",
    place=17,
    hints=(
        "How many real tokens come before this one? cumsum counts them, this one included.",
        "One less than that is the position; the padded ones come out as -1.",
    ),
    mistakes=(
        Mistake(
            "counted from the padding",
            lambda keep: torch.arange(keep.shape[1]).expand(keep.shape),
            "Yours counts the padding too, so a sample's positions depend on how long the others are.",
        ),
        Mistake(
            "counted from 1", lambda keep: keep.long().cumsum(dim=1), "cumsum counts the token itself too: subtract 1."
        ),
        Mistake(
            "-1 at the padding",
            lambda keep: keep.long().cumsum(dim=1) - 1,
            "Padded tokens have position -1 in yours, which an embedding refuses: clamp(min=0).",
        ),
        Mistake(
            "1 at the padding",
            lambda keep: (keep.long().cumsum(dim=1) - 1).masked_fill(~keep, 1),
            "That works in a model too; asked for was 0.",
        ),
        Mistake(
            "counted from the right",
            lambda keep: keep.long().flip(1).cumsum(dim=1).flip(1) - 1,
            "Positions count from the first token, not from the last.",
        ),
        Mistake(
            "padding counted too, then set to 0",
            lambda keep: torch.arange(keep.shape[1]).expand(keep.shape) * keep,
            "The padding is 0, but the real tokens still have the positions of their columns.",
        ),
        Mistake(
            "counted along the batch",
            lambda keep: (keep.long().cumsum(dim=0) - 1).clamp(min=0),
            "The tokens of a sample lie along axis 1.",
        ),
        Mistake(
            "one sample's positions used for all",
            lambda keep: (keep[:1].long().cumsum(dim=1) - 1).clamp(min=0).expand(keep.shape),
            "Each sample has its own padding; yours takes the first one's.",
        ),
        Mistake("all zero", lambda keep: torch.zeros_like(keep, dtype=torch.long), "Your positions are all 0."),
        Mistake(
            "the mask itself",
            lambda keep: keep.long(),
            "Yours says which tokens are real, not where they stand: cumsum.",
        ),
    ),
    groups={"batch 1": lambda case: len(case["keep"]) == 1},
)
