"""Who may see whom if a question is read as a whole, and its answer is written from left to right?"""

import torch

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def prefix_lm(prefix, length):
    """Make the mask of a prefix language model.

    Each token sees the whole prefix, and besides it all tokens up to itself.

    - prefix: int64 (batch,), how many tokens of each sample are its prefix
    - length: how many tokens there are

    Return a bool tensor (batch, 1, length, length), True = may attend.
    """
    place = torch.arange(length, device=prefix.device)
    return (place <= place[:, None]) | (place < prefix[:, None, None, None])


def spec(prefix, length):
    rows = range(length)
    return torch.tensor([[[[key <= query or key < n for key in rows] for query in rows]] for n in prefix.tolist()])


def cases(draw):
    yield {"prefix": torch.tensor([2]), "length": 3}
    for batch, length in [(1, 4), (2, 4), (2, 5), (3, 3), (3, 6)]:
        prefix = draw.integers(0, length, batch)
        prefix[0] = length // 2 + 1
        yield {"prefix": prefix, "length": length}


def past(length):
    return torch.ones(length, length, dtype=torch.bool).tril()


def first(prefix, length, off=0):
    return (torch.arange(length) < prefix[:, None] + off)[:, None, None]


TASK = Task(
    prefix_lm,
    spec,
    cases,
    chapter="17",
    place=19,
    hints=(
        "There are two reasons why a key may be seen; one is enough.",
        "Key place k is in the prefix if k is less than its length. The batch is the first of four axes.",
    ),
    mistakes=(
        Mistake(
            "and for or",
            lambda prefix, length: past(length) & first(prefix, length),
            "One reason is enough: the key is past, or it is in the prefix. | instead of &.",
        ),
        Mistake(
            names.QUERIES,
            lambda prefix, length: past(length) | first(prefix, length).mT,
            "The prefix is what may be *seen*: a condition on the key. In yours, the prefix sees everything.",
        ),
        Mistake(
            "the prefix is causal too",
            lambda prefix, length: past(length).expand(len(prefix), 1, -1, -1),
            "Inside the prefix, tokens may look forward; yours is the plain causal mask.",
        ),
        Mistake(
            "prefix one token too long",
            lambda prefix, length: past(length) | first(prefix, length, 1),
            "A prefix of n tokens has the places 0 to n - 1: < instead of <=.",
        ),
        Mistake(
            "prefix one token too short",
            lambda prefix, length: past(length) | first(prefix, length, -1),
            "A prefix of n tokens has the places 0 to n - 1, so n - 1 belongs to it.",
        ),
        Mistake(
            "only the prefix visible",
            lambda prefix, length: first(prefix, length).expand(-1, -1, length, -1),
            "Behind the prefix a token sees its past as well, itself included.",
        ),
        Mistake(
            "everything visible",
            lambda prefix, length: torch.ones(len(prefix), 1, length, length, dtype=torch.bool),
            "Behind the prefix, the future is hidden.",
        ),
        Mistake(
            "all but the prefix",
            lambda prefix, length: past(length) | ~first(prefix, length),
            "The prefix is what may be seen by all: no ~.",
        ),
        Mistake(
            "one sample's prefix used for all",
            lambda prefix, length: (past(length) | first(prefix[:1], length)).expand(len(prefix), -1, -1, -1),
            "Each sample has its own prefix; yours takes the first one's.",
        ),
        Mistake(
            "two sequences, each with its own rule",
            lambda prefix, length: (
                (first(prefix, length) & first(prefix, length).mT)
                | (past(length) & ~first(prefix, length) & ~first(prefix, length).mT)
            ),
            "The tokens behind the prefix see it too.",
        ),
    ),
    groups={"batch 1": lambda case: len(case["prefix"]) == 1},
)
