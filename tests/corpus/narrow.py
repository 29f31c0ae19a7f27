"""Attention masks that hide what the rule allows; links lead to the same fault, or a question about it, elsewhere."""

import torch
from torch import Tensor

from attnmask import Mask, causal, chunked, documents, everything, graph, per_head, prefix, sliding_window
from corpus.case import LENGTH, LONGEST, Inputs
from corpus.exact_case import (
    CAUSAL,
    NEXT,
    TOP,
    PositionQueries,
    by_table,
    cut,
    narrow,
    one_layer,
    same_group,
    through,
    window,
)
from corpus.inputs import causal_prefix, samples, token_ids, with_prefix
from corpus.parts import Attention, lower, made, right, softmax, weighing

STRICT = CAUSAL.tril(-1)
STRICT[0, 0] = True
WITHOUT_THE_LAST = CAUSAL.tril(-2) | torch.eye(LONGEST, dtype=torch.bool)
ITSELF = sliding_window(0)
SHIFTED = (torch.arange(8) + 2) // 4  # windows of four, half a window later
PARENTS = (0, 0, 0, 1, 2, 3, 3)


def with_images(seed: int) -> dict[str, Tensor]:
    """Return ids and the group of each: the tokens of an image share one, a word has its own."""
    return {"ids": token_ids(seed), "images": torch.tensor([[0, 1, 1, 1, 2, 3, 4], [0, 1, 2, 2, 3, 4, 4]])}


def causal_images(inputs: Inputs) -> Mask:
    return causal() | documents(inputs["images"])


def tree(*, ancestors: bool) -> Tensor:
    """Return (node, node): is the second the first one's parent in the draft tree, or any ancestor, or itself."""
    table = torch.eye(LENGTH, dtype=torch.bool)
    for node, parent in enumerate(PARENTS[1:], 1):
        table[node, parent] = True
        if ancestors:
            table[node] |= table[parent]
    return table


