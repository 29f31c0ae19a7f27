"""What does one attention compute?"""

import math

import torch

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def attention(query, key, value, allowed):
    """Compute one masked attention.

    - query: float32 (batch, query, d)
    - key: float32 (batch, key, d)
    - value: float32 (batch, key, width)
    - allowed: bool (batch, query, key), True = may attend; each row has a True

    Return float32 (batch, query, width).
    """
    scores = query @ key.mT / query.shape[-1] ** 0.5
    return scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1) @ value


def spec(query, key, value, allowed):
    output = query.new_zeros(*query.shape[:2], value.shape[-1])
    for sample, place in allowed.any(dim=-1).nonzero().tolist():
        seen = allowed[sample, place].nonzero().flatten().tolist()
        products = [sum(query[sample, place] * key[sample, k]) / query.shape[-1] ** 0.5 for k in seen]
        total = sum(math.exp(product) for product in products)
        for k, product in zip(seen, products, strict=True):
            output[sample, place] += math.exp(product) / total * value[sample, k]
    return output


def cases(draw):
    for batch, query_len, key_len, d, width in [(1, 1, 2, 1, 1), (1, 2, 2, 2, 3), (2, 3, 3, 4, 4), (2, 2, 4, 8, 5)]:
        allowed = draw.bools(batch, query_len, key_len)
        allowed[..., 0] = True
        yield {
            "query": draw.normal(batch, query_len, d),
            "key": draw.normal(batch, key_len, d),
            "value": draw.normal(batch, key_len, width),
            "allowed": allowed,
        }


def scores(query, key, divisor=None):
    return query @ key.mT / (math.sqrt(query.shape[-1]) if divisor is None else divisor)


def weighed(scores, allowed, dim=-1):
    return scores.masked_fill(~allowed, -torch.inf).softmax(dim=dim).nan_to_num(0.0)


TASK = Task(
    attention,
    spec,
    cases,
    chapter="02",
    place=5,
    hints=(
        "Four steps: scores, mask, softmax, weighted sum of the values.",
        "key.mT swaps the last two axes. The scores are divided by the square root of d.",
    ),
    mistakes=(
        Mistake(names.NO_SCALE, lambda query, key, value, allowed: weighed(scores(query, key, 1), allowed) @ value),
        Mistake(
            "divided by d instead of its square root",
            lambda query, key, value, allowed: weighed(scores(query, key, query.shape[-1]), allowed) @ value,
            "The divisor is the square root of d, not d.",
        ),
        Mistake(
            "divided by the root of the wrong axis",
            lambda query, key, value, allowed: weighed(scores(query, key, math.sqrt(key.shape[-2])), allowed) @ value,
            "The divisor is the square root of the width d, not of the number of keys.",
        ),
        Mistake(
            "divided by the root of the value's width",
            lambda query, key, value, allowed: weighed(scores(query, key, math.sqrt(value.shape[-1])), allowed) @ value,
            "The divisor is the square root of the width of query and key, not of the value's.",
        ),
        Mistake(
            names.WRONG_AXIS, lambda query, key, value, allowed: weighed(scores(query, key), allowed, dim=-2) @ value
        ),
        Mistake(
            names.AFTER_SOFTMAX,
            lambda query, key, value, allowed: (scores(query, key).softmax(dim=-1) * allowed) @ value,
        ),
        Mistake(
            names.ZERO_FILL,
            lambda query, key, value, allowed: scores(query, key).masked_fill(~allowed, 0.0).softmax(dim=-1) @ value,
        ),
        Mistake(
            "mask ignored",
            lambda query, key, value, allowed: scores(query, key).softmax(dim=-1) @ value,
            "Your answer does not use allowed.",
        ),
        Mistake(
            "the allowed keys hidden",
            lambda query, key, value, allowed: (
                scores(query, key).masked_fill(allowed, -torch.inf).softmax(dim=-1) @ value
            ),
            "allowed is True where the query may attend: fill where it is False, ~allowed.",
        ),
        Mistake(names.ADDED, lambda query, key, value, allowed: (scores(query, key) + allowed).softmax(dim=-1) @ value),
        Mistake(
            "the weights instead of the output",
            lambda query, key, value, allowed: weighed(scores(query, key), allowed),
            "These are the weights. The output is what they make of the values: weights @ value.",
        ),
        Mistake(
            "the wrong batch's softmax",
            lambda query, key, value, allowed: weighed(scores(query, key), allowed, dim=0) @ value,
            "The softmax runs along the last axis, the keys; yours runs along the batch.",
        ),
    ),
)
