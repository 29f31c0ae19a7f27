"""Masks wrong by value, shape, axis, layer or head."""

import torch
from torch import Tensor, nn

from corpus.case import HEADS, LENGTH, WIDTH
from corpus.inputs import outliers, six_padded, states
from corpus.parts import Attention, Decoder, Native, by_key, lower, made, mixing, right, softmax, unmasked, weighing
from corpus.registry import FIRST, LAST, PAD_CELLS, PADDED, TINY, fault

fault(
    "mask_inverted",
    "The mask says True = blocked, and the function it is given to reads True = may attend: PyTorch has both readings.",
    weighing(lambda scores, keep, training: softmax(scores, ~lower(scores))),
    where=FIRST,
)
fault(
    "zero_one_mask_added",
    "A mask of ones and zeros is added to the scores, so a blocked key only loses 1.",
    weighing(lambda scores, keep, training: (scores + lower(scores).to(scores)).softmax(-1)),
    where=FIRST,
)
fault(
    "zero_one_padding_mask_added",
    "The tokenizer's ones and zeros are added to the scores without first being turned into minus infinity.",
    weighing(lambda scores, keep, training: (scores + by_key(keep).to(scores)).softmax(-1)),
    where=FIRST,
    **PADDED,
    **PAD_CELLS,
)
fault(
    "filled_with_minus_one",
    "Blocked scores are set to -1 where minus infinity was meant.",
    weighing(lambda scores, keep, training: softmax(scores, lower(scores), -1.0)),
    where=FIRST,
)
fault(
    "multiplied_after_softmax",
    "The weights are multiplied by the mask after the softmax, whose sum has seen every key.",
    weighing(lambda scores, keep, training: scores.softmax(-1) * lower(scores)),
    where=FIRST,
)
fault(
    "renormalised_after_softmax",
    "Weights are masked after the softmax and divided by their sum: 0/0 once a blocked score is far ahead.",
    made(lambda: Attention(_renormalised)),
    inputs=states,
    pair=outliers,
)
fault(
    "integer_mask_negated",
    "~ on an integer mask gives -1 and -2, both of them true, so every key is open.",
    weighing(lambda scores, keep, training: softmax(scores, (~(~lower(scores)).int()).bool())),
    where=FIRST,
)
fault(
    "key_padding_mask_inverted",
    "nn.MultiheadAttention wants True = ignore in key_padding_mask and is given True = keep.",
    made(lambda: Decoder(*(Native(lambda x, keep: {"key_padding_mask": keep}) for _ in range(2)))),
    where="layers.0.attention.inner",
    **PADDED,
    **PAD_CELLS,
)
fault(
    "soft_cap_after_mask",
    "Scores are capped by 20 tanh(score / 20) after the mask, which turns minus infinity into -20.",
    weighing(lambda scores, keep, training: (20 * (scores.masked_fill(~lower(scores), -1e9) / 20).tanh()).softmax(-1)),
    dtype=TINY,
    where=FIRST,
)
fault(
    "filled_with_minus_twenty",
    "Blocked scores are set to -20, which leaves two parts in a thousand million: below float32, not below float64.",
    weighing(lambda scores, keep, training: softmax(scores, lower(scores), -20.0)),
    dtype=TINY,
    where=FIRST,
)


def _renormalised(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    weights = scores.softmax(-1) * lower(scores)
    return weights / weights.sum(-1, keepdim=True)


class _FoldedHeads(Attention):
    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        def refold(x: Tensor) -> Tensor:
            return x.transpose(1, 2).reshape(x.shape)  # view(batch, head, token, d) with no transpose

        return super().attend(refold(query), refold(key), refold(value), keep)


fault(
    "padding_mask_read_as_query_by_key",
    "A (batch, key) mask broadcasts as (query, key) where there are as many samples as tokens.",
    weighing(lambda scores, keep, training: softmax(scores, keep)),
    **(PADDED | {"inputs": six_padded}),
    **PAD_CELLS,
    where=FIRST,
)
fault(
    "sample_axis_read_as_head_axis",
    "A (batch, query, key) mask broadcasts over the heads where there are as many samples as heads.",
    weighing(lambda scores, keep, training: softmax(scores, keep[:, None, :].expand(-1, scores.shape[-2], -1))),
    at=(0, 1),
    cells=[(0, 4), (0, 5)],
    where=FIRST,
    **PADDED,
)
fault(
    "repeat_in_place_of_repeat_interleave",
    "nn.MultiheadAttention wants the batch*heads masks sample by sample; repeat lays them out head by head.",
    made(lambda: Decoder(*(Native(_repeated) for _ in range(2)))),
    cells=[(0, 4), (0, 5)],
    where="layers.0.attention.inner",
    **PADDED,
)
fault(
    "mask_transposed",
    "Query and key axes of the causal mask are swapped, so each token sees itself and the future.",
    weighing(lambda scores, keep, training: softmax(scores, lower(scores).mT)),
    where=FIRST,
)
fault(
    "softmax_over_queries",
    "The softmax runs over the query axis, so each weight is divided by a sum over later queries.",
    weighing(lambda scores, keep, training: scores.masked_fill(~lower(scores), -torch.inf).softmax(-2)),
    where=FIRST,
)
fault(
    "heads_folded_without_transpose",
    "(batch, token, width) is reshaped straight to (batch, head, token, d), so token and head are mixed up.",
    made(lambda: Decoder(_FoldedHeads(), _FoldedHeads())),
    where=FIRST,
)
fault(
    "batch_first_forgotten",
    "A PyTorch layer with batch_first=False gets batch-first tokens and attends across the samples.",
    mixing(lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, 16, dropout=0.0)),
    cells=[(1, position) for position in range(LENGTH)],
    where="mixer.self_attn",
)
fault(
    "mask_in_first_layer_only",
    "The mask reaches the first layer and not the others.",
    weighing(right, unmasked, unmasked),
    where=LAST,
)
fault(
    "mask_missing_in_last_layer",
    "The last of three layers has no mask.",
    weighing(right, right, unmasked),
    where="layers.2.attention.out",
)
fault(
    "one_head_unmasked",
    "The last head has no mask.",
    weighing(
        lambda scores, keep, training: softmax(
            scores, lower(scores) | (torch.arange(HEADS) == HEADS - 1)[:, None, None]
        )
    ),
    where=FIRST,
)
fault(
    "single_pair_open",
    "Query 2 may look at key 5, in the first layer; every other pair is right.",
    weighing(lambda scores, keep, training: softmax(scores, _with_pair(scores, 2, 5)), right),
    at=(0, 2),
    cells=[(0, 5)],
    where=FIRST,
)
fault(
    "single_pair_open_in_one_head_of_one_sample",
    "Query 4 may look at key 6 in one head of the last layer, in the second sample only.",
    weighing(right, lambda scores, keep, training: softmax(scores, _one_cell(scores, 1, 1, 4, 6))),
    at=(1, 4),
    cells=[(1, 6)],
    where=LAST,
)


def _repeated(x: Tensor, keep: Tensor | None) -> dict[str, Tensor]:
    return {"attn_mask": ~keep[:, None, :].expand(-1, x.shape[1], -1).repeat(HEADS, 1, 1)}


def _with_pair(scores: Tensor, query: int, key: int) -> Tensor:
    seen = lower(scores)
    seen[query, key] = True
    return seen


def _one_cell(scores: Tensor, *cell: int) -> Tensor:
    seen = lower(scores).expand(scores.shape).clone()
    seen[cell] = True
    return seen
