"""Which token is where? The same walk-through in letters: SymPy matrices, which prove the zeros.

Tokens are given by their names, one a token: a string of one-letter names, or a
list. Two tokens of one name raise a ValueError, since they would be one letter.
"""

from collections.abc import Sequence

import sympy
from sympy import Matrix, Symbol
from torch import Tensor

from attnmask._check import kind_of, value_error
from attnmask.masks import Mask, graph

#: The width of query and key, under the square root.
d_k = Symbol("d_k", positive=True)


class _Letter(Symbol):  # type: ignore[misc]  # SymPy ships no types
    """A letter of the walk-through, which sorts as a, b, c, D and keeps each subscript in LaTeX."""

    def sort_key(self, order: object = None) -> object:
        kind, (count, _), *rest = super().sort_key(order)
        stem, _, subscript = self.name.swapcase().rpartition("_")  # D after c; A_aa before a_V
        return kind, (count, (subscript + stem,)), *rest

    def _latex(self, printer: object) -> str:
        return r" \cdot ".join("{}_{{{}}}".format(*factor.rsplit("_", 1)) for factor in self.name.split("·"))


# Every letter is declared real: only then does SymPy know that x + (-oo) is -oo and that exp(-oo) is 0.
def product(query: str, key: str) -> Symbol:
    """Return the letter for one entry of Q Kᵀ: query's row of Q times key's row of K.

    >>> product("a", "D")
    a_Q·D_K
    """
    return _Letter(f"{query}_Q·{key}_K", real=True)


def value(token: str) -> Symbol:
    """Return the letter for a token's row of V.

    >>> value("a")
    a_V
    """
    return _Letter(f"{token}_V", real=True)


def products(query_tokens: Sequence[str] = "abcD", key_tokens: Sequence[str] | None = None) -> Matrix:
    """Return Q Kᵀ in letters, (query, key); the keys default to the query's tokens.

    >>> products("ab")
    Matrix([
    [a_Q·a_K, a_Q·b_K],
    [b_Q·a_K, b_Q·b_K]])
    """
    query_tokens, key_tokens = _named(query_tokens), _named(query_tokens if key_tokens is None else key_tokens)
    return Matrix([[product(query, key) for key in key_tokens] for query in query_tokens])


def scores(query_tokens: Sequence[str] = "abcD", key_tokens: Sequence[str] | None = None) -> Matrix:
    """Return Q Kᵀ / √d_k in letters, (query, key).

    >>> scores("a")
    Matrix([[a_Q·a_K/sqrt(d_k)]])
    """
    return products(query_tokens, key_tokens) / sympy.sqrt(d_k)


def weights(query_tokens: Sequence[str] = "abcD", key_tokens: Sequence[str] | None = None) -> Matrix:
    """Return the weights as letters of their own, (query, key): A_ab is the share that query a gives to key b.

    >>> weights("ab")
    Matrix([
    [A_aa, A_ab],
    [A_ba, A_bb]])
    """
    query_tokens, key_tokens = _named(query_tokens), _named(query_tokens if key_tokens is None else key_tokens)
    return Matrix([[_Letter(f"A_{_pair(query, key)}", real=True) for key in key_tokens] for query in query_tokens])


def additive(mask: Mask | Tensor, query_len: int, key_len: int | None = None) -> Matrix:
    """Return the mask as the matrix M that is added to the scores: 0 where it allows, −∞ where it blocks.

    Parameters
    ----------
    mask
        A `Mask` of one sample and one head, or a bool tensor (query, key), True = may attend.
    query_len, key_len
        How many tokens; ``key_len`` defaults to ``query_len``.

    Raises
    ------
    ValueError, TypeError
        A mask of several samples or heads, or a tensor that is not bool (query, key).

    Examples
    --------
    >>> from attnmask import causal
    >>> additive(causal(), 2)
    Matrix([
    [0, -oo],
    [0,   0]])
    """
    if isinstance(mask, Tensor) and mask.dim() != 2:
        raise value_error("a Mask, or a bool tensor (query, key)", kind_of(mask), "pick one sample and one head")
    mask = mask if isinstance(mask, Mask) else graph(mask)
    key_len = query_len if key_len is None else key_len
    allowed = mask.dense(query_len, key_len, device="cpu")
    if allowed.shape[:2] != (1, 1):
        raise value_error("a mask of one sample and one head", kind_of(allowed), "pick one sample and one head first")
    pairs = allowed[0, 0].expand(query_len, key_len).tolist()
    return Matrix([[0 if allows else -sympy.oo for allows in row] for row in pairs])


def softmax(matrix: Matrix) -> Matrix:
    """Return the softmax of each row. A −∞ gives exactly 0; a row of nothing else gives nan, as in floats.

    >>> from attnmask import causal
    >>> softmax(scores("ab") + additive(causal(), 2))[0, :]
    Matrix([[1, 0]])
    """
    rows = matrix.applyfunc(sympy.exp).tolist()
    # Divided entry by entry: a SymPy matrix keeps its zeros when it is divided by 0, where 0/0 is nan.
    return Matrix([[exponential / sum(row) for exponential in row] for row in rows])


def output(weights: Matrix, value_tokens: Sequence[str] = "abcD") -> Matrix:
    """Return each output row as a sum of V's rows, a column of (query) expressions.

    Raises
    ------
    ValueError
        The weights have not one column for each value token.

    Examples
    --------
    >>> output(sympy.eye(2), "ab")
    Matrix([
    [a_V],
    [b_V]])
    """
    value_tokens = _named(value_tokens)
    if weights.cols != len(value_tokens):
        raise value_error(
            f"one column of weights for each of {len(value_tokens)} values",
            f"{weights.cols} columns",
            "the tokens of another sequence",
        )
    return weights * Matrix([value(token) for token in value_tokens])


def contains(row: sympy.Expr, tokens: Sequence[str] = "abcD") -> str:
    """Name the tokens whose value is in an output row.

    >>> contains(output(sympy.eye(2), "ab")[1], "ab")
    'b'
    """
    return "".join(token for token in _named(tokens) if row.has(value(token)))


def abbreviate(matrix: Matrix, query_tokens: Sequence[str] = "abcD", key_tokens: Sequence[str] | None = None) -> Matrix:
    """Write e_ab for exp(a_Q·b_K/√d_k), so that a row of weights fits on a line.

    >>> abbreviate(softmax(scores("ab")), "ab")[0, :]
    Matrix([[e_aa/(e_aa + e_ab), e_ab/(e_aa + e_ab)]])
    """
    query_tokens, key_tokens = _named(query_tokens), _named(query_tokens if key_tokens is None else key_tokens)
    short = {
        sympy.exp(product(query, key) / sympy.sqrt(d_k)): _Letter(f"e_{_pair(query, key)}", positive=True)
        for query in query_tokens
        for key in key_tokens
    }
    return matrix.subs(short)


def _named(tokens: Sequence[str]) -> tuple[str, ...]:
    """Check that each token has a name of its own, for tokens of one name would become one letter."""
    names = tuple(tokens)
    if len(set(names)) < len(names) or any("·" in name or not name for name in names):
        raise value_error(
            "tokens with a name each, without ·", f"{names}", "a word that comes twice; number them: the1, the2"
        )
    return names


def _pair(query: str, key: str) -> str:
    return f"{query}{key}" if len(query) == len(key) == 1 else f"{query},{key}"
