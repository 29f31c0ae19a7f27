"""Encoders with decoders, of which either reads padding."""

from torch import Tensor

from corpus.padded_case import variant
from corpus.padded_inputs import LEFT_PAIR, PAIR
from corpus.padded_parts import Translation, columns
from corpus.parts import made, right, unmasked

UNUSED = {"cause": "mask unused"}


def _causal_only(scores: Tensor, keep: Tensor, training: bool) -> Tensor:
    return right(scores, None, training)


class _Started(Translation):
    """What cross-attention reads is told the mean of the encoded source, padding included."""

    def remember(self, memory: Tensor, keep: Tensor) -> Tensor:
        return memory + memory.mean(1, keepdim=True)


variant(
    "cross_attention_without_source_mask",
    "Cross-attention reads the encoded padding of the source.",
    made(lambda: Translation(memory=unmasked)),
    "facebookresearch/fairseq#318",
    **PAIR,
    where="cross.out",
    **UNUSED,
)
variant(
    "decoder_starts_from_the_mean_of_the_padded_source",
    "The mean of the encoded source, padding included, is added to the memory.",
    made(_Started),
    **PAIR,
    where="cross.out",
    cause="statistics",
)
variant(
    "decoder_sees_its_left_padding",
    "The target is padded on the left, and the decoder's mask is causal alone.",
    made(lambda: Translation(target=_causal_only)),
    **LEFT_PAIR,
    where="decoder.attention.out",
    **UNUSED,
)
variant(
    "decoder_without_position_ids",
    "The target is padded on the left, and its positions are counted from the first column.",
    made(lambda: Translation(place=columns)),
    **LEFT_PAIR,
    where="target_embed",
    cause="positions",
)
