"""Which keys share the query's chunk?"""

import torch

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def chunks(length, size):
    """Make the mask of causal attention in chunks.

    A token sees its own chunk, up to itself. The first chunk begins at place 0.

    - length: how many tokens there are
    - size: how many tokens a chunk has

    Return a bool tensor (length, length), True = may attend.
    """
    place = torch.arange(length)
    return (place <= place[:, None]) & (place // size == place[:, None] // size)


def spec(length, size):
    return torch.tensor(
        [[key <= query and key // size == query // size for key in range(length)] for query in range(length)]
    )


def cases(draw):
    for length, size in [(3, 2), (4, 2), (5, 3), (6, 2), (6, 4), (7, 3), (3, 1), (3, 5)]:
        yield {"length": length, "size": size}


def past(length, diagonal=0):
    return torch.ones(length, length, dtype=torch.bool).tril(diagonal)


def number(length, size):
    return torch.arange(length) // size


def same(length, size):
    return number(length, size)[:, None] == number(length, size)


TASK = Task(
    chunks,
    spec,
    cases,
    chapter="17",
    place=18,
    hints=(
        "Which chunk is a place in? An integer division says it.",
        "A pair passes if the key is not later and both have the same chunk.",
    ),
    mistakes=(
        Mistake(names.DISTANCE, lambda length, size: past(length) & past(length).triu(1 - size)),
        Mistake(names.NO_CAUSAL, same),
        Mistake(
            "earlier chunks visible",
            lambda length, size: number(length, size) <= number(length, size)[:, None],
            "Yours sees its whole chunk and all chunks before it.",
        ),
        Mistake("no chunks", lambda length, size: past(length), "Yours is the causal mask; size changes nothing."),
        Mistake(
            "own token hidden",
            lambda length, size: past(length, -1) & same(length, size),
            "A query may look at its own key.",
        ),
        Mistake(
            "size taken for the number of chunks",
            lambda length, size: past(length) & same(length, -(-length // size)),
            "size is how many tokens a chunk has, not how many chunks there are.",
        ),
        Mistake(
            "remainders compared",
            lambda length, size: past(length) & (torch.arange(length)[:, None] % size == torch.arange(length) % size),
            "place % size is the place inside the chunk; the chunk's number is place // size.",
        ),
        Mistake(
            "chunks counted from 1",
            lambda length, size: (
                past(length) & ((torch.arange(length)[:, None] + 1) // size == (torch.arange(length) + 1) // size)
            ),
            "Chunks begin at place 0: place // size, nothing added.",
        ),
        Mistake(
            "the chunk before too",
            lambda length, size: past(length) & (number(length, size)[:, None] - number(length, size) <= 1),
            "Yours sees the chunk before its own as well.",
        ),
        Mistake(
            "other chunks instead of its own",
            lambda length, size: past(length) & ~same(length, size),
            "Both must have the same chunk: == instead of !=.",
        ),
    ),
    groups={"a single chunk": lambda case: case["size"] >= case["length"]},
)
