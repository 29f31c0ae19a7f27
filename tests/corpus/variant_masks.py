"""Padding masks that are not used, not everywhere, or not as they were meant."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpus.case import HEADS, WIDTH
from corpus.padded_case import variant
from corpus.padded_inputs import INSIDE, LEFT, RIGHT, laid_out, nonzero, without_keep
from corpus.padded_inputs import right as right_side
from corpus.padded_parts import (
    Padded,
    Placed,
    attending,
    biased,
    columns,
    counted,
    embedding,
    seeing,
    special,
)
from corpus.parts import Attention, Native, both_ways, by_key, lower, made, right, softmax, unmasked
from corpus.registry import FIRST, LAST

UNUSED = {"cause": "mask unused"}


def _causal_only(scores: Tensor, keep: Tensor, training: bool) -> Tensor:
    return right(scores, None, training)


def _after_softmax(scores: Tensor, keep: Tensor, training: bool) -> Tensor:
    return scores.softmax(-1) * by_key(keep)


def _as_if_on_the_right(scores: Tensor, keep: Tensor) -> Tensor:
    return lower(scores) & by_key(torch.arange(keep.shape[1]) < keep.sum(1, keepdim=True))


class _Windows(Attention):
    """Each window of four sees itself; what is missing to a multiple of four is zeros, which are not masked."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor) -> Tensor:
        length, missing = query.shape[2], -query.shape[2] % 4
        query, key, value = (F.pad(tokens, (0, 0, 0, missing)).unflatten(2, (-1, 4)) for tokens in (query, key, value))
        scores = query @ key.mT
        seen = F.pad(keep, (0, missing), value=True).unflatten(1, (-1, 4))[:, None, :, None]
        return (softmax(scores, seen) @ value).flatten(2, 3)[:, :, :length]


class _LinearAttention(Attention):
    """Linear attention in both directions; padded values are set to 0, and their keys still count."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor) -> Tensor:
        query, key = F.elu(query) + 1, F.elu(key) + 1
        total = key.mT @ (value * keep[:, None, :, None])
        return query @ total / (query * key.sum(2, keepdim=True)).sum(-1, keepdim=True)


class _Guessing(Padded):
    def __init__(self) -> None:
        super().__init__(Attention(both_ways), Attention(both_ways), embed=Placed())

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        return super().forward(ids, ids != 1)


class _Repeated(nn.Module):
    """nn.MultiheadAttention wants (batch * head, query, key), sample by sample; the mask comes head by head."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        blocked = (~keep)[:, None].expand(-1, x.shape[1], -1).repeat(HEADS, 1, 1)
        return self.inner(x, x, x, attn_mask=blocked, need_weights=False)[0]


class _OneTooLong(Padded):
    """An encoder that is given lengths, and reads one token more."""

    def __init__(self) -> None:
        super().__init__(Attention(both_ways), Attention(both_ways), embed=Placed(columns))

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return super().forward(ids, torch.arange(ids.shape[1]) <= lengths[:, None])


class _IdsAlone(Padded):
    """An encoder that has no argument for a mask."""

    def __init__(self) -> None:
        super().__init__(Attention(both_ways), Attention(both_ways), embed=Placed(columns))

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids, torch.ones_like(ids, dtype=torch.bool))


def _told(x: Tensor, keep: Tensor) -> dict[str, Tensor]:
    return {"key_padding_mask": keep.to(x) - 1.0}


