"""Pictures of masks, scores and weights as labelled cells, the blocked ones hatched; of stacks as arrows.

Colours run from light to dark in one hue, so that they survive greyscale and
colour-blindness; the ground is opaque, so that they survive a dark page.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, product
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import Tensor

from attnmask._check import count, kind_of, type_error, value_error
from attnmask.attention import Steps
from attnmask.audits import Audit, Leak
from attnmask.masks import Mask, everything, from_dense
from attnmask.stacks import each_layer

_INK, _GROUND, _BLOCKED, _HATCH = "#1b1f24", "#ffffff", "#dfe2e6", "#8a9099"
_FLOW, _LEAK = "#3b6ea5", "#d55e00"
_DASHED: dict[str, Any] = {"linestyle": (0, (2, 1.5))}
_ARROWS: dict[str, dict[str, Any]] = {
    "may look": {"color": _FLOW, "linewidth": 1.0, "zorder": 2},
    "own row": {"color": _FLOW, "linewidth": 1.0, "zorder": 2} | _DASHED,
    "leak": {"color": _LEAK, "linewidth": 2.2, "zorder": 3},
}
_MARKS: dict[str, dict[str, Any]] = {
    "reached": {"marker": "o", "s": 60, "color": _FLOW},
    "not reached": {"marker": "o", "s": 60, "facecolors": "none", "edgecolors": _FLOW, "linewidths": 1.4},
    "leak": {"marker": "X", "s": 150, "color": _LEAK, "edgecolors": _INK, "linewidths": 0.8},
    "suspect": {"marker": "$?$", "s": 90, "color": _INK},
}
_STYLE: dict[Any, Any] = {
    "axes.facecolor": _GROUND,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "font.size": 10,
    "hatch.linewidth": 0.8,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


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
    figure = plt.figure(figsize=size, dpi=144, facecolor=_GROUND, layout="compressed")
    with rc_context(_STYLE):
        axes = figure.subplots(1, len(columns), width_ratios=columns, squeeze=False)
    return list(axes[0])


def show_mask(
    mask: Mask | Tensor,
    query_tokens: Sequence[str],
    key_tokens: Sequence[str] | None = None,
    *,
    batch: int = 0,
    head: int = 0,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw who may attend to whom: one row a query, one column a key, blocked cells hatched.

    Parameters
    ----------
    mask
        A `Mask`, or a bool tensor (batch, head, query, key), each axis full or 1.
    query_tokens, key_tokens
        The names on the axes; the keys default to the query's tokens.
    batch, head
        Which sample and which head to draw.
    title
        By default what the mask's ``repr`` says.
    ax
        Where to draw; by default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError, TypeError
        A tensor that is no four-axis bool mask, or of other lengths than the tokens.

    Examples
    --------
    >>> from attnmask import causal
    >>> axes = show_mask(causal(), "abcD")
    >>> axes.get_title()
    'causal()'
    """
    key_tokens = query_tokens if key_tokens is None else key_tokens
    allowed = _one_matrix(mask, len(query_tokens), len(key_tokens), batch, head)
    title = (repr(mask) if isinstance(mask, Mask) else "mask") if title is None else title
    texts = [[""] * len(key_tokens)] * len(query_tokens)
    axes = _cells(texts, 0.65 * allowed.double(), ~allowed, query_tokens, key_tokens, title, ax)
    axes.set(xlabel="key", ylabel="query")
    return axes


