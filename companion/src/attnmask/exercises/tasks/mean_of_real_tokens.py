"""Why need the rows of padded queries not be masked? Because what they hold is dropped here."""

import torch

from attnmask.exercises.task import Mistake, Task


def mean_of_real_tokens(losses, keep):
    """Average the loss over the real tokens.

    Each real token weighs the same. What the padded ones hold, even NaN, does not
    matter.

    - losses: float32 (batch, token), one loss a token
    - keep: bool (batch, token), True = real

    Return the mean as a float32 tensor without axes.
    """
    return losses[keep].mean()


def spec(losses, keep):
    real = [losses[sample, place] for sample, place in keep.nonzero().tolist()]
    return torch.stack(real).sum() / len(real)


def cases(draw):
    for batch, length in [(1, 2), (1, 3), (2, 3), (3, 5), (4, 6)]:
        keep = draw.real(batch, length)
        yield {"losses": draw.normal(batch, length).abs() + 0.1, "keep": keep}
    keep = draw.real(2, 4)
    yield {"losses": (draw.normal(2, 4).abs() + 0.1).masked_fill(~keep, torch.nan), "keep": keep}


TASK = Task(
    mean_of_real_tokens,
    spec,
    cases,
    chapter="03",
    place=6,
    hints=(
        "How many losses are to be averaged? Not batch times token.",
        "losses[keep] picks the entries where keep is True, in one row.",
    ),
    mistakes=(
        Mistake("mean over the padding too", lambda losses, keep: losses.mean(), "Padded tokens count in your mean."),
        Mistake(
            "padding counted as 0",
            lambda losses, keep: losses.masked_fill(~keep, 0.0).mean(),
            "The padded losses are 0, but the divisor still counts them; divide by keep.sum().",
        ),
        Mistake(
            "NaN times 0",
            lambda losses, keep: (losses * keep).sum() / keep.sum(),
            "0 times NaN is NaN, so multiplying does not drop what a padded row holds. Pick, or fill.",
        ),
        Mistake(
            "padding counted as 0, by a product",
            lambda losses, keep: (losses * keep).mean(),
            "The divisor still counts the padded tokens; and 0 times NaN is NaN. Pick, or fill.",
        ),
        Mistake("sum instead of mean", lambda losses, keep: losses[keep].sum(), "Divide by the number of real tokens."),
        Mistake(
            "the padding averaged",
            lambda losses, keep: losses[~keep].mean(),
            "keep is True where a token is real: no ~.",
        ),
        Mistake(
            "mean of the samples' means",
            lambda losses, keep: torch.stack([row[real].mean() for row, real in zip(losses, keep, strict=True)]).mean(),
            "A mean of means lets a token of a short sample weigh more than one of a long sample.",
        ),
        Mistake(
            "divided by the batch",
            lambda losses, keep: losses[keep].sum() / len(losses),
            "Divide by the number of real tokens, not by the number of samples.",
        ),
        Mistake(
            "divided by the length",
            lambda losses, keep: losses[keep].sum() / losses.shape[1],
            "Divide by the number of real tokens, not by the length.",
        ),
        Mistake(
            "one mean a sample",
            lambda losses, keep: losses.masked_fill(~keep, 0.0).sum(dim=1) / keep.sum(dim=1),
            "Asked for was one number for the whole batch.",
        ),
    ),
    groups={"batch 1": lambda case: len(case["losses"]) == 1},
)
