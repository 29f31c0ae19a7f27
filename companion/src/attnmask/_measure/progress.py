"""How does a long measurement show that it goes on, and how does an error read in one line?"""

import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_DELAY = 5.0  # seconds before anything is shown


def progress(steps: Sequence[Any], what: str) -> Iterable[Any]:
    """Show a bar once it takes longer than five seconds; where tqdm is missing, a line now and then.

    >>> list(progress([1, 2], "squares"))
    [1, 2]
    """
    try:
        from tqdm import tqdm  # an extra: attnmask[progress]
    except ImportError:
        return _lines(steps, what)
    return tqdm(steps, desc=what, delay=_DELAY, leave=False)


def _lines(steps: Sequence[Any], what: str) -> Iterator[Any]:
    said = time.monotonic()
    for number, step in enumerate(steps):
        if time.monotonic() - said > _DELAY:
            said = time.monotonic()
            print(f"{what}: {number} of {len(steps)} steps", file=sys.stderr, flush=True)
        yield step


def one_line(error: Exception) -> str:
    """Return the kind of an error and the start of its first line.

    >>> one_line(RuntimeError("no training here"))
    'RuntimeError: no training here'
    """
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {textwrap.shorten(line, 120, placeholder=' …')}"