def show_matrix(
    values: Tensor,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    blocked: Tensor | None = None,
    limits: tuple[float, float] | None = None,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw a matrix of numbers as labelled cells, darker for larger; −∞ and ``blocked`` cells are hatched.

    Parameters
    ----------
    values
        Two axes (row, column); any numbers, −∞ and NaN among them.
    row_labels, column_labels
        One name a row and a column.
    blocked
        Bool (row, column): cells to hatch besides those that hold −∞.
    limits
        The values drawn lightest and darkest; default: the smallest and largest not hatched.
    title, xlabel, ylabel
        Text around the cells.
    ax
        Where to draw; by default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        ``values`` is not a matrix of as many rows and columns as there are labels,
        or ``blocked`` not a bool one.

    Examples
    --------
    >>> axes = show_matrix(torch.eye(2), "ab", "xy", title="identity")
    >>> [text.get_text() for text in axes.texts]
    ['1', '0', '0', '1']
    """
    if not isinstance(values, Tensor) or values.dim() != 2:
        raise value_error("a tensor of two axes, (row, column)", kind_of(values), "an axis too many; pick one")
    if blocked is not None and (blocked.dtype != torch.bool or blocked.shape != values.shape):
        raise value_error("blocked to be bool, shaped as values", kind_of(blocked), "a mask of other tokens")
    values = values.detach().double().cpu()
    hatched = torch.isneginf(values)
    if blocked is not None:
        hatched = hatched | blocked.cpu()
    visible = values[values.isfinite() & ~hatched].tolist()
    low, high = limits or (min(visible, default=0.0), max(visible, default=1.0))
    shades = ((values - low) / max(high - low, 1e-12)).nan_to_num(0, 1, 0).clamp(0, 1)
    texts = [[_number(number) for number in row] for row in values.tolist()]
    axes = _cells(texts, shades, hatched, row_labels, column_labels, title, ax)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return axes


def show_letters(
    texts: Sequence[Sequence[str]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw a matrix of letters as labelled cells; the cells that read ``"0"`` are hatched.

    Parameters
    ----------
    texts
        Rows of texts, one a cell; between dollar signs, as mathematics.
    row_labels, column_labels
        One name a row and a column.
    title, xlabel, ylabel
        Text around the cells.
    ax
        Where to draw; by default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        Not as many texts as there are labels.

    Examples
    --------
    >>> axes = show_letters([["$e_{aa}$", "0"]], "a", "ab")
    >>> len(axes.patches)  # the hatched ones
    1
    """
    if [len(row) for row in texts] != [len(column_labels)] * len(row_labels):
        raise value_error(
            f"{len(row_labels)} rows of {len(column_labels)} texts, as there are labels",
            f"rows of {[len(row) for row in texts]}",
            "a row too short or too long, or the tokens of another sequence",
        )
    nothing = torch.tensor([[text == "0" for text in row] for row in texts])
    axes = _cells(texts, 0.35 * (~nothing).double(), nothing, row_labels, column_labels, title, ax)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return axes


def show_steps(
    steps: Steps,
    query_tokens: Sequence[str],
    key_tokens: Sequence[str] | None = None,
    *,
    batch: int = 0,
    head: int = 0,
    axes: Iterable[Axes] | None = None,
) -> list[Axes]:
    """Draw one attention in a row: scores, masked scores, weights, output.

    Parameters
    ----------
    steps
        What `attend` returned, of any rank.
    query_tokens, key_tokens
        The names on the axes; the keys default to the query's tokens.
    batch, head
        Which sample and which head to draw, where the steps have those axes.
    axes
        Four Axes to draw on; by default a new figure.

    Returns
    -------
    list of Axes
        One for each of the four steps.

    Raises
    ------
    ValueError
        Not four Axes, or steps of other lengths than the tokens.

    Examples
    --------
    >>> from attnmask import attend, causal, four_tokens
    >>> four = four_tokens()
    >>> steps = attend(four.query, four.key, four.value, causal())
    >>> [axes.get_title() for axes in show_steps(steps, four.tokens)]
    ['scores', 'masked scores', 'weights', 'output']
    """
    key_tokens = query_tokens if key_tokens is None else key_tokens
    scores, masked_scores, _, output = (_slice(step, batch, head) for step in steps)
    columns = [f"v{i}" for i in range(output.shape[-1])]
    axes = list(panels([len(key_tokens)] * 3 + [len(columns)], [len(query_tokens)] * 4) if axes is None else axes)
    if len(axes) != 4:
        raise value_error("four Axes, one a step", f"{len(axes)}", "a subplot grid of another size")
    show_matrix(scores, query_tokens, key_tokens, title="scores", xlabel="key", ylabel="query", ax=axes[0])
    show_matrix(masked_scores, query_tokens, key_tokens, title="masked scores", xlabel="key", ax=axes[1])
    _show_weights(steps, query_tokens, key_tokens, batch, head, "weights", axes[2])
    show_matrix(output, query_tokens, columns, title="output", xlabel="width of value", ax=axes[3])
    return axes


def compare(
    results: Mapping[str, Mask | Steps | Tensor],
    query_tokens: Sequence[str],
    key_tokens: Sequence[str] | None = None,
    *,
    batch: int = 0,
    head: int = 0,
    xlabel: str = "key",
    ylabel: str = "query",
    axes: Iterable[Axes] | None = None,
) -> list[Axes]:
    """Draw several results side by side, each under its name: masks, the weights of steps, or matrices.

    Parameters
    ----------
    results
        Name to `Mask`, to `Steps` (their weights are drawn), to a bool mask of four
        axes, or to a matrix of numbers (query, key).
    query_tokens, key_tokens, batch, head, axes
        As for `show_steps`; one Axes a result.
    xlabel, ylabel
        What columns and rows are.

    Returns
    -------
    list of Axes

    Raises
    ------
    ValueError
        No result, or another number of Axes than results.

    Examples
    --------
    >>> from attnmask import causal, everything
    >>> both = compare({"none": everything(), "causal": causal()}, "abcD")
    >>> [axes.get_title() for axes in both]
    ['none', 'causal']
    """
    key_tokens = query_tokens if key_tokens is None else key_tokens
    if not results:
        raise value_error("at least one result to draw", "none", "an empty dict")
    count = len(results)
    axes = list(panels([len(key_tokens)] * count, [len(query_tokens)] * count) if axes is None else axes)
    if len(axes) != len(results):
        raise value_error(
            "as many Axes as results", f"{len(axes)} for {len(results)}", "a subplot grid of another size"
        )
    for ax, (name, result) in zip(axes, results.items(), strict=True):
        if isinstance(result, Steps):
            _show_weights(result, query_tokens, key_tokens, batch, head, name, ax)
        elif isinstance(result, Tensor) and result.dtype != torch.bool:
            show_matrix(_slice(result, batch, head), query_tokens, key_tokens, title=name, ax=ax)
        else:
            show_mask(result, query_tokens, key_tokens, batch=batch, head=head, title=name, ax=ax)
        ax.set(xlabel=xlabel, ylabel="")
    axes[0].set_ylabel(ylabel)
    return axes


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

    A solid arrow is a key that some head may look at; a dashed one is a token's own row
    where no head looks at it: it passes on in the residual, or else in the query that
    makes the weights (see `reach`). Every arrow on a way from an input to an output that
    ``allowed`` forbids is a leak, thick and in a colour of its own.

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
    >>> [text.get_text() for text in axes.get_legend().get_texts()]
    ['may look', 'leak']
    """
    allowed = allowed if isinstance(allowed, Mask) else everything() if allowed is None else from_dense(allowed)
    held = (
        [mask.batch for mask in (*masks, allowed) if isinstance(mask, Mask)] if isinstance(masks, list | tuple) else []
    )
    samples = max([count("batch", batch) + 1, *held])
    layers = each_layer(masks, len(tokens), residual=residual, batch=samples, heads=heads)
    if not layers:
        raise value_error("a layer to draw", "none", "an empty list of masks")
    layers = [(seen.expand(samples, -1, -1)[batch], own.expand(samples, -1, -1)[batch]) for seen, own in layers]
    steps = [(seen | own).float() for seen, own in layers]
    itself = torch.eye(len(tokens), device="cpu")
    # Products of all layers below and above each one: what has arrived there, and where it can get to.
    below = list(accumulate(steps[:-1], lambda reached, step: step @ reached, initial=itself))
    above = list(accumulate(steps[:0:-1], lambda reached, step: reached @ step, initial=itself))[::-1]
    ((may_reach, _),) = each_layer([allowed], len(tokens), batch=samples, heads=heads)
    forbidden = (~may_reach.expand(samples, -1, -1)[batch] & (itself == 0)).float()
    ax = panels([len(tokens)], [len(layers) + 1], cell=0.95)[0] if ax is None else ax
    drawn = set()
    for level, (seen, own) in enumerate(layers):
        leaks = above[level].mT @ forbidden @ below[level].mT > 0
        for query, key in (seen | own).nonzero().tolist():
            kind = "leak" if leaks[query, key] else "may look" if seen[query, key] else "own row"
            drawn.add(kind)
            style = _ARROWS[kind] if seen[query, key] else _ARROWS[kind] | _DASHED
            arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 9, "shrinkA": 11, "shrinkB": 11} | style
            ax.add_patch(FancyArrowPatch((key, level), (query, level + 1), **arrow))
    with rc_context(_STYLE):
        for level, (column, token) in product(range(len(layers) + 1), enumerate(tokens)):
            box = {"boxstyle": "round,pad=0.35", "facecolor": _GROUND, "edgecolor": _INK, "linewidth": 0.8}
            ax.text(column, level, token, ha="center", va="center", color=_INK, zorder=4, bbox=box, parse_math=False)
        names = ["input", *(f"layer {level}" for level in range(1, len(layers) + 1))]
        ax.set_yticks(range(len(names)), labels=names)
        ax.set(xlim=(-0.5, len(tokens) - 0.5), ylim=(-0.4, len(layers) + 0.4), xticks=[], title=title, aspect="equal")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        handles = [Line2D([], [], label=kind, **style) for kind, style in _ARROWS.items() if kind in drawn]
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, frameon=False, labelcolor=_INK)
    return ax


def show_audit(
    report: Audit,
    output_tokens: Sequence[str],
    input_tokens: Sequence[str] | None = None,
    *,
    of: str | None = None,
    batch: int = 0,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what `audit` found: one row an output, one column an input, forbidden cells hatched, findings marked.

    A dot is an allowed input that reaches the output, a circle an allowed one that
    nothing reached, a cross a leak, a question mark a suspect. Outputs of padding are
    not judged and have no marks.

    Parameters
    ----------
    report
        What `audit` returned.
    output_tokens, input_tokens
        The names on the axes; the inputs default to the output's tokens.
    of
        Which input to draw, where there are several; default: the first.
    batch
        Which sample to draw.
    title
        By default how many leaks there are in the picture, and how many elsewhere.
    ax
        Where to draw; by default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError, TypeError
        Not a report; tokens of another number than it has; no such input or sample.

    Examples
    --------
    >>> from attnmask import audit, causal
    >>> report = audit(lambda x: x.cumsum(1) + 0 * x, torch.randn(1, 4, 2))
    >>> axes = show_audit(report, "abcD")
    >>> axes.get_title(), [text.get_text() for text in axes.get_legend().get_texts()]
    ('no leak', ['reached'])
    """
    if not isinstance(report, Audit):
        raise type_error("what audit returned", kind_of(report), "a model or a mask; call audit(model, inputs) first")
    of = next(iter(report.allowed)) if of is None else of
    if of not in report.allowed:
        raise value_error(f"one of the inputs {list(report.allowed)}", repr(of), "a spelling slip")
    input_tokens = output_tokens if input_tokens is None else input_tokens
    samples, outputs, inputs = report.allowed[of].shape
    sizes = (count("batch", batch) < samples, len(output_tokens), len(input_tokens))
    if sizes != (True, outputs, inputs):
        expected = f"a sample below {samples}, {outputs} output tokens and {inputs} input tokens"
        got = f"sample {batch}, {len(output_tokens)} and {len(input_tokens)} tokens"
        raise value_error(expected, got, "the tokens of another sequence")
    allowed, found, judged = report.allowed[of][batch], report.found[of][batch], report.judged[batch][:, None]

    def drawn(leak: Leak) -> bool:
        own = leak.sample == leak.from_sample == batch and leak.length == inputs
        return own and leak.of in ("", of) and leak.input is not None

    doubts = torch.zeros_like(allowed)
    for each in filter(drawn, report.suspects):
        doubts[each.output, each.input] = True
    marks = {
        "reached": allowed & found & judged,
        "not reached": allowed & ~found & judged,
        "leak": ~allowed & found & judged,
        "suspect": doubts & ~found,
    }
    texts = [[""] * inputs] * outputs
    rows = [name if real else f"({name})" for name, real in zip(output_tokens, judged, strict=True)]
    axes = _cells(texts, 0.25 * allowed.double(), ~allowed, rows, input_tokens, "", ax)
    with rc_context(_STYLE):
        handles = []
        for name, cells in marks.items():
            if bool(cells.any()):
                row, column = cells.nonzero().T.tolist()
                handles.append(axes.scatter(column, row, label=name, zorder=3, **_MARKS[name]))
        leaks = int(marks["leak"].sum())
        others = len({str(each) for each in report.leaks} - {str(each) for each in report.leaks if drawn(each)})
        parts = [f"{leaks or 'no'} leak{'s' * (leaks > 1)}"] + [f"{others} elsewhere"] * (others > 0)
        axes.set(xlabel="input", ylabel="output")
        axes.set_title(", ".join(parts) if title is None else title)
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}
        axes.legend(handles=handles, frameon=False, labelcolor=_INK, handletextpad=0.3, columnspacing=1.0, **place)
    return axes


