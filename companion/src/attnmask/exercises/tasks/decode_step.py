"""How does generating one token at a time give what the whole sequence at once gives?"""

import math

import torch

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def decode_step(query, new_key, new_value, cached_key, cached_value):
    """Compute one step of generation: the newest token sees the cache and itself.

    - query, new_key, new_value: float32 (batch, 1, d)
    - cached_key, cached_value: float32 (batch, cached, d)

    Return a dict: "output", (batch, 1, d), which is what causal attention over all
    tokens gives in its last row; and "key" and "value", (batch, cached + 1, d), the
    cache for the next step.
    """
    key, value = torch.cat([cached_key, new_key], dim=1), torch.cat([cached_value, new_value], dim=1)
    weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1)
    return {"output": weights @ value, "key": key, "value": value}


def spec(query, new_key, new_value, cached_key, cached_value):
    batch, cached, d = cached_key.shape
    key, value = query.new_zeros(batch, cached + 1, d), query.new_zeros(batch, cached + 1, d)
    output = torch.zeros_like(query)
    for sample in range(batch):
        for place in range(cached + 1):
            key[sample, place] = cached_key[sample, place] if place < cached else new_key[sample, 0]
            value[sample, place] = cached_value[sample, place] if place < cached else new_value[sample, 0]
        products = [sum(query[sample, 0] * row).item() / d**0.5 for row in key[sample]]
        total = sum(math.exp(product) for product in products)
        for product, row in zip(products, value[sample], strict=True):
            output[sample, 0] += math.exp(product) / total * row
    return {"output": output, "key": key, "value": value}


def cases(draw):
    for batch, cached, d in [(1, 1, 2), (1, 2, 4), (2, 1, 3), (2, 3, 4), (3, 4, 2)]:
        new = {name: draw.normal(batch, 1, d) for name in ("query", "new_key", "new_value")}
        yield new | {name: draw.normal(batch, cached, d) for name in ("cached_key", "cached_value")}


def with_cache(mask=None, scale=None, order=1):
    """Return a step with something about its mask, its scale or the order of its cache changed."""

    def answer(query, new_key, new_value, cached_key, cached_value):
        key = torch.cat([cached_key, new_key][::order], dim=1)
        value = torch.cat([cached_value, new_value][::order], dim=1)
        length = key.shape[1]
        scores = query @ key.mT / (math.sqrt(query.shape[-1]) if scale is None else scale)
        if mask is not None:
            scores = scores.masked_fill(~mask(length), -torch.inf)
        return {"output": scores.softmax(dim=-1) @ value, "key": key, "value": value}

    return answer


def on(key, value, kept):
    """Return a step that looks at other keys and values than those it keeps."""

    def answer(query, new_key, new_value, cached_key, cached_value):
        given = {"new": (new_key, new_value), "cached": (cached_key, cached_value)}
        given["all"] = tuple(
            torch.cat([old, new], dim=1) for old, new in zip(given["cached"], given["new"], strict=True)
        )
        scores = query @ given[key][0].mT / math.sqrt(query.shape[-1])
        return {"output": scores.softmax(dim=-1) @ given[value][1], "key": given[kept][0], "value": given[kept][1]}

    return answer


TASK = Task(
    decode_step,
    spec,
    cases,
    chapter="16",
    place=16,
    hints=(
        "Append the new key and value first; then it is an attention with one query.",
        "Everything in the cache is past, so the last row of the causal mask blocks nothing.",
    ),
    mistakes=(
        Mistake(
            "own token hidden",
            on("cached", "cached", "all"),
            "A token may look at itself: append the new key and value before you compute the scores.",
        ),
        Mistake(
            "the new token not kept",
            on("all", "all", "cached"),
            "The next step needs this token's key and value: return the longer cache.",
        ),
        Mistake(
            "the new token neither seen nor kept",
            on("cached", "cached", "cached"),
            "Append the new key and value; the token looks at itself too, and later ones look at it.",
        ),
        Mistake(
            "the cache not seen",
            on("new", "new", "all"),
            "The query looks at every token there is, not at its own alone.",
        ),
        Mistake(
            "the new token put first",
            with_cache(order=-1),
            "The newest token comes last. (The output is the same: the softmax has no order. The cache is not.)",
        ),
        Mistake(names.FROM_CHUNK, with_cache(mask=lambda length: torch.arange(length) <= 0)),
        Mistake(names.NO_SCALE, with_cache(scale=1.0)),
    ),
    groups={"batch 1": lambda case: len(case["query"]) == 1},
)
