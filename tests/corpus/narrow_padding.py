"""Padding, documents and sources of which too much is hidden; links as in narrow.py."""

import torch
from torch import Tensor

from attnmask import causal, documents, padding, prefix, sliding_window
from corpus.exact_case import TOP, Captioner, narrow
from corpus.inputs import causal_documents, causal_kept, kept, left_padded, packed, token_ids
from corpus.padding import by_document
from corpus.parts import both_ways, by_key, made, right, softmax, weighing
from corpus.registry import PADDED
from corpus.translation import SOURCE

ITSELF = sliding_window(0)
EOS = 2


def with_eos(seed: int) -> dict[str, Tensor]:
    """Return two turns in a row, an end of turn between them, and a mask that takes the end of turn for padding."""
    ids = token_ids(seed)
    ids[ids == EOS] = 1
    ids[:, 3] = EOS
    return {"ids": ids, "keep": ids != EOS}


def unpadded(seed: int) -> dict[str, Tensor]:
    """Return ids, all of them to keep."""
    ids = token_ids(seed)
    return {"ids": ids, "keep": torch.ones_like(ids, dtype=torch.bool)}


def _all_but_last(keep: Tensor) -> Tensor:
    return torch.cat([keep[:, 1:], torch.zeros_like(keep[:, :1])], 1)  # one token shorter, on the right


def _after_first(keep: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(keep[:, :1]), keep[:, 1:]], 1)


def _split_openings(ids: Tensor) -> Tensor:
    first = torch.cat([torch.ones_like(ids[:, :1], dtype=torch.bool), ids[:, 1:] != ids[:, :-1]], 1)
    return torch.where(first, -1 - ids, ids)


def _moved(ids: Tensor) -> Tensor:
    return torch.cat([ids[:, 1:], ids[:, -1:]], 1)


# https://github.com/sgl-project/sglang/pull/20102
narrow(
    "padded_embedding_model_stays_causal",
    "An embedding model should read in both directions, and stays causal behind a right padding mask.",
    weighing(right),
    sees=causal_kept,
    fits="causal() & padding(keep[2, 7])",
    where=TOP,
    **PADDED,
)
# https://github.com/huggingface/transformers/issues/37807
narrow(
    "causal_where_no_mask_is_left",
    "A padding mask that keeps every token is dropped, and attention without a mask falls back to causal.",
    weighing(lambda scores, keep, training: (right if keep.all() else both_ways)(scores, keep, training)),
    inputs=unpadded,
    of="ids",
    allowed=kept,
    sees=causal(),
    where=TOP,
)
# https://github.com/InseeFrLab/torchTextClassifiers/pull/92
narrow(
    "keep_mask_read_as_padding_mask",
    "True = real token is read as True = padding, so real tokens see the padding and not each other.",
    weighing(lambda scores, keep, training: softmax(scores, by_key(~keep))),
    sees=lambda inputs: padding(~inputs["keep"]) | ITSELF,
    leaks=True,
    where=TOP,
    **PADDED,
)
narrow(
    "last_real_token_masked",
    "The padding mask is made from the length of the labels, which is one token shorter.",
    weighing(lambda scores, keep, training: softmax(scores, by_key(_all_but_last(keep)))),
    sees=lambda inputs: padding(_all_but_last(inputs["keep"])) | ITSELF,
    where=TOP,
    **PADDED,
)
narrow(
    "class_token_masked",
    "The padding mask was made before the class token was put in front, and is filled up with False there.",
    weighing(lambda scores, keep, training: softmax(scores, by_key(_after_first(keep)))),
    sees=lambda inputs: padding(_after_first(inputs["keep"])) | ITSELF,
    where=TOP,
    **PADDED,
)
narrow(
    "left_padding_masked_on_the_right",
    "Rows are padded on the left, and the mask made from their lengths has its padding on the right.",
    weighing(lambda scores, keep, training: right(scores, keep.flip(1), training)),
    inputs=left_padded,
    of="ids",
    allowed=causal_kept,
    sees=lambda inputs: causal() & padding(inputs["keep"].flip(1)) | ITSELF,
    leaks=True,
    where=TOP,
)
# https://github.com/mll-lab-nu/RAGEN/issues/59, https://github.com/huggingface/trl/pull/6357
narrow(
    "end_of_turn_taken_for_padding",
    "Padding and end of turn share an id, so the collator's mask hides every real end of turn.",
    weighing(right),
    inputs=with_eos,
    of="ids",
    sees=lambda inputs: causal() & padding(inputs["keep"]) | ITSELF,
    where=TOP,
)
narrow(
    "document_boundary_one_token_early",
    "Each document's last token is counted to the next one.",
    weighing(lambda scores, ids, training: by_document(scores, _moved(ids))),
    inputs=packed,
    of="ids",
    allowed=causal_documents,
    sees=lambda inputs: causal() & documents(_moved(inputs["documents"])),
    leaks=True,
    where=TOP,
)
narrow(
    "first_token_of_a_document_cut_off",
    "The token that opens a document is a segment of its own in the list of segment ends.",
    weighing(lambda scores, ids, training: by_document(scores, _split_openings(ids))),
    inputs=packed,
    of="ids",
    allowed=causal_documents,
    sees=lambda inputs: causal() & documents(_split_openings(inputs["documents"])),
    where=TOP,
)
narrow(
    "cross_attention_masked_by_the_target",
    "Cross-attention gets the target's causal mask, so an early word sees the start of the source only.",
    made(lambda: Captioner(right)),
    sees=causal_kept,
    fits="causal() & padding(keep[2, 6])",
    where="cross",
    **SOURCE,
)
narrow(
    "source_cut_at_a_maximum",
    "The source is cut after four tokens, and the mask with it.",
    made(lambda: Captioner(both_ways, cut=4)),
    sees=lambda inputs: kept(inputs) & prefix(4),
    fits="padding(keep[2, 6]) & prefix(4)",
    where="",
    **SOURCE,
)
narrow(
    "mask_of_the_first_sample",
    "All samples get the padding mask of the first one, which is the shortest.",
    weighing(lambda scores, keep, training: softmax(scores, by_key(keep[:1]))),
    sees=lambda inputs: padding(inputs["keep"][:1].expand_as(inputs["keep"])) | ITSELF,
    where=TOP,
    **PADDED,
)
