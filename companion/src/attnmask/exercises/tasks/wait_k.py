"""What may a target see of a source that is still being spoken?"""

import torch

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def wait_k(source_keep, target_len, k):
    """Make the cross mask of a translator that starts after k source tokens.

    Target token t may look at the first t + k source tokens, as far as they are
    real.

    - source_keep: bool (batch, source), True = real
    - target_len: how many target tokens there are
    - k: 1 or more

    Return a bool tensor (batch, 1, target_len, source), True = may attend.
    """
    device = source_keep.device
    spoken = torch.arange(source_keep.shape[1], device=device) < torch.arange(target_len, device=device)[:, None] + k
    return spoken & source_keep[:, None, None]


def spec(source_keep, target_len, k):
    batch, source_len = source_keep.shape
    mask = source_keep.new_zeros(batch, 1, target_len, source_len)
    for sample in range(batch):
        for target in range(target_len):
            for source in range(source_len):
                mask[sample, 0, target, source] = source < target + k and bool(source_keep[sample, source])
    return mask


def cases(draw):
    for batch, source, target, k in [
        (1, 3, 2, 1),
        (1, 3, 3, 2),
        (2, 4, 2, 1),
        (2, 4, 4, 2),
        (3, 5, 3, 2),
        (3, 6, 4, 3),
    ]:
        yield {"source_keep": draw.real(batch, source), "target_len": target, "k": k}


def spoken(source_keep, target_len, k):
    return torch.ones(target_len, source_keep.shape[1], dtype=torch.bool).tril(k - 1)


def keys(source_keep):
    return source_keep[:, None, None]


TASK = Task(
    wait_k,
    spec,
    cases,
    chapter="11",
    place=13,
    hints=(
        "Rows are target tokens, columns are source tokens; the source's padding hides columns.",
        "Source place s is among the first t + k tokens if s < t + k.",
    ),
    mistakes=(
        Mistake(
            "one token too early",
            lambda source_keep, target_len, k: spoken(source_keep, target_len, k + 1) & keys(source_keep),
            "Places count from 0: the first t + k tokens are those with s < t + k, not <=.",
        ),
        Mistake(
            "one token too late",
            lambda source_keep, target_len, k: spoken(source_keep, target_len, k - 1) & keys(source_keep),
            "Target token 0 may see k source tokens, the next one k + 1.",
        ),
        Mistake(
            "k ignored",
            lambda source_keep, target_len, k: spoken(source_keep, target_len, 1) & keys(source_keep),
            "The target starts after k source tokens; yours is a plain causal mask.",
        ),
        Mistake(
            "the source does not go on",
            lambda source_keep, target_len, k: (
                (torch.arange(source_keep.shape[1]) < k).expand(target_len, -1) & keys(source_keep)
            ),
            "With each target token, one more source token may be seen: t + k.",
        ),
        Mistake(
            "a window of k tokens",
            lambda source_keep, target_len, k: spoken(source_keep, target_len, k).triu() & keys(source_keep),
            "What was heard may be seen for ever; yours drops the source tokens before place t.",
        ),
        Mistake(
            names.NO_PADDING,
            lambda source_keep, target_len, k: spoken(source_keep, target_len, k).expand(len(source_keep), 1, -1, -1),
        ),
        Mistake(
            names.OR_FOR_AND, lambda source_keep, target_len, k: spoken(source_keep, target_len, k) | keys(source_keep)
        ),
        Mistake(
            "no waiting",
            lambda source_keep, target_len, k: keys(source_keep).expand(-1, -1, target_len, -1),
            "Yours lets each target token see the whole source.",
        ),
        Mistake(
            "padding inverted",
            lambda source_keep, target_len, k: spoken(source_keep, target_len, k) & ~keys(source_keep),
            "source_keep is True where a token is real: no ~.",
        ),
    ),
    groups={
        "batch 1": lambda case: len(case["source_keep"]) == 1,
        "square masks": lambda case: case["source_keep"].shape[1] == case["target_len"],
    },
)
