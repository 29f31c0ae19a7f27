"""What masks refuse, where they are made, joined and asked."""

import pytest
import torch

from attnmask import (
    Mask,
    causal,
    chunked,
    documents,
    everything,
    from_dense,
    graph,
    padding,
    per_head,
    prefix,
    sliding_window,
)
from errors import CUBE, IDS, INF, KEEP, meets_a_sentence

pytestmark = pytest.mark.usefixtures("as_installed")


CASES = {
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
    "forgotten parentheses in a rule": (lambda: causal & padding(KEEP), "both sides of &", "(function)", "forgotten"),
    # ---- at, chunked, dilation
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
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_meets_a_sentence(name):
    meets_a_sentence(*CASES[name])
