"""How do padding and the causal mask go together?"""

import torch

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def padded_causal(keep):
    """Hide the future and the padded keys, in one mask.

    - keep: bool (batch, token), True = real

    Return a bool tensor (batch, 1, token, token), True = may attend.
    """
    length = keep.shape[1]
    past = torch.ones(length, length, dtype=torch.bool, device=keep.device).tril()
    return past & keep[:, None, None, :]


def spec(keep):
    batch, length = keep.shape
    mask = keep.new_zeros(batch, 1, length, length)
    for sample in range(batch):
        for query in range(length):
            for key in range(length):
                mask[sample, 0, query, key] = key <= query and bool(keep[sample, key])
    return mask


def cases(draw):
    for batch, length in [(1, 2), (1, 4), (2, 3), (3, 2), (3, 3), (4, 5)]:
        yield {"keep": draw.real(batch, length)}
        yield {"keep": draw.real(batch, length, side="left")}


def past(keep, diagonal=0):
    return torch.ones(keep.shape[1], keep.shape[1], dtype=torch.bool).tril(diagonal)


def keys(keep):
    return keep[:, None, None, :]


def queries(keep):
    return keep[:, None, :, None]


TASK = Task(
    padded_causal,
    spec,
    cases,
    chapter="05",
    place=4,
    hints=(
        "A pair must pass both conditions.",
        "The triangle is (token, token), the padding (batch, 1, 1, token). They broadcast.",
    ),
    mistakes=(
        Mistake(names.OR_FOR_AND, lambda keep: past(keep) | keys(keep)),
        Mistake(names.QUERIES, lambda keep: past(keep) & queries(keep)),
        Mistake(
            "queries and keys both masked",
            lambda keep: past(keep) & queries(keep) & keys(keep),
            "Only keys are hidden. Yours blocks the padded queries' rows as well.",
        ),
        Mistake(names.NO_PADDING, lambda keep: past(keep).expand(len(keep), 1, -1, -1)),
        Mistake(names.NO_CAUSAL, lambda keep: keys(keep).expand(-1, 1, keep.shape[1], -1)),
        Mistake(
            "own token hidden",
            lambda keep: past(keep, -1) & keys(keep),
            "A query may look at its own key: tril() instead of tril(-1).",
        ),
        Mistake(
            "next token visible",
            lambda keep: past(keep, 1) & keys(keep),
            "The key one place later is the future already: tril() instead of tril(1).",
        ),
        Mistake("padding inverted", lambda keep: past(keep) & ~keys(keep), "keep is True where a token is real: no ~."),
        Mistake(
            "triangle inverted",
            lambda keep: ~past(keep) & keys(keep),
            "The lower triangle is what may be seen: no ~, and tril instead of triu.",
        ),
        Mistake(
            "triangle the wrong way round",
            lambda keep: past(keep).mT & keys(keep),
            "A query sees what came before it: tril instead of triu.",
        ),
        Mistake(
            "one sample's padding used for all",
            lambda keep: past(keep) & keys(keep)[:1].expand(len(keep), -1, -1, -1),
            "Each sample has its own padding; yours takes the first one's.",
        ),
    ),
    groups={"batch 1": lambda case: len(case["keep"]) == 1},
)
