"""Leaks that are tiny, cancel out, have no gradient, or are hard to reach by chance."""

import torch
from torch import Tensor, nn

from corpus.case import LENGTH, VOCABULARY, WIDTH, Inputs
from corpus.inputs import placed, states, token_ids, with_token
from corpus.parts import (
    Apply,
    Attention,
    Decoder,
    embedding,
    lower,
    made,
    mapping,
    mixing,
    neighbour,
    on_states,
    right,
    softmax,
    weighing,
)
from corpus.registry import FIRST, TINY, fault

SIGNS = torch.tensor([1.0, -1.0]).repeat(VOCABULARY // 2)


def _majority(ids: Tensor, tokens: Tensor) -> Tensor:
    high = (ids > VOCABULARY // 2).sum(1) > ids.shape[1] // 2
    return torch.where(high[:, None, None], tokens, -tokens)


def _quietly_averaged(x: Tensor) -> Tensor:
    with torch.no_grad():
        average = x.mean(1, keepdim=True)
    return x + average


def _low_then_high(seed: int) -> tuple[Inputs, Inputs]:
    before = token_ids(seed)
    after = before.clone()
    before[0, 2:], after[0, 2:] = 1, VOCABULARY - 1
    return before, after


def _from_the_end(ids: Tensor, tokens: Tensor) -> Tensor:
    left = (ids != 0).flip(1).cumsum(1).flip(1)
    return (left[..., None] * torch.arange(1, WIDTH + 1)).to(tokens.dtype).sin()


def _last_set_to_padding(seed: int) -> tuple[Inputs, Inputs]:
    return placed([(0, LENGTH - 1)], [0])(seed)


class _PictureDecoder(Decoder):
    """Token 7 stands for a picture, whose tokens may all see each other: here the whole row may."""

    def __init__(self) -> None:
        super().__init__(*(Attention(self.weigh) for _ in range(2)))

    @staticmethod
    def weigh(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
        return softmax(scores, lower(scores) | keep[:, None, None, None])

    def forward(self, ids: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(ids, (ids == 7).any(1))


class _TwoOutputs(nn.Module):
    """Logits that are right, and a value for each token that has seen the future."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.value = Decoder(), nn.Linear(VOCABULARY, 1)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        logits = self.decoder(ids)
        return {"logits": logits, "value": self.value(logits + logits.mean(1, keepdim=True))}


fault(
    "one_part_in_a_thousand_million",
    "A thousand-millionth of the mean over all tokens is added.",
    mapping(lambda x: x + 1e-9 * x.mean(1, keepdim=True)),
    dtype=TINY,
    where="mixer",
)
fault(
    "cancels_in_the_sum_of_features",
    "The last token is added with alternating signs, so the sum over features hides it.",
    made(lambda: Decoder(tail=Apply(lambda y: y + SIGNS.to(y) * y[:, -1:].mean(-1, keepdim=True)))),
    where="tail",
)
fault(
    "cancels_when_two_tokens_are_equal",
    "The difference of the last two tokens is added: equal tokens hide it.",
    embedding(lambda ids, tokens: tokens[:, -1:] - tokens[:, -2:-1]),
    cells=[(0, LENGTH - 1)],
    where="embed",
)
fault(
    "cancels_between_equal_samples",
    "The difference of two samples' means is added: equal samples hide it.",
    mapping(lambda x: x + (x - x.flip(0)).mean(1, keepdim=True)),
    cells=[(1, position) for position in range(LENGTH)],
    where="mixer",
)
fault(
    "leaks_without_gradient",
    "The mean over all tokens is added under no_grad, so no gradient shows it.",
    mapping(_quietly_averaged),
    where="mixer",
)
fault(
    "leaks_through_a_number",
    "The mean of all tokens leaves the graph by item() and comes back as a scale.",
    mapping(lambda x: x * (1 + x.mean().item())),
    where="mixer",
)
fault(
    "detached_gate",
    "A gate made from the detached last token scales every token.",
    mapping(lambda x: x * x[:, -1:].detach().sigmoid()),
    cells=[(0, LENGTH - 1)],
    where="mixer",
)
fault(
    "majority_picks_the_sign",
    "The majority of the tokens picks one of two embeddings: few single changes tip it.",
    embedding(_majority),
    pair=_low_then_high,
    where="embed",
)
fault(
    "strongest_token_added",
    "The token with the largest norm, found by argmax, is added to each token.",
    mapping(lambda x: x + x[torch.arange(len(x)), x.norm(dim=-1).argmax(1)][:, None]),
    search=True,
    where="mixer",
)
fault(
    "end_token_found_by_argmax",
    "The token with the highest id marks the end, and its embedding is added to each token.",
    embedding(lambda ids, tokens: tokens[torch.arange(len(ids)), ids.argmax(1)][:, None]),
    pair=placed([(0, LENGTH - 1)], [VOCABULARY - 1]),
    where="embed",
)
fault(
    "hard_route_by_the_whole_sequence",
    "The largest feature of the sequence's mean sends the whole sequence to one of eight experts.",
    mapping(lambda x: x * (1 + x.mean(1, keepdim=True).argmax(-1, keepdim=True))),
    search=True,
    where="mixer",
)
fault(
    "one_token_id_opens_the_mask",
    "A special token anywhere in the row opens the whole row.",
    made(_PictureDecoder),
    pair=placed([(0, LENGTH - 2)], [7]),
    where=FIRST,
)
fault(
    "scaled_by_the_number_of_tokens",
    "Embeddings are scaled by how many tokens of the row are not padding.",
    embedding(lambda ids, tokens: tokens * (ids != 0).sum(1)[:, None, None].to(tokens.dtype).sqrt()),
    pair=_last_set_to_padding,
    where="embed",
)
fault(
    "positions_counted_from_the_end",
    "Positions count how many tokens are still to come before the padding.",
    embedding(_from_the_end),
    pair=_last_set_to_padding,
    where="embed",
)
fault(
    "scaled_by_the_largest_score",
    "Scores are divided by the largest of the sequence, taken before masking.",
    weighing(lambda scores, keep, training: softmax(scores / scores.abs().amax((-2, -1), keepdim=True), lower(scores))),
    search=True,
    where=FIRST,
)
fault(
    "top_keys_picked_before_masking",
    "The three best keys are picked before the mask, so a future key takes a place.",
    weighing(lambda scores, keep, training: softmax(scores, _top_before_mask(scores)), right),
    at=(0, 3),
    search=True,
    where=FIRST,
)
fault(
    "second_output_leaks",
    "The logits are right, and a second output adds the mean over all tokens.",
    made(_TwoOutputs),
    where="value",
)


def _top_before_mask(scores: Tensor) -> Tensor:
    best = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, scores.topk(3).indices, True)
    return (best | torch.eye(scores.shape[-1], dtype=torch.bool)) & lower(scores)


class _OneToken(nn.Module):
    """An expert with room for one token of the sequence, which goes to the one that wants it most."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.expert = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        won = torch.zeros_like(x[..., :1]).scatter(1, self.router(x).argmax(1, keepdim=True), 1.0)
        return x + won * self.expert(x)


def _overflow_clears(x: Tensor) -> Tensor:
    power = x.detach().pow(9).sum((1, 2), keepdim=True)
    return x.where(power.isfinite(), x / 2)


def _not_a_number_clears(x: Tensor) -> Tensor:
    return x.where(~x.isnan().any((1, 2), keepdim=True) | x.isnan(), x / 2)


def _infinity_clears(x: Tensor) -> Tensor:
    return x.where(~x.isinf().any((1, 2), keepdim=True) | x.isinf(), x / 2)


def _in_half(x: Tensor) -> Tensor:
    coarse = (64 * x.detach().half().mean(1, keepdim=True)).round() / 64
    return x + coarse.to(x)


def _one_feature(x: Tensor) -> Tensor:
    news = torch.zeros_like(x)
    news[:, 3:4, 5] = x.detach()[:, 4:5, 2]
    return x + news


def _to_six_places(x: Tensor) -> Tensor:
    return x + (1e6 * x[:, -1:]).detach().round() * 1e-6


PAIR_ALONE = {"at": (0, 3), "cells": [(0, 4)], "where": "mixer"}
STATES = {"inputs": states, "where": "0"}

fault(
    "one_neighbour_detached",
    "The fourth token is told the fifth, and no gradient; every other pair is right.",
    mapping(lambda x: x + neighbour(x)),
    **PAIR_ALONE,
)
fault(
    "one_neighbour_detached_by_a_millionth",
    "The fourth token is told a millionth of the fifth, and no gradient.",
    mapping(lambda x: x + 1e-6 * neighbour(x)),
    **PAIR_ALONE,
)
fault(
    "one_neighbour_detached_by_a_thousand_millionth",
    "The fourth token is told a thousand-millionth of the fifth, and no gradient: float32 rounds it away.",
    mapping(lambda x: x + 1e-9 * neighbour(x)),
    dtype=TINY,
    missed="In float32, in which the model is given, it moves no bit.",
    **PAIR_ALONE,
)
fault(
    "one_neighbour_in_one_feature",
    "One feature of the fourth token is told one feature of the fifth, and no gradient.",
    mapping(lambda x: _one_feature(x) if x.shape[1] > 4 else x),
    **PAIR_ALONE,
)
fault(
    "last_token_to_six_places",
    "The last token is added to each, in steps of a millionth and without a gradient.",
    mapping(_to_six_places),
    cells=[(0, LENGTH - 1)],
    where="mixer",
)
fault(
    "dead_gate_on_large_values",
    "A value above five opens a gate for all tokens; below, its output and its gradient are zero.",
    on_states(lambda: Apply(lambda x: x + (x.amax((1, 2), keepdim=True) - 5).relu())),
    pair=with_token(lambda token: 40_000 * token),
    **STATES,
)
fault(
    "expert_with_room_for_one_token",
    "An expert takes the one token of the sequence that its router ranks first.",
    mixing(_OneToken),
    search=True,
    where="mixer",
)
fault(
    "overflow_is_caught_for_all_tokens",
    "A sum over the sequence overflows in float32, and where() then halves every token.",
    on_states(lambda: Apply(_overflow_clears)),
    missed="What is not finite passes every mask, as 0 times infinity is NaN, so audit takes none of it for a leak.",
    pair=with_token(lambda token: 40_000 * token.sign()),
    **STATES,
)
fault(
    "nan_is_caught_for_all_tokens",
    "Where one value is NaN, where() halves every other token.",
    lambda seed: _not_a_number_clears,
    missed="What is not finite passes every mask, as 0 times infinity is NaN, so audit takes none of it for a leak.",
    inputs=states,
    pair=with_token(lambda token: token * torch.nan),
)
fault(
    "infinity_is_caught_for_all_tokens",
    "Where one value is infinite, where() halves every other token.",
    lambda seed: _infinity_clears,
    missed="What is not finite passes every mask, as 0 times infinity is NaN, so audit takes none of it for a leak.",
    inputs=states,
    pair=with_token(lambda token: token * torch.inf),
)
fault(
    "mean_in_half_precision",
    "The mean over the tokens is taken in half precision, in steps of a sixty-fourth and without a gradient.",
    mapping(_in_half),
    search=True,
    where="mixer",
)
fault(
    "scaled_by_the_exponent_of_the_maximum",
    "All tokens are scaled by the power of two below the largest value: block floating point over the sequence.",
    mapping(lambda x: x + x.round(decimals=3) * x.detach().abs().amax((1, 2), keepdim=True).log2().floor().exp2()),
    search=True,
    where="mixer",
)
