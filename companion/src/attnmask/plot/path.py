"""Which way do the four tokens take? From X by Q, K and V to scores, weights and output, with arrows between."""

import matplotlib.pyplot as plt
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from torch import Tensor

from attnmask.attention import attend
from attnmask.masks import Mask
from attnmask.plot.cells import FLOW, GROUND, INK, STYLE
from attnmask.plot.steps import show_matrix
from attnmask.walkthrough import FourTokens

# Everything in inches. A panel: left, bottom, and the size of a cell. An arrow: from, to, its text and where that is.
_SIZE = (9.9, 5.05)
_PANELS = {
    "X": (0.30, 1.85, 0.32),
    "Q": (2.15, 3.45, 0.32),
    "K": (2.15, 1.85, 0.32),
    "V": (2.15, 0.15, 0.32),
    "scores": (3.95, 2.25, 0.46),
    "weights": (6.80, 2.25, 0.46),
    "output": (8.90, 0.15, 0.46),
}
_ARROWS = (
    ((1.35, 2.75), (1.85, 4.05), "$W_Q$", (1.36, 3.45)),
    ((1.35, 2.49), (1.85, 2.49), "$W_K$", (1.59, 2.54)),
    ((1.35, 2.23), (1.85, 0.85), "$W_V$", (1.36, 1.27)),
    ((2.90, 4.05), (3.52, 3.52), "$QK^T/\\sqrt{d_k}$", (3.50, 4.12)),
    ((2.90, 2.49), (3.52, 2.83), "", (0, 0)),
    ((5.87, 3.17), (6.52, 3.17), "softmax", (6.19, 3.23)),
    ((8.72, 2.95), (9.30, 2.38), "$AV$", (9.22, 2.72)),
    ((2.90, 0.79), (8.58, 0.79), "", (0, 0)),
)


def show_path(four: FourTokens, mask: Mask | Tensor | None = None) -> list[Axes]:
    """Draw the way of the four tokens through one attention: X, then Q, K and V, scores, weights, output.

    Parameters
    ----------
    four
        What `four_tokens` returned.
    mask
        As for `attend`; what it blocks is hatched in the scores and in the weights.

    Returns
    -------
    list of Axes
        Seven, in that order.

    Raises
    ------
    ValueError, TypeError
        As in `attend`.

    Examples
    --------
    >>> from attnmask import causal, four_tokens
    >>> [axes.get_title() for axes in show_path(four_tokens(), causal())]
    ['$X$', '$Q$', '$K$', '$V$', 'masked scores', 'weights', 'output']
    """
    steps = attend(four.query, four.key, four.value, mask)
    shown = {"X": four.X, "Q": four.query, "K": four.key, "V": four.value}
    shown |= {"scores": steps.masked_scores, "weights": steps.weights, "output": steps.output}
    figure = plt.figure(figsize=_SIZE, dpi=144, facecolor=GROUND)
    axes = {name: _place(figure, name, values) for name, values in shown.items()}
    blocked = torch.isneginf(steps.masked_scores)
    for name, values in shown.items():
        by_key = name in ("scores", "weights")
        show_matrix(
            values,
            four.tokens,
            four.tokens if by_key else [""] * values.shape[1],
            blocked=blocked if by_key else None,
            limits=(0.0, 1.0) if name == "weights" else None,  # one scale, as in every picture of weights
            title=f"${name}$" if len(name) == 1 else "masked scores" if name == "scores" and mask is not None else name,
            xlabel="key" if by_key else "",
            ylabel="query" if name == "scores" else "",
            ax=axes[name],
        )
    _draw_arrows(figure)
    return list(axes.values())


def _place(figure: Figure, name: str, values: Tensor) -> Axes:
    """Make the Axes of one panel, as large as its cells."""
    left, bottom, cell = _PANELS[name]
    rows, columns = values.shape
    width, height = _SIZE
    with rc_context(STYLE):
        return figure.add_axes((left / width, bottom / height, cell * columns / width, cell * rows / height))


def _draw_arrows(figure: Figure) -> None:
    """Draw what is made of what, and write beside each arrow how."""
    to_figure = figure.dpi_scale_trans
    for start, end, text, (x, y) in _ARROWS:
        arrow = FancyArrowPatch(
            start, end, transform=to_figure, arrowstyle="-|>", mutation_scale=13, color=FLOW, linewidth=1.6
        )
        figure.add_artist(arrow)
        figure.text(x, y, text, transform=to_figure, ha="center", va="bottom", color=INK, fontsize=12)
