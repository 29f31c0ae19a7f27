"""How does every other library write the same mask? `to_…` writes it, `from_…` reads it back.

True means "may attend" in this package. Elsewhere True may mean "blocked", or the
mask is a number added to the scores, and every library has a shape of its own. All
of that is known here and nowhere else. `LIBRARIES` is the same knowledge as a table.
"""

from collections.abc import Iterable

from attnmask.conventions import documented, gpu, huggingface, keras_jax, pytorch, table
from attnmask.conventions.additive import from_additive as from_additive
from attnmask.conventions.additive import to_additive as to_additive
from attnmask.conventions.entries import AnyMask as AnyMask
from attnmask.conventions.entries import Device as Device
from attnmask.conventions.gpu import from_flash as from_flash
from attnmask.conventions.gpu import from_xformers as from_xformers
from attnmask.conventions.gpu import to_flash as to_flash
from attnmask.conventions.gpu import to_xformers as to_xformers
from attnmask.conventions.huggingface import from_huggingface as from_huggingface
from attnmask.conventions.huggingface import to_huggingface as to_huggingface
from attnmask.conventions.huggingface import to_huggingface_4d as to_huggingface_4d
from attnmask.conventions.installed import need as need
from attnmask.conventions.keras_jax import from_flax as from_flax
from attnmask.conventions.keras_jax import from_keras as from_keras
from attnmask.conventions.keras_jax import to_flax as to_flax
from attnmask.conventions.keras_jax import to_keras as to_keras
from attnmask.conventions.pytorch import ThreeMasks as ThreeMasks
from attnmask.conventions.pytorch import from_flex as from_flex
from attnmask.conventions.pytorch import from_multihead as from_multihead
from attnmask.conventions.pytorch import from_sdpa as from_sdpa
from attnmask.conventions.pytorch import from_transformer as from_transformer
from attnmask.conventions.pytorch import to_flex as to_flex
from attnmask.conventions.pytorch import to_multihead as to_multihead
from attnmask.conventions.pytorch import to_sdpa as to_sdpa
from attnmask.conventions.pytorch import to_transformer as to_transformer
from attnmask.conventions.table import Convention as Convention
from attnmask.conventions.varlen import Varlen as Varlen

LIBRARIES = (*pytorch.ROWS, *huggingface.ROWS, *keras_jax.ROWS, *gpu.ROWS, *documented.ROWS)


def as_markdown(
    columns: Iterable[str] = ("library", "call", "argument", "meaning", "shape", "empty_row", "corner", "write"),
) -> str:
    """Write the table of conventions as Markdown, one row for each argument.

    Parameters
    ----------
    columns
        The fields of `Convention` to show.

    Returns
    -------
    str
        A Markdown table; calls in backticks, an empty field as a dash.

    Raises
    ------
    ValueError
        A column that there is not.

    Examples
    --------
    >>> print(as_markdown(["library", "argument", "meaning"]).splitlines()[2])
    | PyTorch | attn_mask | True = attend |
    """
    return table.write_table(LIBRARIES, columns)
