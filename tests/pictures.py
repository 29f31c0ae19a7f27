"""What a picture shows, read back from its Axes."""

import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

KEEP = torch.tensor([[True, True, True, False]])


def cells(axes):
    """The text of each cell, row by row, by where it stands."""
    placed = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in axes.texts}
    return placed


def hatched(axes):
    """The cells under a hatch, as (row, column)."""
    return {
        (round(patch.get_y() + 0.5), round(patch.get_x() + 0.5))
        for patch in axes.patches
        if isinstance(patch, Rectangle) and patch.get_hatch()
    }


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def colour_under(axes, row, column):
    image = axes.images[0]
    return tuple(image.cmap(image.norm(image.get_array()))[row, column].tolist())
