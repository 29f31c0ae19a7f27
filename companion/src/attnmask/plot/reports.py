"""What did an audit find? What is allowed as cells, what was found as marks on them."""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from torch import Tensor

from attnmask._check import count, kind_of, type_error, value_error
from attnmask.audits import Audit, Leak
from attnmask.plot.cells import FLOW, INK, LEAK, STYLE, Labels, draw_cells

_MARKS: dict[str, dict[str, Any]] = {
    "reached": {"marker": "o", "s": 60, "color": FLOW},
    "not reached": {"marker": "o", "s": 60, "facecolors": "none", "edgecolors": FLOW, "linewidths": 1.4},
    "leak": {"marker": "X", "s": 150, "color": LEAK, "edgecolors": INK, "linewidths": 0.8},
    "suspect": {"marker": "$?$", "s": 90, "color": INK},
}


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
    allowed, marks = report.allowed[of][batch], _marks(report, of, batch)
    rows = [name if real else f"({name})" for name, real in zip(output_tokens, report.judged[batch], strict=True)]
    title = _title(report, of, batch, int(marks["leak"].sum())) if title is None else title
    labels = Labels(rows, input_tokens, title, xlabel="input", ylabel="output")
    axes = draw_cells([[""] * inputs] * outputs, 0.25 * allowed.double(), ~allowed, labels, ax)
    _draw_marks(axes, marks)
    return axes


def _marks(report: Audit, of: str, batch: int) -> dict[str, Tensor]:
    """Return the cells of each kind of mark; bool, (output, input)."""
    allowed, found, judged = report.allowed[of][batch], report.found[of][batch], report.judged[batch][:, None]
    doubts = torch.zeros_like(allowed)
    for each in report.suspects:
        if _in_picture(each, report, of, batch):
            doubts[each.output, each.input] = True
    return {
        "reached": allowed & found & judged,
        "not reached": allowed & ~found & judged,
        "leak": ~allowed & found & judged,
        "suspect": doubts & ~found,
    }


def _in_picture(leak: Leak, report: Audit, of: str, batch: int) -> bool:
    """Tell whether a leak has a cell of its own: one input, of this sample, at the length that is drawn."""
    same_sample = leak.sample == leak.from_sample == batch
    same_length = leak.length == report.allowed[of].shape[-1]
    return same_sample and same_length and leak.of in ("", of) and leak.input is not None


def _title(report: Audit, of: str, batch: int, leaks: int) -> str:
    """Say how many leaks there are in the picture, and how many elsewhere; or how much is hidden that may not be."""
    drawn = {str(each) for each in report.leaks if _in_picture(each, report, of, batch)}
    others = len({str(each) for each in report.leaks} - drawn)
    hidden = sum(_in_picture(each, report, of, batch) for each in report.missing) if report.exact else 0
    if hidden and not leaks and not others:
        return f"{hidden} pair{'s' * (hidden > 1)} hidden"
    return f"{leaks or 'no'} leak{'s' * (leaks > 1)}" + f", {others} elsewhere" * (others > 0)


def _draw_marks(axes: Axes, marks: dict[str, Tensor]) -> None:
    """Draw the marks on their cells, and say below what each kind means."""
    with rc_context(STYLE):
        handles = []
        for name, cells in marks.items():
            if bool(cells.any()):
                row, column = cells.nonzero().T.tolist()
                handles.append(axes.scatter(column, row, label=name, zorder=3, **_MARKS[name]))
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}
        axes.legend(handles=handles, frameon=False, labelcolor=INK, handletextpad=0.3, columnspacing=1.0, **place)
