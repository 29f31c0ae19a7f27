"""Which numbers can be followed by hand? The four tokens a b c D and their weights."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from attnmask._check import type_error


class FourTokens(NamedTuple):
    """Four tokens, three numbers each, and the weights that turn them into query, key and value.

    ``tokens`` names the rows: "a", "b", "c" and "D", the one that is padding in
    the chapters on padding.
    """

    tokens: tuple[str, str, str, str]
    X: Float[Tensor, "token=4 d_model=3"]
    W_Q: Float[Tensor, "d_model=3 d=2"]
    W_K: Float[Tensor, "d_model=3 d=2"]
    W_V: Float[Tensor, "d_model=3 d=2"]

    @property
    def query(self) -> Float[Tensor, "token=4 d=2"]:
        """X @ W_Q: one row a token."""
        return self.X @ self.W_Q

    @property
    def key(self) -> Float[Tensor, "token=4 d=2"]:
        """X @ W_K: one row a token."""
        return self.X @ self.W_K

    @property
    def value(self) -> Float[Tensor, "token=4 d=2"]:
        """X @ W_V: one row a token."""
        return self.X @ self.W_V


def four_tokens(*, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None) -> FourTokens:
    """Return the book's example: X (4, 3) and W_Q, W_K, W_V (3, 2), all of them small integers.

    Parameters
    ----------
    dtype, device
        Of every tensor, a floating dtype; default: float32 on PyTorch's default device.

    Returns
    -------
    FourTokens
        tokens, X, W_Q, W_K, W_V, and the products query, key and value (4, 2).
        The entries of query @ key.mT are integers from -2 to 4.

    Raises
    ------
    TypeError
        A dtype that cannot hold negative and broken numbers.

    Examples
    --------
    >>> four = four_tokens()
    >>> (four.query @ four.key.mT).int()
    tensor([[ 1,  0, -1,  2],
            [ 1,  4, -1,  4],
            [ 2,  0, -2,  4],
            [ 1,  2, -1,  3]], dtype=torch.int32)

    References
    ----------
    The tokens a, b, c, D and their shapes follow Gabriel Mongaras, "How Do
    Self-Attention Masks Work?" (2022); the numbers are this book's own.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise type_error("a floating dtype", f"{dtype}", "an integer dtype, which attention cannot use")

    def tensor(rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, dtype=dtype, device=device)

    return FourTokens(
        tokens=("a", "b", "c", "D"),
        X=tensor([[1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 2]]),
        W_Q=tensor([[-1, 1], [1, 1], [1, 0]]),
        W_K=tensor([[-1, 0], [1, -1], [1, 1]]),
        W_V=tensor([[0, -1], [-1, 0], [1, 1]]),
    )
