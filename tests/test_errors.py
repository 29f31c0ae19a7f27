"""Every bad input and the sentence it meets: what was expected, what came, the likely cause."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask

from attnmask import (
    CrossAttention,
    Encoder,
    Mask,
    Translator,
    attend,
    audit,
    causal,
    chunked,
    conventions,
    default_device,
    describe,
    documents,
    everything,
    four_tokens,
    from_dense,
    graph,
    influence,
    padding,
    per_head,
    plot,
    prefix,
    reach,
    sliding_window,
    symbolic,
)

from_additive = conventions.from_additive
pytestmark = pytest.mark.usefixtures("as_installed")

INF = float("inf")
KEEP = torch.tensor([[True, True, False], [True, False, False]])  # (batch, key) = (2, 3)
CUBE = torch.ones(2, 3, 3, dtype=torch.bool)
IDS = torch.tensor([[5, 6, 0], [7, 0, 0]])
TOKEN = torch.randn(2, 3, 4)  # (batch, token, d)
HEADS = torch.randn(2, 2, 3, 4)  # (batch, head, token, d)


EMBEDDING = nn.Embedding(10, 4)
ENCODER = Encoder(layers=2, d_model=4)
TRANSLATOR = Translator(source_vocabulary=10, target_vocabulary=5, layers=1, d_model=4, longest=8)
TICKS = itertools.count()
QUICK = {"modes": "eval", "lengths": []}


def attend_with(mask, token=TOKEN):
    return attend(token, token, token, mask)


CASES = {
    # ---- conventions: what PyTorch and others take silently and wrongly, and what a convention cannot hold
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
        "they are an extra of the companion; pip install 'attnmask[frameworks]'",
    ),
    # ---- padding: rank, dtype, polarity
    "zeros and ones as integers": (
        lambda: padding(KEEP.int()),
        "keep to be a bool tensor, True = may attend, of shape (batch, key)",
        "an int32 tensor of shape (2, 3)",
        "a mask of zeros and ones; if 1 means 'may attend' write mask.bool(), if 1 means 'blocked' write ~mask.bool()",
    ),
    "zeros and ones as floats": (
        lambda: padding(KEEP.float()),
        "keep to be a bool tensor",
        "a float32 tensor of shape (2, 3)",
        "a mask of zeros and ones",
    ),
    "an additive mask": (
        lambda: padding(torch.zeros(2, 3).masked_fill(~KEEP, -INF)),
        "keep to be a bool tensor",
        "a float32 tensor of shape (2, 3)",
        "an additive mask (0 = attend, a large negative number = blocked); compare it: mask == 0",
    ),
    "token ids": (lambda: padding(IDS), "keep to be a bool tensor", "an int64 tensor", "ids != pad_id"),
    "a list": (lambda: padding([[True]]), "keep to be a bool tensor", "[[True]] (list)", "torch.tensor(...) makes one"),
    "keep of one sample": (
        lambda: padding(KEEP[0]),
        "of shape (batch, key)",
        "a bool tensor of shape (3,)",
        "one sample without its batch axis; add it: keep[None]",
    ),
    "keep of three axes": (
        lambda: padding(CUBE),
        "(batch, key)",
        "(2, 3, 3)",
        "two readings fit, (batch, query, key) and",
    ),
    "keep of four axes": (lambda: padding(CUBE[None]), "(batch, key)", "(1, 2, 3, 3)", "wrap it in from_dense(...)"),
    # ---- the other constructors
    "graph of one axis": (lambda: graph(KEEP[0]), "(query, key) or (batch, query, key)", "of shape (3,)", "one sample"),
    "graph of zeros and ones": (lambda: graph(torch.eye(3)), "a bool tensor", "a float32", "zeros and ones"),
    "dense of two axes": (
        lambda: from_dense(KEEP),
        "of shape (batch, head, query, key)",
        "of shape (2, 3)",
        "two readings fit, (batch, key) and (query, key); say which: padding(mask) or graph(mask)",
    ),
    "dense of three axes": (
        lambda: from_dense(CUBE),
        "(batch, head, query, key)",
        "(2, 3, 3)",
        "from_dense(mask[:, None])",
    ),
    "document ids as floats": (
        lambda: documents(IDS.float()),
        "ids to be an integer",
        "float32",
        "integers were meant",
    ),
    "document ids of one sample": (lambda: documents(IDS[0]), "(batch, token)", "(3,)", "ids[None]"),
    "a mask for position ids": (lambda: causal(position_ids=KEEP), "an integer tensor", "a bool", "a mask or an embed"),
    "a negative offset": (lambda: causal(offset=-1), "offset to be 0 or more", "-1", "a sign slip"),
    "a negative window to the left": (lambda: sliding_window(-1), "left to be 0 or more", "-1", "a sign slip"),
    "a negative window to the right": (lambda: sliding_window(1, -2), "right to be 0 or more", "-2", "a sign slip"),
    "a window of half a token": (lambda: sliding_window(1.5), "left to be an integer", "1.5 (float)", "a float"),
    "a negative cache": (lambda: causal().after(-2), "cached to be 0 or more", "-2", "a sign slip"),
    "a negative prefix": (lambda: prefix(-1), "lengths to be 0 or more", "-1", "a sign slip"),
    "one negative prefix": (lambda: prefix(torch.tensor([2, -1])), "every one of lengths", "-1", "a sign slip"),
    "prefix lengths of two axes": (lambda: prefix(IDS), "of shape (batch)", "(2, 3)", "an axis too few or too many"),
    "no mask for any head": (lambda: per_head([]), "one mask for each head", "none", "an empty list"),
    "a tensor for a head": (lambda: per_head([KEEP]), "masks that are the same", "a bool tensor", "one Mask for each"),
    "heads within heads": (
        lambda: per_head([per_head([causal(), everything()])]),
        "masks that are the same in every head",
        "per_head([causal(), everything()])",
        "a per_head mask or a tensor inside the list",
    ),
    # ---- joining and asking
    "a tensor after &": (
        lambda: causal() & KEEP,
        "a Mask on both sides of &",
        "a bool tensor of shape (2, 3)",
        "padding(mask)",
    ),
    "a tensor before &": (
        lambda: KEEP & causal(),
        "a Mask on both sides of &",
        "a bool tensor of shape (2, 3)",
        "padding(mask)",
    ),
    "a tensor after |": (lambda: causal() | KEEP, "a Mask on both sides of |", "a bool tensor", "padding(mask)"),
    "`and` between masks": (
        lambda: causal() and padding(KEEP),
        "masks joined by &, | and ~",
        "the truth value of causal()",
        "`and`, `or` or `not` between masks, which would silently drop one of them",
    ),
    "two batches": (
        lambda: padding(KEEP) & padding(KEEP.repeat(2, 1)),
        "masks of one batch",
        "2 in padding(keep[2, 3]) and 4 in padding(keep[4, 3])",
        "different sets of token ids",
    ),
    "two lengths": (lambda: padding(KEEP) | padding(KEEP[:, :2]), "one key_len", "3 in padding", "different sets"),
    "another key length": (
        lambda: padding(KEEP).dense(4),
        "key_len=3, as padding(keep[2, 3]) holds",
        "key_len=4",
        "key_len was left out (it defaults to query_len)",
    ),
    "another query length": (lambda: documents(IDS).dense(2, 3), "query_len=3", "query_len=2", "other token ids"),
    "another batch": (lambda: padding(KEEP).dense(3, batch=5), "batch=2", "batch=5", "other token ids"),
    "other heads": (lambda: per_head([causal()] * 2).dense(3, heads=3), "heads=2", "heads=3", "other token ids"),
    "a negative length": (lambda: causal().dense(-1), "query_len to be 0 or more", "-1", "a sign slip"),
    "a cache beyond the table": (lambda: documents(IDS).after(3), "fewer than 3 cached keys", "3", "cached and new"),
    "a key beyond the table": (
        lambda: padding(KEEP).allows(0, 3),
        "a key index below 3",
        "3",
        "count from 0",
    ),
    "a negative query": (lambda: causal().allows(-1, 0), "the query index to be 0 or more", "-1", "count from 0"),
    "the density of nothing": (lambda: causal().density(0), "at least one query and one key", "0 and 0", "an empty"),
    "a rule that adds": (
        lambda: Mask(lambda b, h, q, k: k - q, name="mine").dense(3),
        "the rule of mine to answer with bools",
        "an int64 tensor of shape (1, 1, 3, 3)",
        "end the rule with a comparison",
    ),
    "a rule that slices": (
        lambda: Mask(lambda b, h, q, k: KEEP[0][None, None, None, None, :], name="mine").dense(3),
        "the rule of mine to answer pair by pair, within shape (1, 1, 3, 3)",
        "a bool tensor of shape (1, 1, 1, 1, 3)",
        "table[batch, key]",
    ),
    "a rule that ignores its indices": (
        lambda: Mask(lambda b, h, q, k: CUBE[0], name="mine").dense(3),
        "pair by pair, within shape (1, 1, 3, 3)",
        "a bool tensor of shape (3, 3)",
        "index it with the indices it is asked for",
    ),
    "a table for a rule": (
        lambda: Mask(KEEP),
        "a rule: a function",
        "a bool tensor of shape (2, 3)",
        "a table; see graph",
    ),
    "half a place": (lambda: causal().allows(0.5, 0), "the query index to be an integer", "0.5 (float)", "a float"),
    "scores for indices": (lambda: causal()(0, 0, 0.5, 1), "integer indices", "a float32 tensor", "a mask or a score"),
    "a comparison with a tensor": (
        lambda: causal().same_as(KEEP, 3),
        "a Mask to compare",
        "a bool tensor",
        "two readings",
    ),
    "nothing for a head": (lambda: per_head([causal(), None]), "a list of masks", "None (NoneType)", "inside the list"),
    "a bool for a size": (lambda: sliding_window(True), "left to be an integer", "True (bool)", "a bool"),
    "a size beyond all bounds": (
        lambda: sliding_window(2**63),
        "left to be less than 2**62",
        "92233",
        "None was meant",
    ),
    "ids beyond all bounds": (
        lambda: causal(position_ids=torch.tensor([[2**63 - 1]])),
        "position_ids between -2**62 and 2**62",
        "larger numbers",
        "hashes where places were meant",
    ),
    "documents of nothing": (lambda: documents(None), "ids to be an integer tensor", "None", "a tensor was meant"),
    "padding of a mask": (lambda: padding(causal()), "a bool tensor", "causal() (Mask)", "a Mask already"),
    "positions as floats": (
        lambda: causal().at(IDS.float()),
        "query_positions to be an integer tensor of shape (token) or (batch, token)",
        "a float32 tensor of shape (2, 3)",
        "a mask or an embedding where integers were meant",
    ),
    "one position without its axis": (
        lambda: causal().at(torch.tensor(5)),
        "query_positions to be an integer tensor of shape (token) or (batch, token)",
        "an int64 tensor of shape ()",
        "an axis too few or too many",
    ),
    "a number for positions": (
        lambda: causal().at(5),
        "query_positions to be an integer tensor",
        "5 (int)",
        "torch.tensor(...) makes one",
    ),
    "an empty slot for a position": (
        lambda: causal().at(None, torch.tensor([0, -1])),
        "every one of key_positions to be 0 or more",
        "-1",
        "an empty slot in a cache; give that slot position 0, and block it with & padding(filled)",
    ),
    "a query position beyond the table": (
        lambda: documents(IDS).at(torch.tensor([0, 3])),
        "query_positions below 3, as documents(ids[2, 3]) holds",
        "3",
        "a table that covers a part of the sequence",
    ),
    "a key position beyond the table": (
        lambda: padding(KEEP).at(None, torch.tensor([[7, 0]])),
        "key_positions below 3, as padding(keep[2, 3]) holds",
        "7",
        "make the mask from all of it",
    ),
    "positions beyond all bounds": (
        lambda: causal().at(torch.tensor([2**62])),
        "query_positions between -2**62 and 2**62",
        "larger numbers",
        "hashes where places were meant",
    ),
    "positions of another batch": (
        lambda: padding(KEEP).at(IDS.repeat(2, 1)),
        "positions of one batch, for padding(keep[2, 3])",
        "2 and 4",
        "different sets of token ids",
    ),
    "positions of two batches": (
        lambda: causal().at(IDS, IDS.repeat(2, 1)),
        "positions of one batch, for causal()",
        "2 and 4",
        "different sets of token ids",
    ),
    "a cache beyond the positions": (
        lambda: causal().at(IDS).after(3),
        "fewer than 3 cached keys, as causal().at(query_positions[2, 3]) holds 3 queries",
        "3",
        "give it cached and new tokens together",
    ),
    "more queries than positions": (
        lambda: causal().at(IDS).dense(4),
        "query_len=3, as causal().at(query_positions[2, 3]) holds",
        "query_len=4",
        "other token ids",
    ),
    "a chunk of nothing": (lambda: chunked(0), "size to be 1 or more", "0", "rounded down"),
    "a negative chunk": (lambda: chunked(-4), "size to be 0 or more", "-4", "a sign slip"),
    "no dilation": (
        lambda: sliding_window(2, dilation=0),
        "dilation to be 1 or more",
        "0",
        "gaps were counted where steps are; neighbours are 1 apart",
    ),
    "a dilation beyond all bounds": (
        lambda: sliding_window(2**40, dilation=2**40),
        "left * dilation to be less than 2**62",
        "1208925819614629174706176",
        "None was meant",
    ),
    # ---- attend
    "(batch, key) given to attend": (
        lambda: attend_with(KEEP),
        "a Mask, or a bool tensor of four axes (batch, head, query, key), True = may attend",
        "a bool tensor of shape (2, 3)",
        "two readings fit, (batch, key) and (query, key); say which: padding(mask) or graph(mask)",
    ),
    "(batch, query, key) given to attend": (
        lambda: attend_with(CUBE),
        "a bool tensor of four axes",
        "a bool tensor of shape (2, 3, 3)",
        "two readings fit, (batch, query, key) and (head, query, key); say which: from_dense(mask[:, None])",
    ),
    "a float mask given to attend": (
        lambda: attend_with(CUBE[:, None].float()),
        "a bool tensor",
        "float32",
        "zeros and",
    ),
    "an additive mask given to attend": (
        lambda: attend_with(torch.full((1, 1, 3, 3), -INF).triu(1)),
        "a bool tensor of four axes",
        "a float32 tensor",
        "an additive mask",
    ),
    "keep of another batch": (
        lambda: attend_with(padding(KEEP), torch.randn(3, 3, 4)),
        "batch=2, as padding(keep[2, 3]) holds",
        "batch=3",
        "the mask was made from other token ids than the queries and keys",
    ),
    "keep of another length": (
        lambda: attend_with(padding(KEEP), torch.randn(2, 5, 4)),
        "key_len=3",
        "key_len=5",
        "the mask was made from other token ids",
    ),
    "a mask of samples for tokens without a batch": (
        lambda: attend_with(padding(KEEP), torch.randn(3, 4)),
        "(batch, head, query, key) = (1, 1, 3, 3)",
        "padding(keep[2, 3]) of shape (2, 1, 1, 3)",
        "made for another batch",
    ),
    "a mask of heads for tokens without heads": (
        lambda: attend_with(per_head([causal()] * 2)),
        "(batch, head, query, key) = (2, 1, 3, 3)",
        "of shape (1, 2, 3, 3)",
        "another number of heads",
    ),
    "a dense mask of another length": (
        lambda: attend_with(torch.ones(1, 1, 3, 4, dtype=torch.bool)),
        "(batch, head, query, key) = (2, 1, 3, 3)",
        "a bool tensor of shape (1, 1, 3, 4)",
        "another length",
    ),
    "token ids for query": (lambda: attend(IDS, IDS, IDS), "floating-point query", "an int64", "embeddings"),
    "five axes": (
        lambda: attend_with(None, torch.randn(1, 1, 1, 3, 4)),
        "rank 2, 3 or 4",
        "(1, 1, 1, 3, 4)",
        "head axis",
    ),
    "two ranks": (lambda: attend(HEADS, TOKEN, TOKEN), "all three of rank 2, 3 or 4", "key a float32", "head axis"),
    "two batches of tokens": (lambda: attend(TOKEN, TOKEN[:1], TOKEN[:1]), "the same batch", "(1, 3, 4)", "two differ"),
    "fewer key heads": (lambda: attend(HEADS, HEADS[:, :1], HEADS[:, :1]), "and heads", "(2, 1, 3, 4)", "repeat_inter"),
    "two widths": (lambda: attend(TOKEN, TOKEN[..., :2], TOKEN), "the same width d", "(2, 3, 2)", "projections"),
    "two lengths of key and value": (
        lambda: attend(TOKEN, TOKEN, TOKEN[:, :2]),
        "same length",
        "(2, 2, 4)",
        "sequence",
    ),
    "two dtypes": (
        lambda: attend(TOKEN, TOKEN, TOKEN.double()),
        "one dtype on one device",
        "value a float64",
        "half of",
    ),
    "two devices": (
        lambda: attend(TOKEN, TOKEN, TOKEN.to("meta")),
        "on one device",
        "on meta",
        "half of the mod",
    ),
    "a misspelt choice": (
        lambda: attend(TOKEN, TOKEN, TOKEN, causal(), empty_rows="zeros"),
        'empty_rows to be "zero", "nan" or "error"',
        "'zeros'",
        "a spelling slip",
    ),
    "a scale for each key": (
        lambda: attend(TOKEN, TOKEN, TOKEN, scale=torch.ones(3)),
        "scale to be one finite number",
        "a float32 tensor of shape (3,)",
        "a tensor, or a division by zero",
    ),
    "an infinite scale": (
        lambda: attend(TOKEN, TOKEN, TOKEN, scale=INF),
        "one finite number",
        "inf",
        "division by zero",
    ),
    "no width": (lambda: attend_with(None, torch.zeros(2, 3, 0)), "width d, 1 or more", "(2, 3, 0)", "projections"),
    "an additive mask that blocks nothing": (
        lambda: attend_with(torch.zeros(1, 1, 3, 3)),
        "a bool tensor of four axes",
        "a float32 tensor",
        "all zeros: an additive mask that blocks nothing (write mask == 0)",
    ),
    "forgotten parentheses": (lambda: attend_with(causal), "a Mask", "(function)", "forgotten parentheses: causal()"),
    "forgotten parentheses in a rule": (lambda: causal & padding(KEEP), "both sides of &", "(function)", "forgotten"),
    # ---- layers
    "heads that do not divide the width": (
        lambda: Encoder(layers=1, d_model=8, heads=3),
        "d_model to be a multiple of heads",
        "d_model=8, heads=3",
        "a slip",
    ),
    "no heads": (lambda: CrossAttention(8, 0), "a multiple of heads", "heads=0", "a slip"),
    "a mask too few": (
        lambda: ENCODER(TOKEN, [causal()]),
        "one mask for all layers, or a list of 2, one a layer",
        "a list of 1",
        "a layer was left out",
    ),
    "masks from a generator": (
        lambda: ENCODER(TOKEN, (causal() for _ in "ab")),
        "a list of 2",
        "generator",
        "left out",
    ),
    "ids for an encoder": (
        lambda: ENCODER(IDS),
        "float tokens of shape (batch, token, d_model=4)",
        "an int64",
        "embeddings",
    ),
    "one sample for an encoder": (lambda: ENCODER(TOKEN[0]), "(batch, token, d_model=4)", "(3, 4)", "(x[None])"),
    "another width": (lambda: ENCODER(torch.randn(2, 3, 5)), "(batch, token, d_model=4)", "(2, 3, 5)", "another width"),
    "a mask of another convention in a layer": (
        lambda: ENCODER(TOKEN, KEEP),
        "a Mask, or a bool tensor of four axes",
        "(2, 3)",
        "padding(mask)",
    ),
    "source ids in the target": (
        lambda: TRANSLATOR(IDS, IDS),
        "target from 0 to 4, as the embedding has 5 rows",
        "ids from 0 to 7",
        "source and target swapped",
    ),
    "a sentence without positions": (
        lambda: TRANSLATOR(IDS.repeat(1, 3), IDS),
        "at most longest=8 tokens",
        "9",
        "longest was left as it is",
    ),
    # ---- reach
    "one mask for a stack": (lambda: reach(causal(), 3), "a list of masks", "causal()", "write [mask] * layers"),
    "a tensor for a stack": (lambda: reach(KEEP, 3), "a list of masks", "a bool tensor", "padding(mask)"),
    "a tensor for a layer": (lambda: reach([causal(), KEEP], 3), "a list of masks", "a bool tensor", "padding(mask)"),
    "another length for a stack": (lambda: reach([padding(KEEP)], 4), "key_len=3", "key_len=4", "other token ids"),
    "a stack of negative length": (lambda: reach([], -1), "query_len to be 0 or more", "-1", "a sign slip"),
    # ---- influence
    "a probe of no name": (lambda: influence(ENCODER, TOKEN, probe="grad"), '"gradient" or', "'grad'", "spelling slip"),
    "a list of ids": (lambda: influence(EMBEDDING, [[1, 2]]), "inputs to be (batch, position", "[[1, 2]]", "no tensor"),
    "a mask to measure": (lambda: influence(EMBEDDING, KEEP), "inputs to be (batch,", "a bool tensor", "a mask, or"),
    "only masks": (lambda: influence(EMBEDDING, {"mask": KEEP}), "to measure, among ['mask']", "[]", "only masks"),
    "an input that is not there": (
        lambda: influence(EMBEDDING, {"input": IDS}, of=["inputs"]),
        "inputs to measure, among ['input']",
        "['inputs']",
        "a spelling slip",
    ),
    "ids of one sample": (
        lambda: influence(EMBEDDING, IDS[0]),
        "(batch, position) token ids, none of them empty, with positions on axis 1",
        "an int64 tensor of shape (3,)",
        "one sample lacks its batch axis",
    ),
    "positions on an axis that is not there": (
        lambda: influence(ENCODER, TOKEN, position_axis=3),
        "positions on axis 3",
        "(2, 3, 4)",
        "(position_axis=)",
    ),
    "positions from the end": (lambda: influence(ENCODER, TOKEN, position_axis=-2), "0 or more", "-2", "a sign slip"),
    "ids outside the vocabulary": (
        lambda: influence(EMBEDDING, {"input": IDS + 5}),
        "input from 0 to 9, as the embedding has 10 rows",
        "ids from 5 to 12",
        "the tokenizer of another model, or -100 left over from labels",
    ),
    "ids below the vocabulary, looked up by an index": (
        lambda: influence(lambda ids: EMBEDDING.weight[ids], IDS - 1, probe="perturbation"),
        "inputs from 0 to 9",
        "ids from -1 to 6",
        "-100 left over",
    ),
    "ids that meet no embedding": (
        lambda: influence(lambda input: nn.functional.one_hot(input, 10).float(), {"input": IDS}),
        "input that the model looks up in an embedding as they are",
        "no lookup of just these",
        'try probe="perturbation", or give the embedded tokens instead',
    ),
    "ids that are changed on the way": (
        lambda: influence(lambda ids: EMBEDDING(ids + 1), IDS),
        "inputs that the model looks up",
        "no lookup of just these",
        "they are shifted, changed or turned into floats on the way",
    ),
    "ids that nothing can replace": (
        lambda: influence(lambda ids: ids[..., None] * 1.0, torch.zeros(1, 3, dtype=torch.long), probe="perturbation"),
        "inputs that the model looks up",
        "no lookup",
        "embedded tokens instead",
    ),
    "predictions": (
        lambda: influence(lambda x: ENCODER(x).argmax(-1, keepdim=True), TOKEN),
        "an output (batch, position, feature) of floats",
        "an int64 tensor of shape (2, 3, 1)",
        "have the model return the scores they were chosen from",
    ),
    "predictions compared": (
        lambda: influence(lambda x: ENCODER(x).argmax(-1, keepdim=True), TOKEN, probe="perturbation"),
        "of floats",
        "an int64 tensor",
        "predictions",
    ),
    "a pooled output": (
        lambda: influence(lambda x: ENCODER(x).mean(1), TOKEN),
        "an output (batch, position, feature) of floats, positions on axis 1",
        "a float32 tensor of shape (2, 4)",
        "have the model return the one before pooling",
    ),
    "one number a position": (lambda: influence(lambda x: x.sum(-1), TOKEN), "(batch,", "(2, 3)", "output[..., None]"),
    "no output": (lambda: influence(lambda x: None, TOKEN), "an output (batch,", "None (NoneType)", "a pooled output"),
    "one sample without a batch, unsaid": (
        lambda: influence(lambda x: attend(x, x, x).output, TOKEN[0]),
        "an output (batch, position, feature)",
        "(3, 4)",
        "pooled",
    ),
    "an output of another batch": (
        lambda: influence(lambda x: x.flatten(0, 1)[None], TOKEN),
        "as many samples in the output as in each input",
        "1 out, [2] in",
        "the batch folded into the positions",
    ),
    "an output with NaN": (
        lambda: influence(lambda x: x / 0 * 0, TOKEN),
        "an output of numbers",
        "NaN",
        "a query that may look at no key",
    ),
    "a gradient of NaN": (
        lambda: influence(lambda x: x + (x * 0).sum(1, keepdim=True).sqrt().nan_to_num() * 0, TOKEN),
        "gradients of numbers",
        "NaN",
        "a query that may look at no key",
    ),
    "a model without a gradient": (
        lambda: influence(lambda x: x.detach() * 2, TOKEN),
        "an output with a gradient for inputs",
        "none",
        "the model ignores it, or cuts it off (no_grad, detach)",
    ),
    "a model that cannot be trained": (
        lambda: influence(lambda x: (y := x.exp(), y.mul_(2))[1], TOKEN),
        "what the backward pass needs unchanged",
        "a float32 tensor of shape (2, 3, 4) changed in place",
        "cannot be trained",
    ),
    "runs that differ": (
        lambda: influence(lambda x: x + next(TICKS), TOKEN, probe="perturbation"),
        "two runs on the same input to agree bit for bit",
        "two outputs that differ",
        "chance or state of objects",
    ),
    "a forward pass beyond memory": (
        lambda: influence(ENCODER, TOKEN, memory=500),
        "a measurement that fits into memory=500 bytes",
        "more than 500 bytes saved in the forward pass",
        "a shorter input mostly shows the same",
    ),
    "a result beyond memory": (
        lambda: influence(lambda x: x * 1, torch.ones(1, 100, 1), probe="perturbation", memory=9_999),
        "fits into memory=9,999 bytes",
        "a result of 10,000 bytes",
        "a long sequence",
    ),
    "a backbone without gradients": (
        lambda: influence(lambda x: nn.functional.linear(ENCODER(x).detach(), torch.eye(4, requires_grad=True)), TOKEN),
        "an output with a gradient for inputs",
        "none",
        "cuts it off",
    ),
    "an embedding without gradients": (
        lambda: influence(lambda ids: ENCODER(torch.no_grad()(EMBEDDING)(ids)), IDS),
        "an output with a gradient for inputs",
        "none",
        "cuts it off",
    ),
    "an input that is ignored": (
        lambda: influence(lambda x, y: 2 * x, {"x": TOKEN, "y": TOKEN}),
        "an output with a gradient for y",
        "none",
        "the model ignores it",
    ),
    "an axis of no name": (
        lambda: influence(ENCODER, {"x": TOKEN}, position_axis={"inputs": 0}),
        "position_axis for ['x', 'output']",
        "['inputs']",
        "a spelling slip",
    ),
    "an empty batch": (lambda: influence(ENCODER, TOKEN[:0]), "none of them empty", "(0, 3, 4)", "lacks its batch"),
    "an empty sequence": (lambda: influence(ENCODER, TOKEN[:, :0]), "none of them empty", "(2, 0, 4)", "its batch"),
    "lengths among the inputs": (
        lambda: influence(ENCODER, {"x": TOKEN, "lengths": torch.tensor([3, 2])}),
        "lengths to be (batch, position, feature) floats or",
        "an int64 tensor of shape (2,)",
        "it is not to be measured (of= names what is",
    ),
    "two batches in a stack": (
        lambda: reach([padding(KEEP), padding(KEEP[[0, 0, 1]])], 3),
        "masks of one batch",
        "[2, 3] samples",
        "different sets",
    ),
    "forgotten parentheses in a stack": (
        lambda: ENCODER(TOKEN, causal),
        "one mask for all layers",
        "(function)",
        "forgotten parentheses",
    ),
    "floats for a translator": (
        lambda: TRANSLATOR(IDS.float(), IDS),
        "source to be an integer tensor of shape (batch, token)",
        "float32",
        "where integers were meant",
    ),
    # ---- audit
    "a mode of no name": (
        lambda: audit(ENCODER, TOKEN, modes="test"),
        'among "eval" and "train"',
        "['test']",
        "a spelling",
    ),
    "no mode": (lambda: audit(ENCODER, TOKEN, modes=[]), 'among "eval" and "train"', "[]", "a spelling slip"),
    "a negative length to try": (
        lambda: audit(ENCODER, TOKEN, lengths=[-1]),
        "a length to be 0 or more",
        "-1",
        "a sign slip",
    ),
    "a maker of masks for an audit": (
        lambda: audit(ENCODER, TOKEN, causal),
        "allowed to be a Mask, a bool tensor, one of them by name, or a function of the inputs",
        "(function)",
        "forgotten parentheses",
    ),
    "an additive mask for an audit": (
        lambda: audit(ENCODER, TOKEN, torch.zeros(3, 3).masked_fill(torch.ones(3, 3).triu(1) > 0, -INF)),
        "allowed for inputs to be a Mask or a bool tensor of shape (2 or 1, 3, 3)",
        "a float32 tensor of shape (3, 3)",
        "an additive mask",
    ),
    "allowed of two axes": (
        lambda: audit(ENCODER, TOKEN, KEEP),
        "allowed for inputs to be a Mask or a bool tensor of shape (2 or 1, 3, 3)",
        "a bool tensor of shape (2, 3)",
        "two readings fit",
    ),
    "allowed of another length": (
        lambda: audit(ENCODER, TOKEN, reach([causal()], 4)),
        "a bool tensor of shape (2 or 1, 3, 3)",
        "a bool tensor of shape (1, 4, 4)",
        "reach(...) at another length",
    ),
    "allowed of other tokens": (
        lambda: audit(ENCODER, TOKEN, padding(torch.ones(2, 4) > 0)),
        "allowed for inputs to hold 2 samples of 3 outputs and 3 inputs",
        "padding(keep[2, 4])",
        "a mask made from other inputs",
    ),
    "allowed for an input that is not there": (
        lambda: audit(ENCODER, {"x": TOKEN}, {"y": causal()}),
        "allowed for some of the inputs ['x']",
        "['y']",
        "a spelling slip",
    ),
    "allowed by name for a lone tensor": (
        lambda: audit(ENCODER, TOKEN, {"inputs": causal()}),
        "allowed for some of the inputs",
        "['inputs']",
        "names for a lone tensor, which has none",
    ),
    "one mask for a source and a target": (
        lambda: audit(TRANSLATOR, {"source": IDS, "target": IDS % 5}, causal()),
        "allowed for each input by name, as the model takes ['source', 'target']",
        "causal()",
        "allowed={name: mask}",
    ),
    "a sequence that is not there": (
        lambda: audit(ENCODER, {"x": TOKEN}, same_sequence="y"),
        "same_sequence among ['x']",
        "y",
        "a spelling slip",
    ),
    "an output that is shorter": (
        lambda: audit(lambda x: x[:, 1:], TOKEN),
        "as many outputs as inputs under causal()",
        "2 for 3",
        "an output that is pooled, shortened or the last one only",
    ),
    "a mask that is all padding": (
        lambda: audit(ENCODER, TOKEN, padding(KEEP & False)),
        "an output to judge",
        "padding(keep[2, 3])",
        "lets no query look at any key",
    ),
    "chance from outside": (
        lambda: audit(lambda x: x + next(TICKS), TOKEN),
        "two runs on the same input to agree bit for bit",
        "two outputs",
        "chance or state of objects",
    ),
    "tables that do not fit": (
        lambda: audit(ENCODER, TOKEN, memory=500),
        "a measurement that fits into memory=500 bytes",
        "tables of 1,152 bytes",
        "a long sequence",
    ),
    "predictions to audit": (lambda: audit(lambda x: x.argmax(-1), TOKEN), "an output (batch,", "int64", "predictions"),
    "a mask to audit": (lambda: audit(ENCODER, KEEP), "inputs to be (batch, position", "a bool tensor", "a mask, or"),
    "ids of another tokenizer for an audit": (
        lambda: audit(EMBEDDING, IDS + 5),
        "inputs from 0 to 9",
        "ids from 5 to 12",
        "another model",
    ),
    "no model": (lambda: audit(None, TOKEN), "a model: a module or a function", "None (NoneType)", "not called yet"),
    "a class for a model": (
        lambda: audit(Encoder, TOKEN),
        "a model: a module",
        "Encoder",
        "a class that was not called",
    ),
    "a model that never ran": (
        lambda: audit(nn.LazyLinear(4), TOKEN),
        "a model whose weights are made",
        "lazy ones",
        "run it once",
    ),
    "a sparse output": (lambda: audit(lambda x: x.to_sparse(), TOKEN), "densely stored", "(2, 3, 4)", "sparse"),
    "a number for a sequence": (
        lambda: audit(ENCODER, TOKEN, same_sequence=3),
        "a name or a bool",
        "3 (int)",
        "a name",
    ),
    "no modes at all": (lambda: audit(ENCODER, TOKEN, modes=None), "modes among", "[None]", "a spelling slip"),
    "a mask of another batch": (
        lambda: audit(ENCODER, TOKEN[:1], padding(KEEP)),
        "allowed for inputs to hold 1 samples",
        "padding(keep[2, 3])",
        "a mask made from other inputs",
    ),
    "a picture of no report": (
        lambda: plot.show_audit(causal(), "abc"),
        "what audit returned",
        "causal()",
        "call audit",
    ),
    "a picture of another input": (
        lambda: plot.show_audit(audit(ENCODER, TOKEN, everything(), **QUICK), "abc", of="y"),
        "one of the inputs ['inputs']",
        "'y'",
        "a spelling slip",
    ),
    "a picture of other tokens": (
        lambda: plot.show_audit(audit(ENCODER, TOKEN, everything(), **QUICK), "abcd", batch=2),
        "a sample below 2, 3 output tokens and 3 input tokens",
        "sample 2, 4 and 4 tokens",
        "the tokens of another sequence",
    ),
    # ---- letters and pictures
    "two tokens of one name": (lambda: symbolic.scores(["the", "cat", "the"]), "a name each", "'cat'", "comes twice"),
    "letters for a batch": (lambda: symbolic.additive(CUBE, 3), "(query, key)", "(2, 3, 3)", "pick one sample"),
    "a picture of a cube": (lambda: plot.show_matrix(CUBE, "ab", "abc"), "two axes", "(2, 3, 3)", "pick one"),
    "blocked cells of another matrix": (
        lambda: plot.show_matrix(torch.eye(3), "abc", "abc", blocked=KEEP),
        "blocked to be bool, shaped as values",
        "(2, 3)",
        "a mask of other tokens",
    ),
    "rows of unequal length": (
        lambda: plot.show_letters([["a", "b"], ["c"]], "ab", "ab"),
        "2 rows of 2 texts",
        "rows of [2, 1]",
        "a row too short or too long",
    ),
    "a picture without tokens": (lambda: plot.show_mask(causal(), ""), "1 or more", "rows [0]", "without tokens"),
    "a sample that is not there": (
        lambda: plot.show_steps(attend_with(None), "abc", batch=2),
        "sample 2 and head 0",
        "a float32 tensor of shape (2, 3, 3)",
        "beyond what there is",
    ),
    "a sample from the end": (lambda: plot.show_mask(causal(), "ab", batch=-1), "from 0", "-1 and 0", "do not wrap"),
    "integers for the four tokens": (
        lambda: four_tokens(dtype=torch.uint8),
        "a floating dtype",
        "torch.uint8",
        "integer",
    ),
    "a batch of letters": (lambda: symbolic.additive(padding(KEEP), 3), "one sample and one head", "(2, 1", "pick one"),
    "values of another sequence": (
        lambda: symbolic.output(symbolic.softmax(symbolic.scores("ab")), "abc"),
        "one column of weights for each of 3 values",
        "2 columns",
        "another sequence",
    ),
    "labels of another sequence": (
        lambda: plot.show_matrix(torch.eye(2), "abc", "ab"),
        "a matrix of 3 rows and 2 columns, as there are labels",
        "shape (2, 2)",
        "the tokens of another sequence",
    ),
    "nothing to compare": (lambda: plot.compare({}, "ab"), "at least one result to draw", "none", "an empty dict"),
    "too few Axes": (
        lambda: plot.show_steps(attend_with(None), "abc", axes=[plot.plt.gca()]),
        "four Axes, one a step",
        "1",
        "a subplot grid of another size",
    ),
    "panels of unequal lists": (
        lambda: plot.panels([4, 4], [4]),
        "a number of rows and of columns",
        "rows [4] and columns [4, 4]",
        "left out",
    ),
    "Axes for other results": (
        lambda: plot.compare({"one": causal()}, "ab", axes=[]),
        "as many Axes as results",
        "0 for 1",
        "a subplot grid",
    ),
    "a flow through nothing": (lambda: plot.show_flow([], "ab"), "a layer to draw", "none", "an empty list of masks"),
    "a flow of a sample that is not there": (
        lambda: plot.show_flow([padding(KEEP)], "abc", batch=2),
        "batch=2, as padding(keep[2, 3]) holds",
        "batch=3",
        "other token ids",
    ),
    "a flow of a sample from the end": (lambda: plot.show_flow([causal()], "abc", batch=-1), "0 or more", "-1", "sign"),
    "a flow of other tokens": (lambda: plot.show_flow([padding(KEEP)], "ab"), "key_len=3", "key_len=2", "other token"),
    "a mask picture of a matrix": (
        lambda: plot.show_mask(torch.eye(2) > 0, "ab"),
        "(batch, head, query, key)",
        "(2, 2)",
        "graph(mask)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_meets_a_sentence(name):
    call, expected, got, cause = CASES[name]
    with pytest.raises((ValueError, TypeError, ImportError)) as caught:
        call()
    sentence = str(caught.value)
    assert sentence.startswith("Expected ")
    wanted, rest = sentence.split("; got ", 1)
    came, likely = rest.split(". Likely cause: ", 1)
    assert expected in wanted
    assert got in came
    assert cause in likely


def test_an_unknown_device_meets_a_sentence(monkeypatch):
    monkeypatch.setenv("ATTNMASK_DEVICE", "abacus")
    with pytest.raises(ValueError, match=r"Expected ATTNMASK_DEVICE to name a device .* got 'abacus'"):
        default_device()
    monkeypatch.setenv("ATTNMASK_DEVICE", "cpu")
    assert default_device() == torch.device("cpu")
