"""How is a wrong answer shown? What was expected beside it, with a frame around each cell that differs."""

import base64
import html
import io

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from attnmask.plot import panels, show_matrix
from attnmask.plot.cells import LEAK, Labels, draw_cells


def show_answer(expected: Tensor, yours: Tensor) -> list[Axes]:
    """Draw two tables side by side, and frame the cells that differ.

    >>> left, right = show_answer(torch.eye(2) == 1, torch.ones(2, 2) == 1)
    >>> right.get_title()
    'yours'
    """
    rows, columns = expected.shape
    axes = panels([columns] * 2, [rows] * 2)
    labels = [str(place) for place in range(rows)], [str(place) for place in range(columns)]
    for ax, table, title in zip(axes, (expected, yours), ("expected", "yours"), strict=True):
        if table.dtype == torch.bool:
            texts = [[str(int(cell)) for cell in row] for row in table.tolist()]
            draw_cells(texts, 0.65 * table.double(), ~table, Labels(*labels, title), ax)
        else:
            show_matrix(table, *labels, title=title, ax=ax)
    same = torch.isclose(expected.double(), yours.double(), rtol=1e-4, atol=1e-4, equal_nan=True)
    for row, column in (~same).nonzero().tolist():
        frame = Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=LEAK, linewidth=2)
        axes[1].add_patch(frame)
    return axes


def as_html(words: str, expected: Tensor, yours: Tensor) -> str:
    """Return the words of a result and its picture, for a notebook."""
    figure = show_answer(expected, yours)[0].get_figure(root=True)
    assert figure is not None  # panels made one
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    plt.close(figure)
    picture = base64.b64encode(stream.getvalue()).decode()
    text = f'<pre style="white-space: pre-wrap">{html.escape(words)}</pre>'
    alt = "What was expected beside yours; the cells that differ have an orange frame."
    return f'{text}<img alt="{alt}" src="data:image/png;base64,{picture}">'
