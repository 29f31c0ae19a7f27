"""What does nn.MultiheadAttention want to be told?"""

import torch
from torch import nn

from attnmask.exercises.task import Mistake, Task


def multihead_arguments(keep):
    """Write the two masks that nn.MultiheadAttention takes.

    The batch is padded, and each token may look at itself and at those before it.

    - keep: bool (batch, token), True = real

    Return a dict: "attn_mask", bool (token, token), and "key_padding_mask", bool
    (batch, token).
    """
    length = keep.shape[1]
    future = torch.ones(length, length, dtype=torch.bool, device=keep.device).triu(1)
    return {"attn_mask": future, "key_padding_mask": ~keep}


def spec(keep):
    length = keep.shape[1]
    return {
        "attn_mask": torch.tensor([[key > query for key in range(length)] for query in range(length)]),
        "key_padding_mask": torch.tensor([[not real for real in sample] for sample in keep.tolist()]),
    }


def cases(draw):
    for batch, length in [(1, 2), (1, 3), (2, 3), (3, 2), (3, 3), (4, 5)]:
        yield {"keep": draw.real(batch, length)}


def both(keep, future, padded):
    return {"attn_mask": future, "key_padding_mask": padded}


def upper(keep, diagonal=1):
    return torch.ones(keep.shape[1], keep.shape[1], dtype=torch.bool).triu(diagonal)


TASK = Task(
    multihead_arguments,
    spec,
    cases,
    chapter="10",
    place=11,
    hints=(
        "In both arguments True means blocked.",
        "The future is above the diagonal: triu(1). The padding is what is not real.",
    ),
    mistakes=(
        Mistake(
            "inverted polarity",
            lambda keep: both(keep, ~upper(keep), keep),
            "In nn.MultiheadAttention True means blocked, in both arguments.",
        ),
        Mistake(
            "inverted polarity (attn_mask)",
            lambda keep: both(keep, ~upper(keep), ~keep),
            "In attn_mask True means blocked too; it is F.scaled_dot_product_attention where True means 'may attend'.",
        ),
        Mistake(
            "inverted polarity (key_padding_mask)",
            lambda keep: both(keep, upper(keep), keep),
            "In key_padding_mask True means padding.",
        ),
        Mistake(
            "own token hidden",
            lambda keep: both(keep, upper(keep, 0), ~keep),
            "triu() blocks the diagonal too, and row 0 is left with no key at all: triu(1).",
        ),
        Mistake(
            "next token visible",
            lambda keep: both(keep, upper(keep, 2), ~keep),
            "triu(2) leaves the key one place later open: triu(1).",
        ),
        Mistake(
            "the past hidden",
            lambda keep: both(keep, upper(keep).mT, ~keep),
            "The future lies above the diagonal, where the key's place is larger: triu(1).",
        ),
        Mistake(
            "padding merged into attn_mask",
            lambda keep: both(keep, upper(keep) | ~keep[:, None], ~keep),
            "attn_mask has no axis for the batch: (token, token). The padding goes into the other argument.",
        ),
        Mistake(
            "no causal mask",
            lambda keep: both(keep, torch.zeros_like(upper(keep)), ~keep),
            "Your attn_mask blocks nothing.",
        ),
        Mistake(
            "no padding mask",
            lambda keep: both(keep, upper(keep), torch.zeros_like(keep)),
            "Your key_padding_mask blocks nothing.",
        ),
        Mistake(
            "an additive attn_mask",
            lambda keep: both(keep, nn.Transformer.generate_square_subsequent_mask(keep.shape[1]), ~keep),
            "nn.MultiheadAttention takes numbers as well, and adds them; asked for was a bool mask.",
        ),
        Mistake(
            "None for attn_mask",
            lambda keep: both(keep, None, ~keep),
            "Without attn_mask nothing is causal; is_causal=True is a hint about a mask, not a mask.",
        ),
        Mistake(
            "None for key_padding_mask", lambda keep: both(keep, upper(keep), None), "Without it, padding is seen."
        ),
    ),
    groups={"batch 1": lambda case: len(case["keep"]) == 1},
)
