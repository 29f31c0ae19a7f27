"""What `conventions` refuses: what a library takes silently and wrongly, and what a convention cannot hold."""

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from attnmask import causal, conventions, describe, everything, padding, sliding_window
from errors import CUBE, IDS, INF, KEEP, attend_with, meets_a_sentence

pytestmark = pytest.mark.usefixtures("as_installed")

from_additive = conventions.from_additive

CASES = {
    "zeros and ones to add": (
        lambda: from_additive(causal().dense(3).float()),
        "additive of floats to add: 0 = may attend, minus infinity or at most -9000 = blocked",
        "1 in a float32 tensor of shape (1, 1, 3, 3)",
        "zeros and ones, which would be added and block nothing; read mask.bool() or ~mask.bool()",
    ),
    "a bias to add": (
        lambda: from_additive(torch.tensor([[[[0.0, -0.5]]]])),
        "0 = may attend",
        "-0.5 in a float32 tensor of shape (1, 1, 1, 2)",
        "a bias such as ALiBi, or scores: more than a yes or no for each pair",
    ),
    "a bool mask to add": (
        lambda: from_additive(causal().dense(3)),
        "additive of floats to add",
        "a bool tensor of shape (1, 1, 3, 3)",
        "a bool mask, or zeros and ones, where numbers to add were meant",
    ),
    "an additive mask of two axes": (
        lambda: from_additive(torch.zeros(3, 3)),
        "additive of shape (batch, head, query, key)",
        "a float32 tensor of shape (3, 3)",
        "two readings fit, (batch, key) and (query, key); say which: mask[:, None, None] or mask[None, None]",
    ),
    "a fill that float16 cannot hold": (
        lambda: conventions.to_additive(causal(), 3, dtype=torch.float16, fill=-1e9),
        "a fill that torch.float16 can hold: -6.55e+04 or more, or -math.inf",
        "-1000000000.0 (float)",
        "a constant written for float32; in torch.float16 it would become minus infinity, and an empty row NaN",
    ),
    "a fill that does not block": (
        lambda: conventions.to_additive(causal(), 3, fill=-10.0),
        "fill to be minus infinity or at most -9000",
        "-10.0 (float)",
        "so small that scores of its size would shine through",
    ),
    "a fill with the wrong sign": (
        lambda: conventions.to_additive(causal(), 3, fill=1e9),
        "fill to be minus infinity or at most -9000",
        "1000000000.0 (float)",
        "a sign slip",
    ),
    "an additive bool": (
        lambda: conventions.to_additive(causal(), 3, dtype=torch.bool),
        "dtype to be torch.float64, float32, bfloat16 or float16, that of the scores",
        "torch.bool",
        "a bool mask was meant; mask.dense",
    ),
    "(batch, key) for SDPA": (
        lambda: conventions.from_sdpa(torch.ones(3, 3, dtype=torch.bool)),
        "attn_mask of shape (batch, head, query, key)",
        "a bool tensor of shape (3, 3)",
        "two readings fit, (batch, key) and (query, key)",
    ),
    "(batch, query, key) for SDPA": (
        lambda: conventions.from_sdpa(torch.ones(2, 3, 3, dtype=torch.bool)),
        "attn_mask of shape (batch, head, query, key)",
        "a bool tensor of shape (2, 3, 3)",
        "two readings fit, (batch, query, key) and (head, query, key)",
    ),
    "zeros and ones as floats for SDPA": (
        lambda: conventions.from_sdpa(causal().dense(3).float()),
        "attn_mask of floats to add",
        "1 in a float32 tensor",
        "zeros and ones, which would be added and block nothing",
    ),
    "zeros and ones as integers for SDPA": (
        lambda: conventions.from_sdpa(causal().dense(3).int()),
        "attn_mask of floats to add",
        "an int32 tensor",
        "zeros and ones, where numbers to add were meant",
    ),
    "a mask and the causal flag": (
        lambda: conventions.from_sdpa(causal().dense(3), is_causal=True),
        "attn_mask or is_causal=True",
        "both",
        "a padding mask given beside the causal flag; some of PyTorch's kernels join the two, others raise. "
        "Write causal() & padding(keep)",
    ),
    "three axes without heads": (
        lambda: conventions.from_multihead(attn_mask=CUBE),
        "heads, and an attn_mask whose first axis is batch * heads",
        "heads=None and a bool tensor of shape (2, 3, 3)",
        "a (batch, query, key) mask; repeat it for the heads of each sample: mask.repeat_interleave(heads, dim=0)",
    ),
    "(batch, query, key) where batch * heads is due": (
        lambda: conventions.from_multihead(attn_mask=CUBE, heads=4),
        "heads, and an attn_mask whose first axis is batch * heads",
        "heads=4 and a bool tensor of shape (2, 3, 3)",
        "mask.repeat_interleave(heads, dim=0)",
    ),
    "one sample's heads beside the padding of two": (
        lambda: conventions.from_multihead(~KEEP, torch.ones(6, 3, 3, dtype=torch.bool), heads=2),
        "masks of one batch",
        "3 in from_dense(allowed[3, 2, 3, 3]) and 2 in padding(keep[2, 3])",
        "different",
    ),
    "four axes for multi-head attention": (
        lambda: conventions.from_multihead(attn_mask=causal().dense(3)),
        "attn_mask of shape (query, key) or (batch * heads, query, key)",
        "a bool tensor of shape (1, 1, 3, 3)",
        "an axis was lost or added on the way",
    ),
    "zeros and ones as floats for multi-head attention": (
        lambda: conventions.from_multihead(key_padding_mask=(~KEEP).float()),
        "key_padding_mask of floats to add",
        "1 in a float32 tensor of shape (2, 3)",
        "zeros and ones, which would be added",
    ),
    "a causal hint without a mask": (
        lambda: conventions.from_multihead(is_causal=True),
        "is_causal=True with the causal attn_mask",
        "no attn_mask",
        "taken for a mask: it is a hint about attn_mask, and where it lies, some paths follow it and others do not",
    ),
    "a causal hint that lies": (
        lambda: conventions.from_multihead(attn_mask=torch.zeros(3, 3, dtype=torch.bool), is_causal=True),
        "is_causal=True with the causal attn_mask",
        "a bool tensor of shape (3, 3)",
        "a hint about attn_mask",
    ),
    "a causal mask in two axes for Hugging Face": (
        lambda: conventions.to_huggingface(causal() & padding(KEEP), 3),
        "a mask of keys, the same for every query and head, since the 2-D attention_mask is (batch, key)",
        "causal() & padding(keep[2, 3])",
        "a causal part, which a decoder model adds by itself; give the padding alone, or use to_huggingface_4d",
    ),
    "an additive mask in two axes for Hugging Face": (
        lambda: conventions.from_huggingface(torch.zeros(2, 3).masked_fill(~KEEP, -INF)),
        "attention_mask of bools or of zeros and ones, 1 = may attend",
        "-inf in a float32 tensor of shape (2, 3)",
        "numbers to add to the scores; cast to bool, minus infinity would become True and 0 False",
    ),
    "float zeros for Hugging Face": (
        lambda: conventions.from_huggingface(torch.zeros(2, 3)),
        "attention_mask of bools or of zeros and ones",
        "zeros only in a float32 tensor of shape (2, 3)",
        "a mask to add that blocks nothing, which would block everything",
    ),
    "token ids for Hugging Face": (
        lambda: conventions.from_huggingface(IDS),
        "attention_mask of bools or of zeros and ones",
        "5 in an int64 tensor of shape (2, 3)",
        "token ids; compare them with the pad id: ids != pad_id",
    ),
    "a 4-D bool mask for Hugging Face": (
        lambda: conventions.from_huggingface(causal().dense(3)),
        "a 4-D attention_mask of numbers to add",
        "a bool tensor of shape (1, 1, 3, 3)",
        "a mask made for SDPA; eager attention would add it as zeros and ones. Use to_huggingface_4d",
    ),
    "a Hugging Face mask that is too short": (
        lambda: attend_with(conventions.from_huggingface(torch.tensor([[1, 1]]))),
        "key_len=2, as padding(keep[1, 2]) holds",
        "key_len=3",
        "other token ids than the queries and keys",
    ),
    "a Hugging Face mask with too many samples": (
        lambda: attend_with(conventions.from_huggingface(torch.ones(3, 3, dtype=torch.long))),
        "batch=3, as padding(keep[3, 3]) holds",
        "batch=2",
        "other token ids than the queries and keys",
    ),
    "an additive mask for Keras": (
        lambda: conventions.from_keras(torch.zeros(2, 3, 3).masked_fill(~CUBE.tril(), -INF)),
        "attention_mask of bools or of zeros and ones",
        "-inf in a float32 tensor of shape (2, 3, 3)",
        "cast to bool, minus infinity would become True and 0 False",
    ),
    "(batch, key) for Keras": (
        lambda: conventions.from_keras(KEEP),
        "attention_mask of shape (batch, query, key) or (batch, head, query, key)",
        "a bool tensor of shape (2, 3)",
        "two readings fit, (batch, key) and (query, key)",
    ),
    "two axes for Flax": (
        lambda: conventions.from_flax(KEEP),
        "mask of shape (batch, head, query, key)",
        "a bool tensor of shape (2, 3)",
        "two readings fit",
    ),
    "a window as cumulative lengths": (
        lambda: conventions.to_flash(sliding_window(1), 5),
        "sequences one after the other in each sample, each seen whole or causally",
        "sliding_window(1)",
        "a mask that cumulative lengths cannot hold: a window, a prefix, a graph, or padded queries behind a causal "
        "mask; those are left out if you write causal() & padding(keep) & padding(keep).T",
    ),
    "padded queries as cumulative lengths": (
        lambda: conventions.to_flash(causal() & padding(KEEP), 3),
        "sequences one after the other",
        "causal() & padding(keep[2, 3])",
        "padded queries behind a causal mask",
    ),
    "a Mask to read": (
        lambda: conventions.from_additive(causal()),
        "additive to be a tensor",
        "causal()",
        "a Mask, which needs no reading; a to_ function writes it",
    ),
    "a dense mask of two axes to write": (
        lambda: conventions.to_additive(KEEP, 3),
        "allowed to be a bool tensor, True = may attend, of shape (batch, head, query, key)",
        "a bool tensor of shape (2, 3)",
        "two readings fit, (batch, key) and (query, key)",
    ),
    "a text in the causal flag's place": (
        lambda: conventions.from_sdpa(is_causal="False"),
        "is_causal to be True or False",
        "'False' (str)",
        "a mask or a text in the flag's place",
    ),
    "heads as a float": (
        lambda: conventions.from_multihead(attn_mask=CUBE, heads=2.0),
        "heads to be an integer",
        "2.0 (float)",
        "a float, a bool or a tensor where a count was meant",
    ),
    "a BlockMask as a rule": (
        lambda: conventions.from_flex(create_block_mask(causal(), None, None, 4, 4, device="cpu")),
        "a mask_mod, a function",
        "BlockMask",
        "its rule is its .mask_mod",
    ),
    "something that is no array": (
        lambda: conventions.from_keras("mask"),
        "attention_mask to be a tensor or an array",
        "'mask' (str)",
        "no array, or one that PyTorch cannot take",
    ),
    "a mask without entries": (
        lambda: conventions.from_flax(causal().dense(3, device="meta")),
        "mask to be a dense tensor of bools, integers, or floats of 16 bits and more",
        "a bool tensor of shape (1, 1, 3, 3)",
        "a sparse, quantised or meta tensor",
    ),
    "NaN in a mask to add": (
        lambda: from_additive(torch.full((1, 1, 2, 2), INF) * 0),
        "0 = may attend",
        "nan in a float32 tensor",
        "0 times minus infinity, or an empty row that went through a softmax",
    ),
    "cumulative lengths alone": (
        lambda: conventions.from_flash(torch.tensor([0, 3, 5]), 5),
        "a Varlen, as to_flash gives",
        "an int64 tensor of shape (3,)",
        "its cu_seqlens alone; describe reads those",
    ),
    "a packed batch read as one sample": (
        lambda: conventions.from_flash(conventions.to_flash(everything(), 3, batch=2), 3),
        "packed rows below 3, all of them in sequences",
        "6 packed up to 5",
        "another batch or length",
    ),
    "a packed sequence over two samples": (
        lambda: conventions.from_flash(conventions.to_flash(everything(), 4), 2, batch=2),
        "every sequence to lie in one of 2 samples of 2 queries and 2 keys",
        "one in samples [0, 1]",
        "another batch or length than when it was packed",
    ),
    "packed queries and keys of two batches": (
        lambda: conventions.from_flash(
            conventions.to_flash(everything(), 3)._replace(cu_seqlens_q=torch.tensor([0, 1, 3])), 3
        ),
        "as many sequences of queries as of keys",
        "2 and 1",
        "the lengths of two different batches",
    ),
    "a column of the table that there is not": (
        lambda: conventions.as_markdown("library"),
        "names of columns among library, call, argument",
        "'l'",
        "a spelling slip, or one text",
    ),
    "a size to describe that is no number": (
        lambda: describe(KEEP, batch="2"),
        "batch to be an integer",
        "'2' (str)",
        "a float, a bool or a tensor where a count was meant",
    ),
    "a Mask to describe": (
        lambda: describe(causal()),
        "a tensor",
        "causal()",
        "its meaning is known: a Mask is True where a query may look; a mask_mod is read by from_flex",
    ),
    "a library that is not installed": (
        lambda: conventions.need("torch", "no_such_framework"),
        "torch, no_such_framework",
        "no no_such_framework",
        "they are an extra of the companion; from the project's root, pip install './companion[frameworks]'",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_meets_a_sentence(name):
    meets_a_sentence(*CASES[name])
