"""Which keys may a chunk of queries see, if others were cached before it?"""

import torch

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def chunk_of_queries(cached, query_len):
    """Make the causal mask of a chunk of queries behind a cache of keys.

    The keys are the cached ones, and behind them those of the new tokens.

    - cached: how many keys the cache holds, 0 or more
    - query_len: how many new tokens there are

    Return a bool tensor (query_len, cached + query_len), True = may attend.
    """
    place = cached + torch.arange(query_len)
    return torch.arange(cached + query_len) <= place[:, None]


def spec(cached, query_len):
    return torch.tensor([[key <= cached + query for key in range(cached + query_len)] for query in range(query_len)])


def cases(draw):
    for cached, query_len in [(0, 2), (1, 1), (3, 1), (1, 2), (2, 2), (2, 3), (4, 3), (1, 4), (0, 4)]:
        yield {"cached": cached, "query_len": query_len}


def ones(cached, query_len):
    return torch.ones(query_len, cached + query_len, dtype=torch.bool)


TASK = Task(
    chunk_of_queries,
    spec,
    cases,
    chapter="16",
    place=15,
    hints=(
        "Query i of the chunk does not stand at place i.",
        "It stands at place cached + i, and sees all keys up to there: tril(cached).",
    ),
    mistakes=(
        Mistake(names.FROM_CHUNK, lambda cached, query_len: ones(cached, query_len).tril()),
        Mistake(
            "own token hidden",
            lambda cached, query_len: ones(cached, query_len).tril(cached - 1),
            "A query may look at its own key, at place cached + i.",
        ),
        Mistake(
            "next token visible",
            lambda cached, query_len: ones(cached, query_len).tril(cached + 1),
            "The key at place cached + i + 1 is the future of query i.",
        ),
        Mistake(
            "everything visible",
            lambda cached, query_len: ones(cached, query_len),
            "That is right for one new token. Of several, the first ones must not see the last.",
        ),
        Mistake(
            "only the cache visible",
            lambda cached, query_len: torch.arange(cached + query_len).expand(query_len, -1) < cached,
            "The new tokens may look at themselves and at the new ones before them.",
        ),
        Mistake(
            "only the new tokens visible",
            lambda cached, query_len: (
                ones(cached, query_len).tril(cached).triu(cached)
                | (ones(cached, query_len).tril(cached) & (torch.arange(cached + query_len) >= cached))
            ),
            "The cached keys are the past; every new token may see them.",
        ),
        Mistake(
            "the cached queries too",
            lambda cached, query_len: torch.ones(cached + query_len, cached + query_len).tril() == 1,
            "Only the new tokens are queries: of the square mask, the last query_len rows.",
        ),
        Mistake(
            "without the cached keys",
            lambda cached, query_len: ones(0, query_len).tril(),
            "The keys are the cached ones and the new ones: cached + query_len columns.",
        ),
        Mistake(
            "the cache behind the new tokens",
            lambda cached, query_len: torch.cat([ones(0, query_len).tril(), torch.ones(query_len, cached) == 1], dim=1),
            "The cached keys come first, then the new ones.",
        ),
    ),
    groups={"an empty cache": lambda case: case["cached"] == 0, "one query": lambda case: case["query_len"] == 1},
)
