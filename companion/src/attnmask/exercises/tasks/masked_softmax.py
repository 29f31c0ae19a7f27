"""How do blocked scores become weights of 0, and what of a row with nothing to see?"""

import torch

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def masked_softmax(scores, allowed):
    """Turn scores into weights.

    Blocked keys get exactly 0, and the others of a row sum to 1. A row in which
    everything is blocked gets zeros.

    - scores: float32 (query, key)
    - allowed: bool (query, key), True = may attend

    Return float32 (query, key).
    """
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1)
    return weights.masked_fill(~allowed, 0.0)


def spec(scores, allowed):
    weights = torch.zeros_like(scores)
    for query, row in enumerate(scores):
        seen = [key for key in range(len(row)) if allowed[query, key]]
        total = sum(row[key].exp() for key in seen)
        for key in seen:
            weights[query, key] = row[key].exp() / total
    return weights


def cases(draw):
    for query_len, key_len in [(1, 2), (2, 2), (2, 3), (3, 2), (3, 3), (4, 6)]:
        allowed = draw.bools(query_len, key_len, share=0.6)
        allowed[:, 0] = True
        yield {"scores": draw.normal(query_len, key_len), "allowed": allowed}
    for query_len, key_len in [(2, 2), (3, 4)]:  # with a row that sees nothing
        allowed = draw.bools(query_len, key_len, share=0.7)
        allowed[0], allowed[1] = False, True
        allowed[1, 1] = False
        yield {"scores": draw.normal(query_len, key_len), "allowed": allowed}


def filled(scores, allowed, number):
    return scores.masked_fill(~allowed, number)


def in_place(scores, allowed):
    return scores.masked_fill_(~allowed, -torch.inf).softmax(dim=-1).masked_fill(~allowed, 0.0)


TASK = Task(
    masked_softmax,
    spec,
    cases,
    chapter="09",
    place=9,
    hints=(
        "exp(-inf) is 0. masked_fill writes a number wherever a bool tensor is True.",
        "A row of nothing but -inf becomes NaN. Afterwards you know which weights have to be 0.",
    ),
    mistakes=(
        Mistake(names.NAN, lambda scores, allowed: filled(scores, allowed, -torch.inf).softmax(dim=-1)),
        Mistake(
            "an empty row shares itself out",
            lambda scores, allowed: filled(scores, allowed, -1e9).softmax(dim=-1),
            "In a row where all scores are -1e9, each key gets the same weight, blocked as it is. It should get 0.",
        ),
        Mistake(names.ZERO_FILL, lambda scores, allowed: filled(scores, allowed, 0.0).softmax(dim=-1)),
        Mistake(names.AFTER_SOFTMAX, lambda scores, allowed: scores.softmax(dim=-1) * allowed),
        Mistake(names.ADDED, lambda scores, allowed: (scores + allowed).softmax(dim=-1)),
        Mistake(
            names.WRONG_AXIS,
            lambda scores, allowed: filled(filled(scores, allowed, -torch.inf).softmax(dim=0), allowed, 0.0),
        ),
        Mistake("mask ignored", lambda scores, allowed: scores.softmax(dim=-1), "Your answer does not use allowed."),
        Mistake(
            "the allowed keys hidden",
            lambda scores, allowed: filled(filled(scores, ~allowed, -torch.inf).softmax(dim=-1), ~allowed, 0.0),
            "allowed is True where the query may attend: fill where it is False, ~allowed.",
        ),
        Mistake(
            "minus infinity times 0",
            lambda scores, allowed: (scores + ~allowed * -torch.inf).softmax(dim=-1),
            "0 times -inf is NaN: where nothing is blocked, your mask has NaN. masked_fill has not.",
        ),
    ),
)
