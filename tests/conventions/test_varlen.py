"""Packed sequences: which masks they hold, tried by every way to cut, and what they compute."""

from dataclasses import asdict
from itertools import combinations, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnmask import attend, causal, conventions, documents, padding
from attnmask.conventions import Varlen
from oracles import cases, table

KEEP = torch.tensor([[True, True, True, False, False], [True, True, True, True, False]])


def splits(places):
    """All ways to cut a list into runs."""
    inner = range(1, len(places))
    for number in range(len(places)):
        for cuts in combinations(inner, number):
            yield [places[i:j] for i, j in zip((0, *cuts), (*cuts, len(places)), strict=True)]
    if not places:
        yield []


def packable(allowed):
    """Try every way to cut the queries and the keys of one sample into sequences."""
    queries = [q for q, row in enumerate(allowed) if any(row)]
    keys = [k for k in range(len(allowed[0])) if any(row[k] for row in allowed)]
    found = set()
    for of_queries, of_keys, flag in product(splits(queries), splits(keys), (False, True)):
        if len(of_queries) == len(of_keys):
            pairs = {
                (q, k)
                for own, others in zip(of_queries, of_keys, strict=True)
                for i, q in enumerate(own)
                for j, k in enumerate(others)
                if not flag or j <= i + len(others) - len(own)
            }
            if pairs == {(q, k) for q in queries for k in keys if allowed[q][k]}:
                found.add(flag)
    return found


@given(cases(depth=2))
def test_flash_holds_sequences_and_refuses_others(case):
    wanted, sizes = table(case.rule, case.sizes), asdict(case.sizes)
    del sizes["heads"]
    same_heads = (wanted == wanted[:, :1]).all() and case.mask.heads == 1
    ways = [packable(sample[0].tolist()) for sample in wanted]
    possible = set.intersection(*ways)
    if not same_heads:
        wanted = case.mask.dense(**sizes)
        possible = possible if (wanted == wanted[:, :1]).all() else set()
    if possible:
        packed = conventions.to_flash(case.mask, **sizes)
        assert packed.causal in possible
        assert conventions.from_flash(packed, **sizes).same_as(case.mask, **sizes)
        assert packed.max_seqlen_q == max(packed.cu_seqlens_q.diff().tolist(), default=0)
        assert packed.max_seqlen_k == max(packed.cu_seqlens_k.diff().tolist(), default=0)
    else:
        with pytest.raises(ValueError, match="a mask that cumulative lengths cannot hold"):
            conventions.to_flash(case.mask, **sizes)


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=3), st.booleans())
def test_packed_documents_come_back(lengths, flag):
    """Cumulative lengths by hand: the sum of the lengths so far."""
    longest = max(sum(row) for row in lengths)
    ids = [[d for d, n in enumerate(row) for _ in range(n)] + [-1] * (longest - sum(row)) for row in lengths]
    keep = torch.tensor(ids) >= 0
    mask = documents(torch.tensor(ids)) & padding(keep) & padding(keep).T
    mask = causal() & mask if flag else mask
    packed = conventions.to_flash(mask, longest)
    assert packed.cu_seqlens_q.diff().tolist() == [n for row in lengths for n in row]
    assert packed.cu_seqlens_q.dtype == torch.int32
    assert isinstance(packed, Varlen)
    assert conventions.from_flash(packed, longest, batch=len(ids)).same_as(mask, longest)


def test_packed_sequences_give_what_attend_gives_with_the_mask():
    """The kernel runs on GPUs only; here each sequence is one plain attention."""
    chance = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 1, 5, 4, generator=chance)  # each (batch, head, token, d)
    ids = torch.tensor([[0, 0, 0, 1, 1], [2, 2, 3, 3, 3]])
    for mask in (documents(ids), causal() & documents(ids), causal() & padding(KEEP) & padding(KEEP).T):
        packed = conventions.to_flash(mask, 5)
        output = torch.zeros(2 * 5, 4)
        flat = [each.transpose(1, 2).flatten(0, 1)[:, 0] for each in (query, key, value)]  # (batch * token, d)
        bounds = zip(packed.cu_seqlens_q.tolist(), packed.cu_seqlens_k.tolist(), strict=True)
        (start, key_start), *others = bounds
        for end, key_end in others:
            at, key_at = packed.query_at[start:end], packed.key_at[key_start:key_end]
            own = causal().after(len(key_at) - len(at)) if packed.causal else None
            output[at] = attend(flat[0][at], flat[1][key_at], flat[2][key_at], own).output
            start, key_start = end, key_end
        torch.testing.assert_close(output.view(2, 5, 4), attend(query, key, value, mask).output[:, 0])
