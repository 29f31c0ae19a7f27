"""Which shapes fit the scores, and where do they line up? Sizes as cells, pushed to the right."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes

from attnmask._check import value_error
from attnmask.plot.cells import INK, STYLE, Labels, draw_cells, panels


def show_shapes(
    shapes: Mapping[str, Sequence[int]],
    scores: Sequence[int],
    names: Sequence[str] = ("batch", "head", "query", "key"),
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw shapes under that of the scores, lined up from the right as broadcasting does; what clashes is hatched.

    A dark cell is a size that equals the scores', a light one a 1, which is repeated; a
    blank one is an axis that is not there and counts as 1. A mask fits if it broadcasts
    and leaves the scores' shape as it is, so a size over a 1 of the scores is hatched as well.

    Parameters
    ----------
    shapes
        Name to shape, one a row below the scores.
    scores
        The shape that a mask has to fit.
    names
        A name for each axis of the scores.
    title
        Text above the picture.
    ax
        Where to draw; by default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        No shape, one of more axes than the scores, or not as many names as axes.

    Examples
    --------
    >>> axes = show_shapes({"(B, S)": (2, 5), "(B, 1, 1, S)": (2, 1, 1, 5)}, (2, 3, 5, 5))
    >>> [text.get_text() for text in axes.texts if "f" in text.get_text()]
    ['does not fit', 'fits']
    """
    axes = len(scores)
    if axes != len(names):
        raise value_error(f"a name for each of {axes} axes", f"{list(names)}", "scores of another rank: pass names=")
    if not shapes or max(map(len, shapes.values())) > axes:
        got = f"{[tuple(shape) for shape in shapes.values()]}"
        raise value_error(f"shapes of at most {axes} axes, as the scores have", got, "an axis too many, or no shape")
    # A missing axis is a 0 here, so that it is told from a 1.
    rows = [[*scores], *([0] * (axes - len(shape)) + list(shape) for shape in shapes.values())]
    sizes, wanted = torch.tensor(rows, device="cpu"), torch.tensor([*scores], device="cpu")
    same = sizes == wanted
    clashing = ~same & (sizes > 1)
    shades = 0.65 * same + 0.2 * (~same & (sizes == 1))
    texts = [[str(size) if size else "" for size in row] for row in rows]
    # Cells half as high as wide, since an axis's name is wider than its size; beside them, room for words.
    ax = panels([axes + 4], [len(rows) // 2 + 1], cell=0.62)[0] if ax is None else ax
    draw_cells(texts, shades, clashing, Labels(["scores", *shapes], names, title), ax)
    with rc_context(STYLE):
        ax.set_aspect(0.5)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        for row, clashes in enumerate(clashing.any(dim=1).tolist()[1:], start=1):
            verdict = "does not fit" if clashes else "fits"
            ax.text(axes - 0.3, row, verdict, ha="left", va="center", color=INK, fontsize=11)
    return ax
