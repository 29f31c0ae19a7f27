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
        The version this row was checked with; empty where it was not run, but read in its documentation.
    meaning
        What an entry says.
    dtype, shape
        B samples, H heads, L queries, S keys; "broadcasts" where any axis may be 1.
    empty_row
        What a query gets that may look at nothing; after a semicolon, on which other path it gets what.
    write
        The function of `attnmask.conventions` that writes it, or the mask itself; empty where none does.
    corner
        From which corner the call's own causal flag counts where L and S differ; empty where it has none.
    window
        How many keys its own sliding window holds, that of the query included; empty where it has none.
    note
        What else to know, in a few words.
    source
        The documentation, where it was not run.
    """

    library: str
    call: str
    argument: str
    package: str
    version: str
    meaning: str
    dtype: str
    shape: str
    empty_row: str
    write: str
    corner: Literal["", "upper left", "lower right", "behind the cache"] = ""
    window: str = ""
    note: str = ""
    source: str = ""


def write_table(libraries: Iterable[Convention], columns: Iterable[str]) -> str:
    """Write these rows as Markdown, with these fields of each; `as_markdown` writes them all."""
    columns = list(columns)
    if unknown := [name for name in columns if name not in Convention._fields]:
        raise value_error(
            f"names of columns among {', '.join(Convention._fields)}", repr(unknown[0]), "a spelling slip, or one text"
        )
    head = "| " + " | ".join(name.replace("_", " ") for name in columns) + " |"
    lines = [" | ".join(_cell(row, name) for name in columns) for row in libraries]
    return "\n".join([head, "|" + " --- |" * len(columns), *(f"| {line} |" for line in lines)])


def _cell(row: Convention, column: str) -> str:
    text = getattr(row, column)
    if column == "version" and not text:
        return f"[documentation]({row.source})"
    if column in ("call", "write") and text:
        return f"`{text}`"
    return text or "–"
