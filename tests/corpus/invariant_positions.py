"""Positions that do not mind the padding: given, counted from the mask, or only their distances used."""

import math

import torch
from torch import Tensor

from corpus.padded_case import invariant
from corpus.padded_inputs import (
    INSIDE,
    LEFT,
    LEFT_PAIR,
    PAIR,
    RIGHT,
    both_sides,
    laid_out,
    left,
    nonzero,
    right,
    sized,
    with_other,
    without_keep,
)
from corpus.padded_parts import (
    SLOPES,
    Padded,
    Placed,
    RelativeBias,
    Rotary,
    Translation,
    attending,
    biased,
    columns,
    counted,
    placing,
    seeing,
    special,
    turned,
)
from corpus.parts import Attention, both_ways, by_key, lower, made
from corpus.parts import right as causal_kept


def _places(given: dict[str, Tensor]) -> Tensor:
    return counted(given["ids"], given["keep"])


def _arbitrary(given: dict[str, Tensor]) -> Tensor:
    """Positions with a gap after the second token, as where something was left out."""
    return (_places(given) + 3 * (_places(given) > 1)) * given["keep"]


def _from_ids(ids: Tensor, keep: Tensor) -> Tensor:
    return (ids != 0).long().cumsum(1) * (ids != 0)


def _last_places(ids: Tensor, keep: Tensor) -> Tensor:
    return keep.long().flip(1).cumsum(1).flip(1)


def _distance_of_columns(scores: Tensor, keep: Tensor) -> Tensor:
    place = torch.arange(scores.shape[-1])
    return -SLOPES * (place[:, None] - place).abs()


def _distance_from_the_end(scores: Tensor, keep: Tensor) -> Tensor:
    return -SLOPES * torch.arange(scores.shape[-1]).flip(0)


def _counted_keys(scores: Tensor, keep: Tensor) -> Tensor:
    return SLOPES * (keep.long().cumsum(1) * keep)[:, None, None, :]


def _window(scores: Tensor, keep: Tensor) -> Tensor:
    return lower(scores) & ~lower(scores, -3) & by_key(keep)


def _real_window(scores: Tensor, keep: Tensor) -> Tensor:
    place = counted(keep, keep)[:, None]
    distance = place[..., :, None] - place[..., None, :]
    return (distance >= 0) & (distance < 3) & by_key(keep) & lower(scores)


def _real_chunks(scores: Tensor, keep: Tensor) -> Tensor:
    chunk = counted(keep, keep)[:, None] // 3
    return lower(scores) & by_key(keep) & (chunk[..., :, None] == chunk[..., None, :])


def _log_real_length(scores: Tensor, keep: Tensor, training: bool) -> Tensor:
    length = keep.sum(1)[:, None, None, None]
    return both_ways(scores * (length + 1).to(scores).log() / math.log(4), keep, training)


class _GivenPlaces(Padded):
    """A decoder that is given its positions."""

    def forward(self, ids: Tensor, keep: Tensor, position_ids: Tensor) -> Tensor:
        return self.after_embedding(self.embed.tokens(ids) + self.embed.positions(position_ids), keep, keep)


class _GivenAngles(Attention):
    """Rotary positions by the count of real tokens, with a base for each sample's own length."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor) -> Tensor:
        place, base = counted(keep, keep), 100.0 * (keep.sum(1)[:, None, None].to(query) / 4).clamp(min=1)
        return super().attend(turned(query, place, base), turned(key, place, base), value, keep)


class _FromIds(Padded):
    """A decoder that is given ids alone, and takes all that are not 0 for real."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids, ids != 0)


