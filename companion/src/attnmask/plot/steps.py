"""How are masks and numbers shown? As grids of cells: a mask, a matrix, letters, the steps of one attention."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from attnmask._check import kind_of, value_error
from attnmask.attention import Steps
from attnmask.masks import Mask, from_dense
from attnmask.plot.cells import Labels, draw_cells, panels, write_number


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
    allowed = _one_table(mask, len(query_tokens), len(key_tokens), batch, head)
    title = (repr(mask) if isinstance(mask, Mask) else "mask") if title is None else title
    texts = [[""] * len(key_tokens)] * len(query_tokens)
    labels = Labels(query_tokens, key_tokens, title, xlabel="key", ylabel="query")
    return draw_cells(texts, 0.65 * allowed.double(), ~allowed, labels, ax)


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
    """Draw a matrix of numbers as labelled cells, darker for larger, NaN orange; −∞ and ``blocked`` cells hatched.

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
    shades = ((values - low) / max(high - low, 1e-12)).clamp(0, 1)  # NaN stays NaN
    texts = [[write_number(number) for number in row] for row in values.tolist()]
    return draw_cells(texts, shades, hatched, Labels(row_labels, column_labels, title, xlabel, ylabel), ax)


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
    labels = Labels(row_labels, column_labels, title, xlabel, ylabel)
    return draw_cells(texts, 0.35 * (~nothing).double(), nothing, labels, ax)


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
    steps = _one_sample(steps, batch, head)
    columns = [f"v{i}" for i in range(steps.output.shape[-1])]
    axes = list(panels([len(key_tokens)] * 3 + [len(columns)], [len(query_tokens)] * 4) if axes is None else axes)
    if len(axes) != 4:
        raise value_error("four Axes, one a step", f"{len(axes)}", "a subplot grid of another size")
    show_matrix(steps.scores, query_tokens, key_tokens, title="scores", xlabel="key", ylabel="query", ax=axes[0])
    show_matrix(steps.masked_scores, query_tokens, key_tokens, title="masked scores", xlabel="key", ax=axes[1])
    _show_weights(steps, query_tokens, key_tokens, "weights", axes[2])
    show_matrix(steps.output, query_tokens, columns, title="output", xlabel="column of V", ax=axes[3])
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
    axes = list(panels([len(key_tokens)] * len(results), [len(query_tokens)] * len(results)) if axes is None else axes)
    if len(axes) != len(results):
        raise value_error(
            "as many Axes as results", f"{len(axes)} for {len(results)}", "a subplot grid of another size"
        )
    for ax, (name, result) in zip(axes, results.items(), strict=True):
        if isinstance(result, Steps):
            _show_weights(_one_sample(result, batch, head), query_tokens, key_tokens, name, ax)
        elif isinstance(result, Tensor) and result.dtype != torch.bool:
            show_matrix(_slice(result, batch, head), query_tokens, key_tokens, title=name, ax=ax)
        else:
            show_mask(result, query_tokens, key_tokens, batch=batch, head=head, title=name, ax=ax)
        ax.set(xlabel=xlabel, ylabel="")
    axes[0].set_ylabel(ylabel)
    return axes


def _show_weights(steps: Steps, query_tokens: Sequence[str], key_tokens: Sequence[str], title: str, ax: Axes) -> None:
    """Draw weights from 0 to 1, the blocked ones hatched: one scale, so that pictures can be compared."""
    blocked = torch.isneginf(steps.masked_scores)
    limits = (0.0, 1.0)
    show_matrix(
        steps.weights, query_tokens, key_tokens, blocked=blocked, limits=limits, title=title, xlabel="key", ax=ax
    )


def _one_sample(steps: Steps, batch: int, head: int) -> Steps:
    """Pick one sample's and one head's matrix out of every step."""
    return Steps(*(_slice(step, batch, head) for step in steps))


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


def _one_table(mask: Mask | Tensor, query_len: int, key_len: int, batch: int, head: int) -> Tensor:
    """Return one sample's and one head's answers as a bool tensor (query, key)."""
    mask = mask if isinstance(mask, Mask) else from_dense(mask)
    if batch < 0 or head < 0:
        raise value_error("batch and head from 0", f"{batch} and {head}", "negative ones do not wrap here")
    batch_size, heads = (max(index + 1, held) for index, held in ((batch, mask.batch), (head, mask.heads)))
    dense = mask.dense(query_len, key_len, batch=batch_size, heads=heads, device="cpu")
    return dense.expand(batch_size, heads, query_len, key_len)[batch, head]
