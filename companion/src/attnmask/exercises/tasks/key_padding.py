"""Which shape must a padding mask have to be applied to scores?"""

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def key_padding(keep):
    """Give a padding mask the shape that scores (batch, head, query, key) need.

    - keep: bool (batch, token), True = real

    Return the smallest bool tensor of four axes that hides the padded keys from
    every head and query.
    """
    return keep[:, None, None, :]


def spec(keep):
    batch, length = keep.shape
    mask = keep.new_zeros(batch, 1, 1, length)
    for sample in range(batch):
        for key in range(length):
            mask[sample, 0, 0, key] = keep[sample, key]
    return mask


def cases(draw):
    for batch, length in [(1, 2), (1, 4), (2, 2), (2, 3), (3, 2), (3, 3), (4, 6)]:
        yield {"keep": draw.real(batch, length)}


TASK = Task(
    key_padding,
    spec,
    cases,
    chapter="08",
    place=8,
    hints=(
        "Shapes are aligned from the right, and an axis of size 1 is repeated.",
        "The batch comes first, the key last. keep[:, None] puts an axis of size 1 behind the batch.",
    ),
    mistakes=(
        Mistake(
            names.QUERIES,
            lambda keep: keep[:, None, :, None],
            "The last axis is the key. Yours blocks rows: padded queries see nothing, padded keys are seen.",
        ),
        Mistake(
            "batch and key not aligned",
            lambda keep: keep[None, None],
            "The batch must be the first axis. As (1, 1, batch, token), the samples stand where the queries do.",
        ),
        Mistake(
            "samples taken for heads",
            lambda keep: keep[None, :, None],
            "The first axis is the batch, the second the head. Yours gives each sample's padding to a head.",
        ),
        Mistake(
            "queries and keys both masked",
            lambda keep: (keep[:, :, None] & keep[:, None])[:, None],
            "Only keys are hidden. Yours blocks the padded queries' rows as well, so these are empty.",
        ),
        Mistake(
            "flattened",
            lambda keep: keep.reshape(1, 1, 1, -1),
            "The samples follow each other along the key axis; each has to keep its own place in the batch.",
        ),
        Mistake(
            "only pairs of two padded tokens hidden",
            lambda keep: (keep[:, :, None] | keep[:, None])[:, None],
            "With 'or', a padded key is still seen by every real query.",
        ),
    ),
    groups={"batch 1": lambda case: len(case["keep"]) == 1},
)
