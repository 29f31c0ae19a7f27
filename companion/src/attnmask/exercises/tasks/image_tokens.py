"""Who may see whom if images stand in a causal text?"""

import torch

from attnmask.exercises.task import Mistake, Task


def image_tokens(image):
    """Make the mask of a causal text with images in it.

    The tokens of one image see each other, both ways. All else is causal.

    - image: int64 (batch, token), 0 for a token of text, n > 0 for one of image n

    Return a bool tensor (batch, 1, token, token), True = may attend.
    """
    place = torch.arange(image.shape[1], device=image.device)
    same = (image[:, :, None] == image[:, None, :]) & (image != 0)[:, None, :]
    return ((place <= place[:, None]) | same)[:, None]


def spec(image):
    places = range(image.shape[1])
    return torch.tensor(
        [[[[k <= q or row[k] == row[q] != 0 for k in places] for q in places]] for row in image.tolist()]
    )


def cases(draw):
    for rows in [
        [[1, 1]],
        [[0, 1, 1, 0]],
        [[1, 1, 0, 2, 2]],
        [[1, 1, 2, 2], [0, 0, 1, 1]],
        [[0, 1, 1, 0, 2, 2], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]],
    ]:
        yield {"image": torch.tensor(rows)}


def past(image, diagonal=0):
    return torch.ones(image.shape[1], image.shape[1], dtype=torch.bool).tril(diagonal)


def pairs(table):
    return table[:, None]


def same(image):
    return pairs(image[:, :, None] == image[:, None])


def key(image):
    return pairs((image != 0)[:, None])


def query(image):
    return pairs((image != 0)[:, :, None])


TASK = Task(
    image_tokens,
    spec,
    cases,
    chapter="17",
    place=23,
    hints=(
        "There are two reasons why a key may be seen; one is enough.",
        "The second reason: query and key belong to the same image. Two tokens of text have the same number too, 0.",
    ),
    mistakes=(
        Mistake(
            "text taken for an image",
            lambda image: past(image) | same(image),
            "Tokens of text have the number 0 in common; in yours they see the future.",
        ),
        Mistake(
            "all images taken for one",
            lambda image: past(image) | (key(image) & query(image)),
            "An image must not see a later image: compare the numbers.",
        ),
        Mistake(
            "images are causal too",
            lambda image: past(image).expand(len(image), 1, -1, -1),
            "Inside an image, tokens may look forward; yours is the plain causal mask.",
        ),
        Mistake(
            "images visible to everybody",
            lambda image: past(image) | key(image),
            "The text before an image must not see it: the query must belong to the same image.",
        ),
        Mistake(
            "images see everything",
            lambda image: past(image) | query(image),
            "An image's tokens see each other, not the text that follows.",
        ),
        Mistake(
            "images see themselves only",
            lambda image: (past(image) & ~query(image)) | (same(image) & query(image)),
            "An image's tokens see the text before them as well.",
        ),
        Mistake(
            "and for or",
            lambda image: past(image) & same(image) & key(image),
            "One reason is enough: the key is past, or it belongs to the same image. | instead of &.",
        ),
        Mistake(
            "own token hidden",
            lambda image: past(image, -1) | (same(image) & key(image)),
            "A token of text may look at itself too.",
        ),
        Mistake("only the images", lambda image: same(image) & key(image), "Yours forgets the causal text."),
        Mistake(
            "one row's images used for all",
            lambda image: (past(image) | (same(image[:1]) & key(image[:1]))).expand(len(image), -1, -1, -1),
            "Each row has its own images; yours takes the first one's.",
        ),
    ),
    groups={"batch 1": lambda case: len(case["image"]) == 1},
)
