"""Is a library of the table installed?"""

from importlib.util import find_spec

from attnmask._check import sentence


class MissingLibraryError(ImportError):
    """A library of the table is not installed; a notebook shows this as one line."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def need(*modules: str) -> None:
    """Raise one line that says what to install, unless all these modules are there.

    Parameters
    ----------
    modules
        Names as in ``import``.

    Raises
    ------
    MissingLibraryError
        One of them is not installed; a subclass of ``ImportError``.

    Examples
    --------
    >>> need("torch")
    """
    missing = [name for name in modules if find_spec(name.partition(".")[0]) is None]
    if missing:
        cause = "they are an extra of the companion; from the project's root, pip install './companion[frameworks]'"
        raise MissingLibraryError(sentence(", ".join(modules), f"no {', '.join(missing)}", cause))