# ---- one drawing for all of them --------------------------------------------------


def _show_weights(
    steps: Steps,
    query_tokens: Sequence[str],
    key_tokens: Sequence[str],
    batch: int,
    head: int,
    title: str,
    ax: Axes,
) -> None:
    """Draw weights from 0 to 1, the blocked ones hatched: one scale, so that pictures can be compared."""
    weights, masked_scores = (_slice(step, batch, head) for step in (steps.weights, steps.masked_scores))
    blocked = torch.isneginf(masked_scores)
    show_matrix(weights, query_tokens, key_tokens, blocked=blocked, limits=(0.0, 1.0), title=title, xlabel="key", ax=ax)


def _cells(
    texts: Sequence[Sequence[str]],
    shades: Tensor,
    hatched: Tensor,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str,
    ax: Axes | None,
) -> Axes:
    """Draw a grid of cells: a shade from 0 (light) to 1 (dark), a hatch where blocked, a text in each."""
    rows, columns = len(row_labels), len(column_labels)
    if shades.shape != (rows, columns):
        raise value_error(
            f"a matrix of {rows} rows and {columns} columns, as there are labels",
            f"shape {tuple(shades.shape)}",
            "the tokens of another sequence, or an axis too many",
        )
    ax = panels([columns], [rows])[0] if ax is None else ax
    with rc_context(_STYLE):
        ax.imshow(shades.numpy(), cmap="Blues", vmin=0, vmax=1.55, aspect="equal")  # never too dark for the ink
        for row, column in product(range(rows), range(columns)):
            behind: dict[str, Any] = {}
            if hatched[row, column]:
                place = (column - 0.5, row - 0.5)
                ax.add_patch(Rectangle(place, 1, 1, facecolor=_BLOCKED, edgecolor=_HATCH, hatch="////", linewidth=0))
                behind = {"bbox": {"boxstyle": "round,pad=0.15", "facecolor": _BLOCKED, "edgecolor": "none"}}
            if texts[row][column]:
                ax.text(column, row, texts[row][column], ha="center", va="center", color=_INK, fontsize=10, **behind)
        for axis, labels in ((ax.xaxis, column_labels), (ax.yaxis, row_labels)):
            axis.set_ticks(range(len(labels)), labels=list(labels), parse_math=False)  # a token may be a $
            axis.set_ticks([edge - 0.5 for edge in range(len(labels) + 1)], minor=True)
        ax.grid(which="minor", color=_HATCH, linewidth=0.6)
        ax.tick_params(which="both", length=0)
        ax.set_title(title)
    return ax


