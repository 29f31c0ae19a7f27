"""The conventions of every library as a table: what True means, which shape, what an empty row gives."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Literal, NamedTuple

from attnmask._check import sentence, value_error


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


# fmt: off
LIBRARIES = (
    Convention("PyTorch", "F.scaled_dot_product_attention", "attn_mask", "torch", "2.13.0",
               "True = attend", "bool", "(B, H, Q, K), broadcasts", "zeros", "upper left", "to_sdpa",
               "attn_mask or is_causal, not both"),
    Convention("PyTorch", "F.scaled_dot_product_attention", "attn_mask (float)", "torch", "2.13.0",
               "added to scores", "that of the query", "(B, H, Q, K), broadcasts", "zeros", "upper left", "to_additive",
               "-1e9 gives the mean of all values in float32"),
    Convention("PyTorch", "nn.MultiheadAttention", "key_padding_mask", "torch", "2.13.0",
               "True = blocked", "bool", "(B, K)", "NaN", "", "to_multihead",
               "without weights, off the fast path: out_proj.bias"),
    Convention("PyTorch", "nn.MultiheadAttention", "attn_mask", "torch", "2.13.0",
               "True = blocked", "bool", "(Q, K) or (B·H, Q, K)", "NaN", "", "to_multihead",
               "index sample · H + head; is_causal is only a hint"),
    Convention("PyTorch", "nn.Transformer", "six masks", "torch", "2.13.0",
               "True = blocked", "bool", "(B, K); (Q, K) or (B·H, Q, K)", "zeros", "", "to_transformer",
               "before the output bias; in evaluation without gradients NaN"),
    Convention("PyTorch", "FlexAttention", "mask_mod", "torch", "2.13.0",
               "True = attend", "function", "of b, h, q, k", "zeros", "", "to_flex",
               "B=None takes the blocks of sample 0 for all"),
    Convention("Hugging Face", "model(...)", "attention_mask (2-D)", "transformers", "5.23.0",
               "1 = attend", "int64", "(B, K)", "zeros", "lower right", "to_huggingface",
               "cast to bool; a decoder adds its causal mask; eager: mean of all values"),
    Convention("Hugging Face", "model(...)", "attention_mask (4-D)", "transformers", "5.23.0",
               "added to scores", "that of the model", "(B, H, Q, K), broadcasts", "mean of all values", "",
               "to_huggingface_4d", "replaces the model's own mask"),
    Convention("Hugging Face", "create_causal_mask", "and_mask_function", "transformers", "5.23.0",
               "True = attend", "function", "of b, h, q, k", "zeros", "lower right", "mask",
               "the head is always 0; eager: mean of all values"),
    Convention("Keras", "layers.MultiHeadAttention", "attention_mask", "keras", "3.15.1",
               "True = attend", "bool", "(B, Q, K) or (B, H, Q, K)", "mean of all values", "upper left", "to_keras",
               "numbers are cast to bool; zeros with dropout, or return_attention_scores=True"),
    Convention("TensorFlow", "tf.where(mask, scores, -1e9)", "mask", "tensorflow", "2.21.0",
               "True = attend", "bool", "(B, H, Q, K), broadcasts", "mean of all values", "", "mask.dense",
               "by hand"),
    Convention("JAX", "jax.nn.dot_product_attention", "mask", "jax", "0.10.2",
               "True = attend", "bool", "(B, H, Q, K), broadcasts", "mean of all values", "upper left", "to_flax",
               "query is (B, Q, H, d)"),
    Convention("Flax", "nnx.dot_product_attention", "mask", "flax", "0.12.8",
               "True = attend", "bool", "(B, H, Q, K), broadcasts", "mean of all values", "upper left", "to_flax",
               "query is (B, Q, H, d); numbers are cast to bool"),
    Convention("xFormers", "memory_efficient_attention", "attn_bias", "", "",
               "added to scores", "that of the query", "(B, H, Q, K)", "not checked", "", "to_xformers",
               "GPU only; rows start at multiples of 8"),
    Convention("FlashAttention", "flash_attn_varlen_func", "cu_seqlens_q, cu_seqlens_k", "", "",
               "cumulative lengths", "int32", "(sequences + 1,)", "not computed", "lower right", "to_flash",
               "GPU only; padding is left out"),
)
# fmt: on


def as_markdown(
    columns: Iterable[str] = ("library", "call", "argument", "meaning", "shape", "empty_row", "alignment", "write"),
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
    columns = list(columns)
    if unknown := [name for name in columns if name not in Convention._fields]:
        raise value_error(
            f"names of columns among {', '.join(Convention._fields)}", repr(unknown[0]), "a spelling slip, or one text"
        )
    code = {"call", "write"}
    head = "| " + " | ".join(name.replace("_", " ") for name in columns) + " |"
    rows = [[(name, getattr(row, name) or "–") for name in columns] for row in LIBRARIES]
    lines = [" | ".join(f"`{text}`" if name in code else text for name, text in row) for row in rows]
    return "\n".join([head, "|" + " --- |" * len(columns), *(f"| {line} |" for line in lines)])


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
        cause = "they are an extra of the companion; pip install 'attnmask[frameworks]'"
        raise MissingLibraryError(sentence(", ".join(modules), f"no {', '.join(missing)}", cause))
