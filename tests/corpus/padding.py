"""Padding, packed documents and prefixes."""

import torch
from torch import Tensor, nn

from corpus.case import WIDTH
from corpus.inputs import causal_documents, causal_kept, causal_prefix, left_padded, packed, with_prefix
from corpus.parts import (
    Apply,
    Attention,
    Channels,
    Decoder,
    Recurrent,
    both_ways,
    by_key,
    lower,
    made,
    right,
    softmax,
    unmasked,
    weighing,
)
from corpus.registry import FIRST, LAST, PAD_CELLS, PADDED, fault


class _PaddedMixer(Decoder):
    """An encoder that keeps its padding mask, with a mixer in between."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__(Attention(both_ways), Attention(both_ways), mixer=mixer)


fault(
    "padding_mask_in_first_layer_only",
    "The padding mask reaches the first layer only.",
    weighing(both_ways, unmasked),
    where=LAST,
    **PADDED,
    **PAD_CELLS,
)
fault(
    "padding_mask_on_queries",
    "The padding mask blocks the padded queries and leaves the padded keys open.",
    weighing(lambda scores, keep, training: softmax(scores, keep[:, None, :, None])),
    where=FIRST,
    **PADDED,
    **PAD_CELLS,
)
fault(
    "left_padding_unmasked",
    "Prompts are padded on the left, and the causal mask alone lets every token see the padding.",
    weighing(lambda scores, keep, training: right(scores, None, training)),
    inputs=left_padded,
    of="ids",
    allowed=causal_kept,
    at=(0, 4),
    where=FIRST,
    **PAD_CELLS,
)
fault(
    "padding_in_the_mean",
    "The mean over the tokens counts the padding.",
    made(lambda: _PaddedMixer(Apply(lambda x: x + x.mean(1, keepdim=True)))),
    where="mixer",
    **PADDED,
    **PAD_CELLS,
)
fault(
    "convolution_reads_padding",
    "A convolution in an encoder reads past the last real token.",
    made(lambda: _PaddedMixer(Channels(nn.Conv1d(WIDTH, WIDTH, 3, padding=1)))),
    at=(0, 3),
    cells=[(0, 4)],
    where="mixer",
    **PADDED,
)
fault(
    "backward_recurrence_starts_in_padding",
    "A two-way recurrent encoder starts backwards in the padding.",
    made(lambda: _PaddedMixer(Recurrent(nn.GRU(WIDTH, WIDTH, batch_first=True, bidirectional=True)))),
    where="mixer.layer",
    **PADDED,
    **PAD_CELLS,
)
fault(
    "packed_documents_only_causal",
    "Documents packed into one row have a causal mask and no document mask.",
    weighing(lambda scores, keep, training: right(scores, None, training)),
    inputs=packed,
    of="ids",
    allowed=causal_documents,
    at=(0, 4),
    cells=[(0, 0), (0, 1)],
    where=FIRST,
)
fault(
    "recurrence_crosses_documents",
    "Attention keeps to the document, and a recurrent layer carries its state across.",
    made(
        lambda: Decoder(
            Attention(lambda s, ids, t: by_document(s, ids)),
            Attention(lambda s, ids, t: by_document(s, ids)),
            mixer=Recurrent(nn.GRU(WIDTH, WIDTH, batch_first=True)),
        )
    ),
    inputs=packed,
    of="ids",
    allowed=causal_documents,
    at=(0, 3),
    cells=[(0, 2)],
    where="mixer.layer",
)
fault(
    "prefix_reads_on",
    "Queries in the prefix see every key, not the prefix alone.",
    weighing(lambda scores, lengths, training: softmax(scores, lower(scores) | in_prefix(scores, lengths).mT)),
    inputs=with_prefix,
    of="ids",
    allowed=causal_prefix,
    cells=[(0, 5)],
    where=FIRST,
)


def by_document(scores: Tensor, ids: Tensor) -> Tensor:
    return softmax(scores, lower(scores) & (ids[:, None, :, None] == ids[:, None, None, :]))


def in_prefix(scores: Tensor, lengths: Tensor) -> Tensor:
    inside = torch.arange(scores.shape[-1]) < lengths[:, None]
    return by_key(inside).expand(-1, -1, scores.shape[-2], -1)
