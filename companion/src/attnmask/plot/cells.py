"""How is one grid of cells drawn? Labelled, shaded, the blocked cells hatched.

Colours run from light to dark in one hue, so that they survive greyscale and
colour-blindness; the ground is opaque, so that they survive a dark page.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from attnmask._check import value_error

INK, GROUND, BLOCKED, HATCH = "#1b1f24", "#ffffff", "#dfe2e6", "#8a9099"
FLOW, LEAK = "#3b6ea5", "#d55e00"
SHADES = plt.get_cmap("Blues").with_extremes(bad="#f6c29c")  # NaN has a colour of its own, light enough for the ink
STYLE: dict[Any, Any] = {
    "axes.facecolor": GROUND,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "font.size": 10,
    "hatch.linewidth": 0.8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


class Labels(NamedTuple):
    """The text around a grid of cells: a name for each row and column, a title, and what columns and rows are."""

    rows: Sequence[str]
    columns: Sequence[str]
    title: str = ""
    xlabel: str = ""
    ylabel: str = ""


def panels(columns: Sequence[int], rows: Sequence[int], *, cell: float = 0.55) -> list[Axes]:
    """Make a new figure with one Axes for each grid of cells, side by side, every cell of one size.

    Parameters
    ----------
    columns, rows
        How many columns and rows of cells each grid will have, 1 or more.
    cell
        How wide and high a cell is, in inches; numbers of two decimals need the default.

    Returns
    -------
    list of Axes

    Raises
    ------
    ValueError
        Not as many numbers of rows as of columns, or none, or a 0.

    Examples
    --------
    >>> len(panels([4, 2], [4, 4]))
    2
    """
    if len(columns) != len(rows) or min([*columns, *rows], default=0) < 1:
        raise value_error(
            "a number of rows and of columns for each grid, 1 or more",
            f"rows {list(rows)} and columns {list(columns)}",
            "a grid left out of one of the two lists, or a sequence without tokens",
        )
    size = (cell * sum(columns) + 0.45 * len(columns) + 0.2, cell * max(rows) + 0.85)
    # Made outside rc_context: a notebook's backend, loaded here, would else forget that it is interactive.
    figure = plt.figure(figsize=size, dpi=144, facecolor=GROUND, layout="compressed")
    with rc_context(STYLE):
        axes = figure.subplots(1, len(columns), width_ratios=columns, squeeze=False)
    return list(axes[0])


def draw_cells(
    texts: Sequence[Sequence[str]], shades: Tensor, hatched: Tensor, labels: Labels, ax: Axes | None
) -> Axes:
    """Draw a grid of cells: a shade from 0 (light) to 1 (dark) or NaN, a hatch where blocked, a text in each."""
    rows, columns = len(labels.rows), len(labels.columns)
    if shades.shape != (rows, columns):
        raise value_error(
            f"a matrix of {rows} rows and {columns} columns, as there are labels",
            f"shape {tuple(shades.shape)}",
            "the tokens of another sequence, or an axis too many",
        )
    ax = panels([columns], [rows])[0] if ax is None else ax
    with rc_context(STYLE):
        ax.imshow(shades.numpy(), cmap=SHADES, vmin=0, vmax=1.55, aspect="equal")  # never too dark for the ink
        for row, column in product(range(rows), range(columns)):
            _draw_cell(ax, row, column, texts[row][column], hatched=bool(hatched[row, column]))
        for axis, names in ((ax.xaxis, labels.columns), (ax.yaxis, labels.rows)):
            axis.set_ticks(range(len(names)), labels=list(names), parse_math=False)  # a token may be a $
            axis.set_ticks([edge - 0.5 for edge in range(len(names) + 1)], minor=True)
        ax.grid(which="minor", color=HATCH, linewidth=0.6)
        ax.tick_params(which="both", length=0)
        ax.set(title=labels.title, xlabel=labels.xlabel, ylabel=labels.ylabel)
    return ax


def _draw_cell(ax: Axes, row: int, column: int, text: str, *, hatched: bool) -> None:
    """Draw the hatch of one cell, where it is blocked, and its text, readable on the hatch as well."""
    behind: dict[str, Any] = {}
    if hatched:
        place = (column - 0.5, row - 0.5)
        ax.add_patch(Rectangle(place, 1, 1, facecolor=BLOCKED, edgecolor=HATCH, hatch="////", linewidth=0))
        behind = {"bbox": {"boxstyle": "round,pad=0.15", "facecolor": BLOCKED, "edgecolor": "none"}}
    if text:
        ax.text(column, row, text, ha="center", va="center", color=INK, fontsize=10, **behind)


def write_number(number: float) -> str:
    """Write a number so that it fits a cell: −∞, NaN, an integer as it is, else two decimals."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    short = "0f" if number.is_integer() else "2f"
    text = f"{number:.{short if abs(number) < 1e5 else '0e'}}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")
