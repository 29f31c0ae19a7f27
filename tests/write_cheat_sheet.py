"""Write the table of conventions into the cheat-sheet: `make notebooks` calls this."""

import re
from pathlib import Path

from attnmask.conventions import as_markdown

SHEET = Path(__file__).parents[1] / "book" / "reference" / "cheat-sheet.md"
COLUMNS = ["library", "call", "argument", "meaning", "shape", "empty_row", "write"]


def write() -> None:
    table = as_markdown(COLUMNS)
    head = re.escape(table.partition("\n")[0])
    # From the line of its column names on, all lines that are rows.
    text, found = re.subn(rf"^{head}$(\n\|.*)*", lambda _: table, SHEET.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if found != 1:
        raise ValueError(f"Expected one table with these columns in {SHEET.name}; got {found}: {', '.join(COLUMNS)}")
    SHEET.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write()
