"""Right models in which the mask or the layers make it hard to see that all is reached."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmask import Translator, causal, chunked, documents, everything, graph, per_head, prefix, sliding_window
from corpus.case import HEADS, LENGTH, LONGEST, VOCABULARY, WIDTH
from corpus.exact_case import (
    CAUSAL,
    Captioner,
    PositionQueries,
    by_table,
    chain,
    one_layer,
    reached,
    same_group,
    through,
    window,
)
from corpus.inputs import (
    causal_documents,
    causal_kept,
    causal_prefix,
    kept,
    left_padded,
    packed,
    right_padded,
    samples,
    translation,
    with_prefix,
)
from corpus.mixing import LinearAttention
from corpus.narrow import SHIFTED, causal_images, tree, with_images
from corpus.padding import by_document, in_prefix
from corpus.parts import Attention, Channels, Decoder, Recurrent, both_ways, lower, made, right, softmax, weighing
from corpus.state import Chunked
from corpus.translation import SOURCE, STRICTLY_EARLIER, Shifted

EVEN = sliding_window(LENGTH, dilation=2)
GLOBAL = sliding_window(1, 1) | prefix(1) | prefix(1).T


def _masked_source(seed: int) -> dict[str, Any]:
    given = translation(seed)
    masks = {"source_masks": kept(given), "target_masks": causal(), "memory_masks": kept(given)}
    return {"source": given["source"], "target": given["target"], **masks}


def _translator() -> nn.Module:
    return Translator(VOCABULARY, VOCABULARY, layers=1, d_model=WIDTH, heads=HEADS)


def _by_head(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    position = torch.arange(scores.shape[-1])
    even = (position[:, None] - position) % 2 == 0
    return softmax(scores, lower(scores) & torch.stack([even, ~even | torch.eye(len(even), dtype=torch.bool)]))


def _strict(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    return softmax(scores, lower(scores, -1)) * (torch.arange(scores.shape[-2]) > 0)[:, None]


def _late() -> nn.Module:
    model = Shifted(lambda labels: F.pad(labels[:, :-1], (1, 0)))
    model.decoder = Decoder(Attention())
    return model


def _convolution() -> nn.Module:
    return Channels(nn.Sequential(nn.Conv1d(WIDTH, WIDTH, 2), nn.Tanh()), pad=(1, 0))


reached(
    "windows_through_three_layers",
    "Three layers of a window of one reach back three.",
    weighing(window(1), window(1), window(1)),
    allowed=sliding_window(3),
)
reached(
    "dilated_windows_through_two_layers",
    "One layer sees the token before, the next the one two before, and together they reach three back.",
    weighing(window(1), window(2, step=2)),
    allowed=sliding_window(3),
)
reached(
    "shifted_windows",
    "Windows of four, in the second layer shifted by half a window, whose far pairs need both layers.",
    weighing(by_table(same_group(torch.arange(8) // 4)), by_table(same_group(SHIFTED))),
    inputs=samples(2, 8),
    allowed=through(same_group(torch.arange(8) // 4), same_group(SHIFTED)),
)
reached(
    "global_token",
    "A window and a first token that sees all and is seen by all.",
    one_layer(by_table(GLOBAL.dense(LONGEST)[0, 0])),
    allowed=GLOBAL,
)
reached(
    "words_far_apart_by_way_of_a_global_token",
    "In two layers the global token connects every pair.",
    weighing(by_table(GLOBAL.dense(LONGEST)[0, 0])),
    allowed=everything(),
)
reached(
    "attention_sink",
    "A window and the first token, which stays visible behind it.",
    weighing(by_table((sliding_window(1) | causal() & prefix(1)).dense(LONGEST)[0, 0])),
    allowed=sliding_window(2) | causal() & prefix(1),
)
reached(
    "chunked_attention",
    "Chunks of four with a causal mask in each.",
    weighing(by_table(CAUSAL & same_group(torch.arange(LONGEST) // 4))),
    allowed=causal() & chunked(4),
)
reached(
    "draft_tree",
    "A draft tree in which each node sees all of its ancestors.",
    one_layer(by_table(tree(ancestors=True))),
    allowed=graph(tree(ancestors=True)),
)
reached(
    "heads_share_the_rule",
    "One head sees the even distances and one the odd ones, and only together they see all that is allowed.",
    one_layer(_by_head),
    allowed=per_head([EVEN, causal() & ~EVEN | sliding_window(0)]),
)
reached(
    "documents_read_both_ways",
    "Packed documents of an encoder, each for itself.",
    weighing(lambda scores, ids, training: softmax(scores, same_group(ids)[:, None])),
    inputs=packed,
    of="ids",
    allowed=lambda inputs: documents(inputs["documents"]),
)
reached(
    "documents_in_one_layer",
    "Packed documents with a causal mask and a single layer.",
    one_layer(lambda scores, ids, training: by_document(scores, ids)),
    inputs=packed,
    of="ids",
    allowed=causal_documents,
)
reached(
    "prefix_in_one_layer",
    "A prefix read in both directions by a single layer.",
    one_layer(lambda scores, lengths, training: softmax(scores, lower(scores) | in_prefix(scores, lengths))),
    inputs=with_prefix,
    of="ids",
    allowed=causal_prefix,
)
reached(
    "image_tokens_read_both_ways",
    "The tokens of an image see each other, the words keep the causal mask.",
    one_layer(lambda scores, images, training: softmax(scores, lower(scores) | same_group(images)[:, None])),
    inputs=with_images,
    of="ids",
    allowed=causal_images,
)
reached(
    "left_padded_decoder",
    "Rows are padded on the left, so early queries have few keys.",
    one_layer(right),
    inputs=left_padded,
    of="ids",
    allowed=causal_kept,
)
reached(
    "right_padded_encoder",
    "Rows are padded on the right, and padded outputs reach nothing that anybody judges.",
    one_layer(both_ways),
    inputs=right_padded,
    of="ids",
    allowed=kept,
)
reached(
    "cross_attention_to_raw_tokens",
    "Cross-attention to source tokens that no encoder has mixed.",
    made(lambda: Captioner(both_ways)),
    **SOURCE,
)
reached(
    "translation_reaches_the_source",
    "An encoder and a decoder of one layer each, seen from the source.",
    made(_translator),
    inputs=_masked_source,
    of="source",
    allowed=lambda inputs: inputs["source_masks"],
    one_sequence=False,
)
reached(
    "queries_from_positions",
    "No query knows its own token but through the key.",
    made(lambda: PositionQueries(Attention())),
)
reached(
    "strictly_earlier_keys",
    "Positions ask for what comes next, so the rule leaves out the own token and the model sees it nowhere.",
    made(lambda: PositionQueries(Attention(_strict))),
    allowed=~causal().T,
    one_sequence=False,
)
reached(
    "labels_read_one_late",
    "A single layer is given the labels and reads them one place late.",
    made(_late),
    **STRICTLY_EARLIER,
)
reached(
    "chunked_prefill",
    "Chunks of three over a growing cache with the right offset, in a single layer.",
    made(lambda: Decoder(Chunked(lambda cached, total: cached))),
)
reached("twelve_layers", "Twelve layers deep.", weighing(*(right,) * 12))
reached(
    "gated_recurrent_unit",
    "A recurrent layer carries the first token through six updates.",
    chain(lambda: Recurrent(nn.GRU(WIDTH, WIDTH, batch_first=True))),
)
reached("linear_attention_alone", "Running sums and nothing else.", chain(lambda: LinearAttention(True)))
reached(
    "stacked_convolutions",
    "Three causal convolutions of two tokens each reach three back by way of a tanh.",
    chain(
        lambda: nn.Sequential(
            *(Channels(nn.Sequential(nn.Conv1d(WIDTH, WIDTH, 2), nn.Tanh()), (1, 0)) for _ in range(3))
        )
    ),
    allowed=sliding_window(3),
)
