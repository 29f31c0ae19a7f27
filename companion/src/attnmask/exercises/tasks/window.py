"""How many keys has a window of W?"""

import torch

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def window(length, size):
    """Make a causal sliding window of a number of keys.

    - length: how many tokens there are
    - size: how many keys a query may see at most, its own among them; 1 or more

    Return a bool tensor (length, length), True = may attend.
    """
    place = torch.arange(length)
    distance = place[:, None] - place
    return (distance >= 0) & (distance < size)


def spec(length, size):
    return torch.tensor([[0 <= query - key < size for key in range(length)] for query in range(length)])


def cases(draw):
    for length, size in [(3, 1), (3, 2), (4, 2), (5, 3), (6, 2), (6, 4), (7, 3), (3, 5)]:
        yield {"length": length, "size": size}


def between(length, low, high):
    place = torch.arange(length)
    distance = place[:, None] - place
    return (low <= distance) & (distance <= high)


TASK = Task(
    window,
    spec,
    cases,
    chapter="12",
    place=14,
    hints=(
        "The distance is the query's place minus the key's.",
        "Count the keys of the last row: the own one and size - 1 before it.",
    ),
    mistakes=(
        Mistake(
            "W + 1 keys instead of W",
            lambda length, size: between(length, 0, size),
            "Yours has size keys before the own one, size + 1 in all. Libraries differ here; asked for was size.",
        ),
        Mistake(
            "W - 1 keys instead of W",
            lambda length, size: between(length, 0, size - 2),
            "Yours has one key too few: the own one and size - 1 before it.",
        ),
        Mistake(
            "a window on both sides",
            lambda length, size: between(length, 1 - size, size - 1),
            "A causal window reaches back only: the distance is not negative.",
        ),
        Mistake(
            "own token hidden", lambda length, size: between(length, 1, size), "The query's own key is one of the size."
        ),
        Mistake(
            "a window into the future",
            lambda length, size: between(length, 1 - size, 0),
            "Query minus key is the distance, not key minus query.",
        ),
        Mistake(
            names.BLOCK,
            lambda length, size: (
                between(length, 0, size) & (torch.arange(length)[:, None] // size == torch.arange(length) // size)
            ),
        ),
        Mistake(
            "everything but the window",
            lambda length, size: between(length, size, length),
            "Yours sees only what is too far away.",
        ),
        Mistake(
            "no window",
            lambda length, size: between(length, 0, length),
            "Yours is the causal mask; size changes nothing.",
        ),
        Mistake(names.NO_CAUSAL, lambda length, size: between(length, -length, size - 1)),
        Mistake(
            "the first keys for every query",
            lambda length, size: between(length, 0, length) & (torch.arange(length) < size),
            "Yours shows every query the same first keys. A window moves along with the query.",
        ),
    ),
    groups={"size 1": lambda case: case["size"] == 1},
)
