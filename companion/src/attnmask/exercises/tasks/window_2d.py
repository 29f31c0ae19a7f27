"""Which pixels are near in an image that is read as one row?"""

import torch

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def window_2d(height, width, radius):
    """Let each pixel of an image see the square around it.

    - height, width: the image's size; its pixels are the tokens, row by row
    - radius: how many rows and how many columns away a pixel may lie at most

    Return a bool tensor (height * width, height * width), True = may attend.
    """
    place = torch.arange(height * width)
    row, column = place // width, place % width
    return ((row[:, None] - row).abs() <= radius) & ((column[:, None] - column).abs() <= radius)


def spec(height, width, radius):
    pixels = [(row, column) for row in range(height) for column in range(width)]
    return torch.tensor([[abs(r - s) <= radius and abs(c - d) <= radius for s, d in pixels] for r, c in pixels])


def cases(draw):
    for height, width, radius in [
        (2, 3, 1),
        (3, 2, 1),
        (3, 3, 1),
        (2, 4, 2),
        (4, 3, 1),
        (3, 4, 2),
        (2, 2, 0),
        (4, 3, 3),
    ]:
        yield {"height": height, "width": width, "radius": radius}


def apart(height, width, by=None):
    place = torch.arange(height * width)
    by = width if by is None else by
    row, column = place // by, place % by
    return (row[:, None] - row).abs(), (column[:, None] - column).abs()


def near(height, width, radius, by=None):
    down, across = apart(height, width, by)
    return (down <= radius) & (across <= radius)


TASK = Task(
    window_2d,
    spec,
    cases,
    chapter="17",
    place=22,
    hints=(
        "Which row and which column is token p in? Divide by the width.",
        "Both distances must be within the radius, the one between rows and the one between columns.",
    ),
    mistakes=(
        Mistake(
            "near in the row of tokens",
            lambda height, width, radius: (
                (torch.arange(height * width)[:, None] - torch.arange(height * width)).abs() <= radius
            ),
            "The token before is the pixel on the left; the one above lies width tokens before.",
        ),
        Mistake(
            names.OR_FOR_AND,
            lambda height, width, radius: (apart(height, width)[0] <= radius) | (apart(height, width)[1] <= radius),
            "A whole row and a whole column pass in yours: both distances must be within the radius.",
        ),
        Mistake(
            "height and width exchanged",
            lambda height, width, radius: near(height, width, radius, by=height),
            "Row by row: a row has width pixels, so divide by the width.",
        ),
        Mistake(
            "a diamond instead of a square",
            lambda height, width, radius: sum(apart(height, width)) <= radius,
            "Yours adds the two distances. In a square, each is within the radius.",
        ),
        Mistake(
            "a disc instead of a square",
            lambda height, width, radius: apart(height, width)[0] ** 2 + apart(height, width)[1] ** 2 <= radius**2,
            "Yours is a round window: the corners of the square are missing.",
        ),
        Mistake(
            "rows only",
            lambda height, width, radius: apart(height, width)[0] <= radius,
            "Yours looks at the rows only; columns must be near too.",
        ),
        Mistake(
            "columns only",
            lambda height, width, radius: apart(height, width)[1] <= radius,
            "Yours looks at the columns only; rows must be near too.",
        ),
        Mistake(
            "radius one too small",
            lambda height, width, radius: near(height, width, radius - 1),
            "A pixel exactly radius away still belongs: <= instead of <.",
        ),
        Mistake(
            "radius one too large",
            lambda height, width, radius: near(height, width, radius + 1),
            "Yours reaches radius + 1 rows and columns away.",
        ),
        Mistake(
            "blocks instead of distances",
            lambda height, width, radius: (
                (
                    torch.arange(height * width)[:, None] // width // (radius + 1)
                    == torch.arange(height * width) // width // (radius + 1)
                )
                & (
                    torch.arange(height * width)[:, None] % width // (radius + 1)
                    == torch.arange(height * width) % width // (radius + 1)
                )
            ),
            "Yours cuts the image into fixed tiles. The window moves along with the pixel.",
        ),
        Mistake(
            "own pixel hidden",
            lambda height, width, radius: near(height, width, radius) & ~(torch.eye(height * width) == 1),
            "A pixel is within the radius of itself.",
        ),
        Mistake(
            "causal on top",
            lambda height, width, radius: near(height, width, radius).tril(),
            "The window reaches to all sides, so also to pixels that come later.",
        ),
    ),
    groups={
        "square images": lambda case: case["height"] == case["width"],
        "radius 0": lambda case: case["radius"] == 0,
    },
)
