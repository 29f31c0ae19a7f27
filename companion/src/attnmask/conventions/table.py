"""What is a row of the table of conventions, and how is the table written?"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from attnmask._check import value_error


class Convention(NamedTuple):
    """How one argument of one library writes a mask.

    Attributes
    ----------
    library, call, argument
        Where the mask goes.
    package, version
        The version this row was checked with; empty where it was not run, but read in the documentation.
    meaning
        What an entry says.
    dtype, shape
        B samples, H heads, Q queries, K keys; "broadcasts" where any axis may be 1.
    empty_row
        What a query gets that may look at nothing.
    alignment
        From which corner the call's own causal flag counts where Q and K differ; empty where it has none.
    write
        The function of `attnmask.conventions` that writes it; or the mask itself.
    note
        What else to know, in a few words.
    """

    library: str
    call: str
    argument: str
    package: str
    version: str
    meaning: Literal["True = attend", "True = blocked", "1 = attend", "added to scores", "cumulative lengths"]
    dtype: str
    shape: str
    empty_row: Literal["zeros", "NaN", "mean of all values", "not computed", "not checked"]
    alignment: Literal["", "upper left", "lower right"]
    write: str
    note: str = ""


def write_table(libraries: Iterable[Convention], columns: Iterable[str]) -> str:
    """Write these rows as Markdown, with these fields of each; `as_markdown` writes them all."""
    columns = list(columns)
    if unknown := [name for name in columns if name not in Convention._fields]:
        raise value_error(
            f"names of columns among {', '.join(Convention._fields)}", repr(unknown[0]), "a spelling slip, or one text"
        )
    code = {"call", "write"}
    head = "| " + " | ".join(name.replace("_", " ") for name in columns) + " |"
    rows = [[(name, getattr(row, name) or "–") for name in columns] for row in libraries]
    lines = [" | ".join(f"`{text}`" if name in code else text for name, text in row) for row in rows]
    return "\n".join([head, "|" + " --- |" * len(columns), *(f"| {line} |" for line in lines)])
