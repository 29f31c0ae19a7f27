"""What flows through a stack? Tokens as columns, layers as rows from the bottom up, arrows for what passes."""

from collections.abc import Sequence
from itertools import accumulate, product
from typing import Any, NamedTuple

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from torch import Tensor

from attnmask._check import count, value_error
from attnmask.masks import Mask, everything, from_dense
from attnmask.plot.cells import FLOW, GROUND, INK, LEAK, STYLE, panels
from attnmask.stacks import each_layer

_DASHED: dict[str, Any] = {"linestyle": (0, (2, 1.5))}
_ARROWS: dict[str, dict[str, Any]] = {
    "flows to": {"color": FLOW, "linewidth": 1.0, "zorder": 2},
    "own row": {"color": FLOW, "linewidth": 1.0, "zorder": 2} | _DASHED,
    "leak": {"color": LEAK, "linewidth": 2.2, "zorder": 3},
}
_LEGEND = "arrows of show_flow"


class _Layer(NamedTuple):
    """What one layer passes on in the sample that is drawn; bool, (query, key)."""

    seen: Tensor  # a key that some head may look at
    own: Tensor  # a token's own row, where it passes on whether or not a head looks at it


def show_flow(
    masks: Sequence[Mask | None],
    tokens: Sequence[str],
    *,
    allowed: Mask | Tensor | None = None,
    residual: bool = True,
    batch: int = 0,
    heads: int = 1,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw a stack of self-attentions: tokens as columns, layers as rows from the bottom up, arrows for what passes.

    Arrows run as information flows, from a key to the rows whose queries may look at it in
    some head. A dashed one stays in its row where no head looks at it: it passes on in the
    residual, or else in the query that makes the weights (see `reach`). Every arrow on a way
    from an input to an output that ``allowed`` forbids is a leak, thick and in a colour of its
    own. One legend below the figure holds for all stacks that are drawn in it.

    Parameters
    ----------
    masks
        One a layer, the first layer first; None = no mask.
    tokens
        A name for each token.
    allowed
        Which input each output may finally depend on, besides its own: a `Mask` or a
        bool tensor (batch, head, query, key), allowed in some head; None = anything.
    residual
        Whether each layer adds its input to what it computes.
    batch
        Which sample to draw.
    heads
        How many heads to ask a rule of your own for.
    title
        Text above the picture.
    ax
        Where to draw; by default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError, TypeError
        Not a list of masks; another number of tokens than a mask holds; no such sample.

    Examples
    --------
    >>> from attnmask import causal
    >>> axes = show_flow([causal(), None], "abcD", allowed=causal())
    >>> [text.get_text() for text in axes.figure.legends[0].get_texts()]
    ['flows to', 'leak']
    """
    allowed = allowed if isinstance(allowed, Mask) else everything() if allowed is None else from_dense(allowed)
    given = (*masks, allowed) if isinstance(masks, list | tuple) else ()  # each_layer says what is wrong with others
    samples = max([count("batch", batch) + 1, *(mask.batch for mask in given if isinstance(mask, Mask))])
    passed = each_layer(masks, len(tokens), residual=residual, batch=samples, heads=heads)
    if not passed:
        raise value_error("a layer to draw", "none", "an empty list of masks")
    layers = [_Layer(*(rows.expand(samples, -1, -1)[batch] for rows in each)) for each in passed]
    ((may_reach, _),) = each_layer([allowed], len(tokens), batch=samples, heads=heads)
    leaks = _leaks(layers, may_reach.expand(samples, -1, -1)[batch])
    ax = panels([len(tokens)], [len(layers) + 1], cell=0.95)[0] if ax is None else ax
    drawn = _draw_arrows(ax, layers, leaks)
    with rc_context(STYLE):
        _draw_tokens(ax, tokens, len(layers))
        ax.set_title(title)
        _draw_legend(ax, drawn)
    return ax


def _leaks(layers: Sequence[_Layer], allowed: Tensor) -> list[Tensor]:
    """Find in each layer what lies on a way from an input to an output that may not depend on it."""
    steps = [(seen | own).float() for seen, own in layers]
    itself = torch.eye(len(allowed), device="cpu")
    # Products of all layers below and above each one: what has arrived there, and where it can get to.
    below = list(accumulate(steps[:-1], lambda reached, step: step @ reached, initial=itself))
    above = list(accumulate(steps[:0:-1], lambda reached, step: reached @ step, initial=itself))[::-1]
    forbidden = (~allowed & (itself == 0)).float()
    return [after.mT @ forbidden @ before.mT > 0 for before, after in zip(below, above, strict=True)]


def _draw_arrows(ax: Axes, layers: Sequence[_Layer], leaks: Sequence[Tensor]) -> set[str]:
    """Draw what each layer passes on; return the kinds of arrow that there are."""
    drawn = set()
    for level, ((seen, own), leaking) in enumerate(zip(layers, leaks, strict=True)):
        for query, key in (seen | own).nonzero().tolist():
            kind = "leak" if leaking[query, key] else "flows to" if seen[query, key] else "own row"
            drawn |= {kind} if seen[query, key] else {kind, "own row"}  # a dashed leak stays in its row, too
            style = _ARROWS[kind] if seen[query, key] else _ARROWS[kind] | _DASHED
            arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 9, "shrinkA": 11, "shrinkB": 11} | style
            ax.add_patch(FancyArrowPatch((key, level), (query, level + 1), **arrow))
    return drawn


def _draw_tokens(ax: Axes, tokens: Sequence[str], layers: int) -> None:
    """Draw every token at the input and above each layer, and name the layers."""
    for level, (column, token) in product(range(layers + 1), enumerate(tokens)):
        box = {"boxstyle": "round,pad=0.35", "facecolor": GROUND, "edgecolor": INK, "linewidth": 0.8}
        ax.text(column, level, token, ha="center", va="center", color=INK, zorder=4, bbox=box, parse_math=False)
    names = ["input", *(f"layer {level}" for level in range(1, layers + 1))]
    ax.set_yticks(range(len(names)), labels=names)
    ax.set(xlim=(-0.5, len(tokens) - 0.5), ylim=(-0.4, layers + 0.4), xticks=[], aspect="equal")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _draw_legend(ax: Axes, drawn: set[str]) -> None:
    """Say below the figure what each kind of arrow means, those of stacks beside this one included."""
    figure = ax.figure
    for legend in [each for each in figure.legends if each.get_label() == _LEGEND]:
        drawn = drawn | {text.get_text() for text in legend.get_texts()}
        legend.remove()
    handles = [Line2D([], [], label=kind, **style) for kind, style in _ARROWS.items() if kind in drawn]
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": len(handles), "frameon": False}
    figure.legend(handles=handles, labelcolor=INK, handlelength=2.6, **place).set_label(_LEGEND)
