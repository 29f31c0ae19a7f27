"""Numbers that pass a mask, large inputs, and masks off by one."""

import torch
from torch import Tensor, nn

from attnmask import sliding_window
from corpus.case import Inputs
from corpus.inputs import altered, outliers, states, token_ids
from corpus.parts import Attention, Decoder, lower, made, softmax, weighing
from corpus.registry import FIRST, LAST, fault


def _opposed() -> nn.Module:
    """Attention with huge scores, in which every token's score with itself is negative."""
    attention = Attention(lambda scores, keep, training: softmax(scores, lower(scores), -1e4))
    with torch.no_grad():
        attention.query.weight.mul_(1000)
        attention.query.bias.zero_()
        attention.key.weight.copy_(-attention.query.weight)
        attention.key.bias.zero_()
    return attention


def _lowest(scores: Tensor) -> Tensor:
    return torch.full_like(scores, torch.finfo(scores.dtype).min)


def _half_outliers(seed: int) -> tuple[Inputs, Inputs]:
    before, after = outliers(seed, 100.0)
    return before.half(), after.half()


fault(
    "filled_with_minus_ten_thousand",
    "Blocked scores are set to -1e4, and training has driven the allowed ones below that.",
    made(_opposed),
    inputs=states,
    at=(0, 0),
)
fault(
    "half_precision_overflow",
    "A score overflows to infinity in float16, and the finite mask added to it cannot bring it down: NaN.",
    made(
        lambda: Attention(
            lambda scores, keep, training: (scores + lower(scores).logical_not() * _lowest(scores)).softmax(-1)
        ).half()
    ),
    inputs=lambda seed: states(seed).half(),
    pair=_half_outliers,
    dtype=torch.float16,
)
fault(
    "outlier_scores_pass_the_mask",
    "Scores above 50 are taken aside and put back after the mask.",
    made(
        lambda: Attention(
            lambda scores, keep, training: scores.masked_fill(~lower(scores) & (scores < 50), -torch.inf).softmax(-1)
        )
    ),
    inputs=states,
    pair=outliers,
)
fault(
    "one_past_the_diagonal",
    "tril(diagonal=1): each token also sees the next one.",
    weighing(lambda scores, keep, training: softmax(scores, lower(scores, 1))),
    cells=[(0, 2)],
    where=FIRST,
)
fault(
    "window_one_too_wide",
    "A window of two earlier keys lets in three: <= in place of <.",
    made(
        lambda: Decoder(Attention(lambda scores, keep, training: softmax(scores, lower(scores) & ~lower(scores, -4))))
    ),
    allowed=sliding_window(2),
    at=(0, 5),
    cells=[(0, 2)],
    where=FIRST,
)
fault(
    "window_grows_with_depth",
    "Each of two layers keeps a window of two, so the stack reaches back four where two were promised.",
    weighing(lambda scores, keep, training: softmax(scores, lower(scores) & ~lower(scores, -3))),
    allowed=sliding_window(2),
    at=(0, 6),
    cells=[(0, 2), (0, 3)],
    where=LAST,
)
fault(
    "mask_buffer_too_short",
    "The mask was made once for 8 tokens, and keys beyond it are open.",
    weighing(lambda scores, keep, training: softmax(scores, lower(scores) | (torch.arange(scores.shape[-1]) >= 8))),
    inputs=lambda seed: token_ids(seed, length=12),
    cells=[(0, position) for position in range(8, 12)],
    where=FIRST,
)
fault(
    "positions_wrap_at_eight",
    "Positions are compared modulo 8, so key 8 looks earlier than query 1; short inputs never show it.",
    weighing(lambda scores, keep, training: softmax(scores, _wrapped(scores))),
    pair=lambda seed: (
        token_ids(seed, length=12),
        altered(token_ids(seed, length=12), None, [(0, 8), (0, 9)], seed),
    ),
    where=FIRST,
)


def _wrapped(scores: Tensor) -> Tensor:
    slot = torch.arange(scores.shape[-1]) % 8
    return slot <= slot[:, None]
