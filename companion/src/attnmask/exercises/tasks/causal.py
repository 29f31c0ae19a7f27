"""Which keys may a query see that must not see the future?"""

import torch

from attnmask.exercises.task import Mistake, Task


def causal(length, device):
    """Make the causal mask.

    Each token may look at itself and at those before it.

    - length: how many tokens there are
    - device: where the mask is to live

    Return a bool tensor (length, length): rows are queries, True = may attend.
    """
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def spec(length, device):
    return torch.tensor([[key <= query for key in range(length)] for query in range(length)])


def cases(draw):
    for length in range(1, 9):
        yield {"length": length, "device": torch.device("cpu")}


def ones(length):
    return torch.ones(length, length, dtype=torch.bool)


TASK = Task(
    causal,
    spec,
    cases,
    chapter="04",
    place=3,
    hints=(
        "The query's place is the row, the key's place the column.",
        "Row 0 may see one key, row 1 two. torch.tril keeps the lower triangle of a matrix, diagonal included.",
    ),
    mistakes=(
        Mistake(
            "own token hidden",
            lambda length, device: ones(length).tril(-1),
            "A query may look at its own key, so the diagonal is True: tril() instead of tril(-1).",
        ),
        Mistake(
            "next token visible",
            lambda length, device: ones(length).tril(1),
            "The key one place later is the future already: tril() instead of tril(1).",
        ),
        Mistake(
            "strict upper triangle",
            lambda length, device: ones(length).triu(1),
            "That is what is to be hidden. Here True means 'may attend'; ~ turns one into the other.",
        ),
        Mistake(
            "only the own token visible",
            lambda length, device: torch.eye(length) == 1,
            "The diagonal alone lets a token see nothing but itself.",
        ),
        Mistake("everything visible", lambda length, device: ones(length), "Your mask hides nothing."),
        Mistake("everything hidden", lambda length, device: ~ones(length), "Your mask hides every key."),
        Mistake(
            "mirrored",
            lambda length, device: ones(length).tril().flip(1),
            "Your triangle lies at the wrong corner: row 0 is to see key 0.",
        ),
        Mistake(
            "only the own and the previous token visible",
            lambda length, device: ones(length).tril().triu(-1),
            "Every earlier token may be seen, not the previous one only.",
        ),
    ),
)