variant(
    "attention_mask_never_used",
    "The model accepts the mask and does not use it.",
    attending(unmasked),
    "jingyaogong/minimind-v#76",
    "facebookresearch/pytext#1436",
    **RIGHT,
    where=FIRST,
    **UNUSED,
)
variant(
    "attention_mask_in_first_layer_only",
    "The mask reaches the first layer only.",
    attending(both_ways, unmasked),
    **RIGHT,
    where=LAST,
    **UNUSED,
)
variant(
    "attention_mask_in_last_layer_only",
    "The mask reaches the last layer only, when padding is in all tokens already.",
    attending(unmasked, both_ways),
    **RIGHT,
    where=FIRST,
    **UNUSED,
)
variant(
    "causal_mask_replaces_left_padding_mask",
    "Left padding stands before every token, and the causal mask alone is used.",
    attending(_causal_only),
    "akanyaani/gpt-2-tensorflow2.0#35",
    **LEFT,
    where=FIRST,
    **UNUSED,
)
variant(
    "causal_mask_replaces_interior_padding_mask",
    "Padding between prompt and answer is seen by the answer, for the mask is causal alone.",
    attending(_causal_only),
    **INSIDE,
    where=FIRST,
    **UNUSED,
)
variant(
    "key_mask_on_the_query_axis",
    "The mask gets its new axis in the wrong place and blocks padded queries, not padded keys.",
    attending(seeing(lambda scores, keep: keep[:, None, :, None])),
    "hyunwoongko/transformer#40",
    **RIGHT,
    where=FIRST,
)
variant(
    "keep_taken_for_padding",
    "True means real where the layer takes it for padding.",
    attending(seeing(lambda scores, keep: ~by_key(keep))),
    **RIGHT,
    where=FIRST,
)
variant(
    "mask_built_for_the_wrong_side",
    "The mask is built from lengths as if padding were on the right, and it is on the left.",
    attending(seeing(_as_if_on_the_right)),
    **LEFT,
    where=FIRST,
)
variant(
    "mask_of_the_longest_sample",
    "All samples get the mask of the longest of the batch.",
    attending(seeing(lambda scores, keep: by_key(keep.any(0, keepdim=True)))),
    **RIGHT,
    where=FIRST,
)
variant(
    "minus_ten_for_masked",
    "Masked scores are lowered by 10, which leaves them a weight.",
    attending(biased(lambda scores, keep: -10.0 * ~by_key(keep), unmasked)),
    "ohdearquant/lattice#374",
    **RIGHT,
    where=FIRST,
)
variant(
    "minus_a_billionth_for_masked",
    "Masked scores are set to -1e-9 where -1e9 was meant.",
    attending(lambda scores, keep, training: softmax(scores, by_key(keep), -1e-9)),
    "Shujun-He/RibonanzaNet#5",
    "awslabs/gluonts#1401",
    **RIGHT,
    where=FIRST,
)
variant(
    "mask_of_zeros_and_ones_added",
    "The mask of zeros and ones is added to the scores as it is.",
    attending(biased(lambda scores, keep: by_key(keep).float(), unmasked)),
    **RIGHT,
    where=FIRST,
)
variant(
    "float_key_padding_mask_added",
    "nn.MultiheadAttention gets a mask in floating point, and adds it.",
    made(lambda: Padded(Native(_told), Native(_told))),
    **RIGHT,
    where="layers.0.attention.inner",
)
variant(
    "mask_after_softmax",
    "Weights of padding are set to 0 after softmax, and the others do not add up to 1.",
    attending(_after_softmax),
    "gabrielmittag/NISQA#17",
    **RIGHT,
    where=FIRST,
)
variant(
    "windows_filled_without_mask",
    "Windows of four are filled up with zeros, which are keys like others.",
    made(lambda: Padded(_Windows(), _Windows())),
    "Tencent-Hunyuan/flex-block-attn#2",
    **RIGHT,
    where=FIRST,
)
variant(
    "linear_attention_counts_padded_keys",
    "Linear attention sets padded values to 0, and padded keys still count in what it divides by.",
    special(_LinearAttention, place=counted),
    "fla-org/flash-linear-attention#1263",
    **RIGHT,
    where=FIRST,
)
variant(
    "padding_embedding_summed",
    "The sum of all words, whose padding has an embedding too, is added to each.",
    embedding(lambda tokens, ids, keep: tokens.sum(1, keepdim=True)),
    **RIGHT,
    where="embed",
    **UNUSED,
)
variant(
    "mask_guessed_from_another_padding_id",
    "The model makes its mask from the ids and takes 1 for padding, where 0 is.",
    made(_Guessing),
    "hyunwoongko/transformer#11",
    **RIGHT,
    where=FIRST,
)
variant(
    "no_argument_for_a_mask",
    "The model is given ids alone, and nothing tells it which of them are padding.",
    made(_IdsAlone),
    "triton-inference-server/fastertransformer_backend#53",
    **laid_out(lambda seed: right_side(seed)["ids"], keep=nonzero),
    where=FIRST,
    **UNUSED,
)
variant(
    "lengths_taken_one_too_long",
    "The mask is made from lengths with <= in the place of <, and shows the first padding.",
    made(_OneTooLong),
    **laid_out(without_keep(right_side, lengths=lambda given: given["keep"].sum(1)), keep=nonzero),
    where=FIRST,
)
variant(
    "mask_repeated_for_the_heads_in_the_wrong_order",
    "The mask is repeated head by head where the layer reads it sample by sample.",
    made(lambda: Padded(_Repeated(), _Repeated())),
    **RIGHT,
    where="layers.0.attention.inner",
)