def _steep(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    position = torch.arange(scores.shape[-1])
    slope = torch.tensor([2.0**8, 2.0**16])[:, None, None]  # 2 ** -8 and 2 ** -16 were meant
    return softmax(scores - slope * (position[:, None] - position), lower(scores))


# A decode kernel read 127 keys of 128: https://github.com/lightseekorg/tokenspeed/pull/578; a window of 2048 means
# 2048 or 2049 keys: https://github.com/vllm-project/vllm/issues/3385
narrow(
    "sliding_window_one_key_short",
    "The window counts the query's own key among the earlier ones, so each layer reaches one key less.",
    weighing(window(1)),
    allowed=sliding_window(4),
    sees=sliding_window(2),
    where=TOP,
)
# https://github.com/ml-explore/mlx-lm/pull/390
narrow(
    "rotating_cache_one_key_short",
    "The last layer's rotating cache holds the window without the key that is being written.",
    weighing(window(2), window(1)),
    allowed=sliding_window(4),
    sees=sliding_window(3),
    where=NEXT,
)
# https://github.com/ggml-org/llama.cpp/pull/7553
narrow(
    "prefix_forgotten",
    "A prefix language model runs with the causal mask alone, so its prefix is read in one direction.",
    weighing(lambda scores, lengths, training: right(scores, None, training)),
    inputs=with_prefix,
    of="ids",
    allowed=causal_prefix,
    sees=causal(),
    where=TOP,
)
# https://github.com/SafeAILab/EAGLE/issues/247
narrow(
    "draft_mask_shifted_along_its_diagonal",
    "A draft head's mask is shifted by one step, so each query misses the key right before its own.",
    one_layer(by_table(WITHOUT_THE_LAST)),
    sees=cut(WITHOUT_THE_LAST),
    where=TOP,
)
# https://github.com/RVC-Boss/GPT-SoVITS/issues/965
narrow(
    "diagonal_blocked",
    "The triangle is taken with diagonal -1 and the first row repaired by hand, so each query misses its own key.",
    made(lambda: PositionQueries(Attention(by_table(STRICT)))),
    sees=cut(STRICT),
    one_sequence=False,
    where="attention",
)
# https://github.com/PaddlePaddle/FastDeploy/pull/3514 shows the mask as it should be.
narrow(
    "draft_tree_sees_parents_only",
    "In a draft tree each node sees its parent and not the ancestors before it.",
    one_layer(by_table(tree(ancestors=False))),
    allowed=graph(tree(ancestors=True)),
    sees=graph(tree(ancestors=False)),
    where=TOP,
)
# https://github.com/huggingface/transformers/issues/46077, https://github.com/huggingface/transformers/issues/39554,
# https://github.com/huggingface/sentence-transformers/issues/3513
narrow(
    "embedding_model_stays_causal",
    "A decoder is made an embedding model, which should read in both directions, and its mask stays causal.",
    weighing(right),
    allowed=everything(),
    sees=causal(),
    where=TOP,
)
# https://github.com/huggingface/transformers/issues/39389, https://github.com/onnxruntime/mobius/pull/338
narrow(
    "image_tokens_masked_like_words",
    "The tokens of an image should see each other in both directions and get the causal mask of the words.",
    weighing(lambda scores, images, training: right(scores, None, training)),
    inputs=with_images,
    of="ids",
    allowed=causal_images,
    sees=causal(),
    where=TOP,
)
# https://github.com/allenai/longformer/issues/254
narrow(
    "global_token_is_local",
    "The first token should see all and be seen by all, and gets the window of the others.",
    one_layer(window(1, 1)),
    allowed=sliding_window(1, 1) | prefix(1) | prefix(1).T,
    sees=sliding_window(1, 1),
    where=TOP,
)
narrow(
    "global_token_does_not_look_around",
    "All see the first token, which itself sees its window only.",
    one_layer(by_table((sliding_window(1, 1) | prefix(1)).dense(LONGEST)[0, 0])),
    allowed=sliding_window(1, 1) | prefix(1) | prefix(1).T,
    sees=sliding_window(1, 1) | prefix(1),
    where=TOP,
)
narrow(
    "every_token_its_own_document",
    "Position ids of zeros are read as packing, where each zero starts a document.",
    weighing(window(0)),
    sees=ITSELF,
    where=TOP,
)
narrow(
    "every_head_gets_the_first_mask",
    "One head should be local and one causal; the local head's mask is broadcast to both.",
    weighing(window(1)),
    allowed=per_head([sliding_window(1), causal()]),
    sees=sliding_window(2),
    where=TOP,
)
narrow(
    "dilated_window_too_narrow",
    "The number of keys is divided by the dilation that the window counts already.",
    one_layer(window(2, step=2)),
    allowed=sliding_window(2, dilation=2),
    sees=sliding_window(1, dilation=2),
    where=TOP,
)
narrow(
    "attention_sink_forgotten",
    "The first token should stay visible behind the window, and is evicted with the rest.",
    weighing(window(1)),
    allowed=sliding_window(2) | causal() & prefix(1),
    sees=sliding_window(2),
    where=TOP,
)
narrow(
    "last_partial_block_dropped",
    "Keys are read in blocks of four, and the block that is not full is left out.",
    weighing(lambda scores, keep, training: softmax(scores, lower(scores) & (torch.arange(scores.shape[-1]) < 4))),
    sees=causal() & prefix(4) | ITSELF,
    where=TOP,
)
narrow(
    "chunk_size_divided_among_devices",
    "Chunked attention with chunks of four runs with chunks of two, since two devices share the size.",
    weighing(by_table(CAUSAL & same_group(torch.arange(LONGEST) // 2))),
    allowed=causal() & chunked(4),
    sees=causal() & chunked(2),
    where=TOP,
)
narrow(
    "shift_of_the_windows_turned_off",
    "Every second layer should shift its windows by half a window, and the shift is turned off in all of them.",
    weighing(by_table(same_group(torch.arange(8) // 4))),
    inputs=samples(2, 8),
    allowed=through(same_group(torch.arange(8) // 4), same_group(SHIFTED)),
    sees=chunked(4),
    where=NEXT,
)
narrow(
    "alibi_slopes_grow",
    "The exponent of the slopes has lost its sign, and their penalty leaves no weight but the query's own.",
    weighing(_steep),
    sees=ITSELF,
    where=TOP,
)