class _CausalAlone(Padded):
    """A decoder that is given ids alone and takes all of them for real."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids, torch.ones_like(ids, dtype=torch.bool))


BY_DISTANCE = {"rounding": 1e-9}  # other numbers whose differences are the same

invariant(
    "position_ids_given",
    "Prompts are padded on the left, and their positions are given.",
    made(_GivenPlaces),
    **laid_out(with_other(left, position_ids=_places), at=0),
)
invariant(
    "position_ids_given_with_a_gap",
    "Positions are given, and they leave out a few numbers.",
    made(_GivenPlaces),
    **laid_out(with_other(left, position_ids=_arbitrary), at=0),
)
invariant(
    "positions_counted_from_the_mask",
    "Prompts are padded on the left, and positions are the running sum of the mask.",
    placing(counted),
    **LEFT,
)
invariant(
    "interior_padding_closed_up",
    "Padding stands in between, and positions count real tokens only.",
    placing(counted),
    **INSIDE,
)
invariant(
    "padding_on_both_sides",
    "Padding stands before and after the tokens, and positions count real tokens only.",
    placing(counted),
    **laid_out(both_sides, at=0),
)
invariant(
    "positions_counted_down_to_the_last_real_token",
    "Positions are counted from the end, padding left out.",
    placing(_last_places, both_ways),
    **RIGHT,
)
invariant(
    "roberta_positions_from_ids",
    "Positions count the ids that are not padding, from 1, and padding has position 0.",
    made(lambda: _FromIds(Attention(both_ways), Attention(both_ways), embed=Placed(_from_ids))),
    **laid_out(without_keep(left), at=0, keep=nonzero),
)
invariant(
    "encoder_padded_on_the_right",
    "Positions are columns, which right padding does not move, and the mask is right.",
    placing(columns, both_ways),
    **RIGHT,
)
invariant(
    "causal_decoder_padded_on_the_right_without_mask",
    "Padding stands after every token, where a causal mask never looks; the ids are all that is given.",
    made(lambda: _CausalAlone(embed=Placed(columns))),
    **laid_out(lambda seed: right(seed)["ids"], keep=nonzero),
)
invariant(
    "rotary_padded_on_the_left",
    "Rotary positions are columns, and only their distances count, up to rounding.",
    special(lambda: Rotary(columns)),
    **LEFT,
    **BY_DISTANCE,
)
invariant(
    "rotary_padded_on_both_sides_in_an_encoder",
    "The same in an encoder with padding before and after.",
    special(lambda: Rotary(columns, weigh=both_ways)),
    **laid_out(both_sides, at=0),
    **BY_DISTANCE,
)
invariant(
    "rotary_interior_padding_closed_up",
    "Padding stands in between, and queries and keys are turned by the count of real tokens.",
    special(lambda: Rotary(counted)),
    **INSIDE,
)
invariant(
    "rotary_base_by_the_real_length",
    "The base of rotary positions grows with each sample's own length.",
    special(_GivenAngles),
    **RIGHT,
)
invariant(
    "alibi_padded_on_the_left",
    "A penalty grows with the distance of the columns, and padding on the left moves both alike.",
    attending(biased(_distance_of_columns), place=None),
    **LEFT,
)
invariant(
    "alibi_from_the_last_column",
    "The penalty is counted from the last column, and softmax does not mind what all keys share.",
    attending(biased(_distance_from_the_end), place=None),
    **RIGHT,
    **BY_DISTANCE,
)
invariant(
    "alibi_counted_from_the_mask",
    "Keys get a bias by the count of real tokens, as in BLOOM, with padding in between.",
    attending(biased(_counted_keys), place=None),
    **INSIDE,
)
invariant(
    "relative_bias_padded_on_the_left",
    "A learned bias for each distance of columns, as in T5.",
    special(lambda: RelativeBias(columns)),
    **LEFT,
)
invariant(
    "relative_bias_both_ways",
    "The same in an encoder.",
    special(lambda: RelativeBias(columns, weigh=both_ways)),
    **LEFT,
)
invariant(
    "sliding_window_padded_on_the_right",
    "A window of three keys, with padding after the tokens.",
    attending(seeing(_window), place=columns),
    **RIGHT,
)
invariant(
    "sliding_window_padded_on_the_left",
    "A window of three keys, which may reach into masked padding and find nothing.",
    attending(seeing(_window)),
    **LEFT,
)
invariant(
    "sliding_window_of_real_tokens",
    "Padding stands in between, and the window counts real tokens.",
    attending(seeing(_real_window)),
    **INSIDE,
)
invariant(
    "chunks_from_the_first_real_token",
    "Local attention cuts the real tokens into chunks of three, with padding on the left.",
    attending(seeing(_real_chunks)),
    **LEFT,
)
invariant(
    "scores_times_log_of_the_real_length",
    "Scores are multiplied by the logarithm of the number of real tokens.",
    attending(_log_real_length),
    **RIGHT,
)
invariant(
    "one_real_token",
    "One sample has a single real token, and another no padding.",
    attending(causal_kept),
    **LEFT | {"inputs": sized(left, 1, 7, 3)},
)
invariant(
    "no_padding_at_all",
    "No sample has any padding.",
    attending(causal_kept),
    **LEFT | {"inputs": sized(left, 7, 7)},
)
invariant(
    "translation_padded_on_the_right",
    "Source and target are padded, each with its mask.",
    made(Translation),
    **PAIR,
)
invariant(
    "translation_padded_on_the_left",
    "The same with padding on the left and positions counted from the masks.",
    made(Translation),
    **LEFT_PAIR,
)
