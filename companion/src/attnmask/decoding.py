"""How does a model write, one token at a time?"""

from collections.abc import Callable

import torch
from jaxtyping import Integer
from torch import Tensor

from attnmask._check import count, integer_table, kind_of, type_error, value_error


def greedy(
    logits: Callable[[Tensor], Tensor],
    ids: Integer[Tensor, "batch token"],
    steps: int,
    *,
    end: int | None = None,
    pad: int = 0,
    cached: bool = False,
) -> Integer[Tensor, "batch token_and_steps"]:
    """Append the likeliest next token, ``steps`` times.

    Parameters
    ----------
    logits
        A function from ids (batch, token) to logits (batch, token, vocabulary). Only
        those of the last token are used.
    ids
        What is there already: prompts, or a start token a sample. The last token of
        every sample has to be real, so prompts are padded on the left.
    steps
        How many tokens to append, 0 or more.
    end, pad
        Behind an ``end`` id that was written, a sample gets ``pad`` ids; None = there is no end.
    cached
        False: ``logits`` is asked for all ids at every step. True: for ``ids`` at first, and
        then for the newest token alone, since it keeps what it has seen, as with a `Cache`.

    Returns
    -------
    Integer[Tensor, "batch token_and_steps"]
        ``ids`` and what was written.

    Raises
    ------
    ValueError, TypeError
        Ids that are no integers of two axes; logits of other axes, or of another batch.

    Examples
    --------
    A model that counts:

    >>> count = lambda ids: torch.nn.functional.one_hot(ids + 1, num_classes=9).float()
    >>> greedy(count, torch.tensor([[3], [5]]), steps=4, end=7)
    tensor([[3, 4, 5, 6, 7],
            [5, 6, 7, 0, 0]])
    """
    written = new = integer_table("ids", ids, "batch, token")
    ended = torch.zeros_like(written[:, :1], dtype=torch.bool)
    for _ in range(count("steps", steps)):
        with torch.no_grad():
            found = logits(new if cached else written)
        _check_logits(found, len(written))
        new = found[:, -1:].argmax(dim=-1).masked_fill(ended, pad)
        ended = ended if end is None else ended | (new == end)
        written = torch.cat([written, new], dim=1)
    return written


def _check_logits(found: object, batch: int) -> None:
    expected = f"logits of shape (batch={batch}, token, vocabulary)"
    if not isinstance(found, Tensor):
        raise type_error(expected, kind_of(found), "the output of a Hugging Face model; give its .logits")
    if found.dim() != 3 or found.shape[0] != batch:
        raise value_error(expected, kind_of(found), "the logits of the last token alone, or of another batch")
