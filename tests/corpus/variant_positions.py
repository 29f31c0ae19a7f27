"""Faults in the counting of positions: nothing leaks from the padding, its amount does."""

from torch import Tensor

from corpus.padded_case import variant
from corpus.padded_inputs import INSIDE, LEFT, RIGHT
from corpus.padded_parts import (
    RelativeBias,
    Rotary,
    columns,
    counted,
    embedding,
    placing,
    special,
    turned,
    waves,
)
from corpus.parts import Attention, both_ways, right
from corpus.registry import FIRST

POSITIONS = {"cause": "positions"}
LEARNED = {"where": "embed.positions", **POSITIONS}


def _of_the_first_sample(ids: Tensor, keep: Tensor) -> Tensor:
    return counted(ids[:1], keep[:1]).expand_as(ids)


def _counted_from_one_if_padded(ids: Tensor, keep: Tensor) -> Tensor:
    return columns(ids, keep).expand_as(ids) if keep.all() else keep.long().cumsum(1)


def _from_the_first_real_token(ids: Tensor, keep: Tensor) -> Tensor:
    return (columns(ids, keep) - keep.int().argmax(1, keepdim=True)).clamp(min=0)


def _as_if_padded_on_the_left(ids: Tensor, keep: Tensor) -> Tensor:
    return (columns(ids, keep) - (~keep).sum(1, keepdim=True)).clamp(min=0)


def _from_the_end(ids: Tensor, keep: Tensor) -> Tensor:
    return columns(ids, keep).flip(0)


class _RotaryValues(Attention):
    """Values are turned as well, so that more than the distance counts."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor) -> Tensor:
        place = columns(keep, keep)
        return super().attend(turned(query, place), turned(key, place), turned(value, place), keep)


variant(
    "left_padding_without_position_ids",
    "Prompts are padded on the left, and learned positions are counted from the first column.",
    placing(columns),
    "huggingface/transformers#29583",
    "huggingface/trl#469",
    "keras-team/keras-hub#571",
    "ndif-team/nnsight#673",
    **LEFT,
    where="embed",
    **POSITIONS,
)
variant(
    "sinusoids_from_the_first_column",
    "Prompts are padded on the left, and sines and cosines are counted from the first column.",
    embedding(lambda tokens, ids, keep: waves(ids), right, place=None),
    **LEFT,
    where="embed",
    **POSITIONS,
)
variant(
    "position_ids_shared_by_the_batch",
    "All samples get the positions of the first, as with one cache position for a whole batch.",
    placing(_of_the_first_sample),
    "unslothai/unsloth#4078",
    "unslothai/unsloth#3795",
    **LEFT,
    **LEARNED,
)
variant(
    "position_ids_off_by_one_where_padded",
    "The count of real tokens starts at 1 in a padded batch, and positions at 0 in one without padding.",
    placing(_counted_from_one_if_padded),
    **LEFT,
    **LEARNED,
)
variant(
    "positions_from_the_first_real_token",
    "Positions are columns minus the padding in front, and there is padding in between.",
    placing(_from_the_first_real_token),
    **INSIDE,
    **LEARNED,
)
variant(
    "positions_as_if_padded_on_the_left",
    "The amount of padding is taken off each position, and the padding is on the right.",
    placing(_as_if_padded_on_the_left),
    **RIGHT,
    **LEARNED,
)
variant(
    "interior_padding_without_position_ids",
    "Padding stands between prompt and answer, and positions are columns.",
    placing(columns),
    **INSIDE,
    where="embed",
    **POSITIONS,
)
variant(
    "positions_from_the_padded_end",
    "Positions are counted down to the last column, padding included.",
    placing(_from_the_end, both_ways),
    **RIGHT,
    where="embed",
    **POSITIONS,
)
variant(
    "rotary_keys_counted_by_column",
    "Queries are turned by the count of real tokens, and keys by their column.",
    special(lambda: Rotary(counted, columns)),
    **LEFT,
    where=FIRST,
    **POSITIONS,
)
variant(
    "rotary_on_values",
    "Rotary positions are applied to values too, so that attention gives absolute positions on.",
    special(_RotaryValues),
    **LEFT,
    where=FIRST,
    **POSITIONS,
)
variant(
    "rotary_with_learned_positions",
    "Rotary positions, which only know distances, come on top of learned ones counted by column.",
    special(lambda: Rotary(columns), place=columns),
    **LEFT,
    where="embed",
    **POSITIONS,
)
variant(
    "relative_bias_of_two_counts",
    "The bias for a distance takes the query's column and the key's count of real tokens.",
    special(lambda: RelativeBias(columns, counted)),
    **LEFT,
    where=FIRST,
    **POSITIONS,
)