def _number(number: float) -> str:
    """Write a number so that it fits a cell: −∞, an integer as it is, else two decimals."""
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    short = "0f" if number.is_integer() else "2f"
    text = f"{number:.{short if abs(number) < 1e5 else '0e'}}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _slice(tensor: Tensor, batch: int, head: int) -> Tensor:
    """Pick one (row, column) matrix out of a tensor of rank 2, 3 (batch first) or 4."""
    index = {2: (), 3: (batch,), 4: (batch, head)}.get(tensor.dim())
    if index is None or any(not 0 <= place < size for place, size in zip(index, tensor.shape, strict=False)):
        raise value_error(
            f"sample {batch} and head {head} of a tensor of rank 2, 3 or 4",
            kind_of(tensor),
            "batch or head beyond what there is",
        )
    return tensor[index].detach().double().cpu()


def _one_matrix(mask: Mask | Tensor, query_len: int, key_len: int, batch: int, head: int) -> Tensor:
    """Return one sample's and one head's answers as a bool tensor (query, key)."""
    mask = mask if isinstance(mask, Mask) else from_dense(mask)
    if batch < 0 or head < 0:
        raise value_error("batch and head from 0", f"{batch} and {head}", "negative ones do not wrap here")
    batch_size, heads = (max(index + 1, held) for index, held in ((batch, mask.batch), (head, mask.heads)))
    dense = mask.dense(query_len, key_len, batch=batch_size, heads=heads, device="cpu")
    return dense.expand(batch_size, heads, query_len, key_len)[batch, head]
