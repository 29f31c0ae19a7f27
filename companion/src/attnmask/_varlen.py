"""Packed sequences, as FlashAttention takes them: which pairs they hold, and which masks they can hold."""

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int32, Int64
from torch import Tensor


class Varlen(NamedTuple):
    """A packed batch, as ``flash_attn_varlen_func`` takes it.

    Attributes
    ----------
    query_at, key_at
        The rows of the flattened (batch * length) queries and keys that are packed, in order.
    cu_seqlens_q, cu_seqlens_k
        Where each sequence starts among them, and where the last one ends.
    max_seqlen_q, max_seqlen_k
        The longest sequence.
    causal
        Whether a query sees no key after its own, counted from the lower right corner
        of each sequence.
    """

    query_at: Int64[Tensor, " packed_query"]
    key_at: Int64[Tensor, " packed_key"]
    cu_seqlens_q: Int32[Tensor, " sequences_and_1"]
    cu_seqlens_k: Int32[Tensor, " sequences_and_1"]
    max_seqlen_q: int
    max_seqlen_k: int
    causal: bool


def pack(allowed: Bool[Tensor, "batch query key"]) -> Varlen | None:
    """Return the sequences that hold just these pairs, or None where no sequences do.

    Queries that see nothing are left out, and so are keys that nobody sees. A new
    sequence starts where the first key that a query sees is another one than before.
    """
    batch, query_len, key_len = allowed.shape
    sees, seen = allowed.any(dim=2), allowed.any(dim=1)  # (batch, query), (batch, key)
    own = key_len * torch.arange(batch, device=allowed.device)[:, None]
    first_key = (allowed.int().argmax(dim=2) if key_len else allowed.sum(dim=2)) + own  # among all keys of the batch
    starts, query_lens = torch.unique_consecutive(first_key[sees], return_counts=True)
    bounds = [*starts.tolist(), batch * key_len]
    if any(start >= end for start, end in pairwise(bounds)):
        return None
    key_lens = [int(seen.flatten()[start:end].sum()) for start, end in pairwise(bounds)]
    for causal in (False, True):
        packed = Varlen(
            query_at=sees.flatten().nonzero()[:, 0],
            key_at=seen.flatten().nonzero()[:, 0],
            cu_seqlens_q=_cumulative(query_lens.tolist()),
            cu_seqlens_k=_cumulative(key_lens),
            max_seqlen_q=max(query_lens.tolist(), default=0),
            max_seqlen_k=max(key_lens, default=0),
            causal=causal,
        )
        if torch.equal(unpack(packed, batch, query_len, key_len), allowed.cpu()):
            return packed
    return None


def unpack(packed: Varlen, batch: int, query_len: int, key_len: int) -> Bool[Tensor, "batch query key"]:
    """Return which pairs a packed batch holds, on the CPU: True = may attend."""
    pairs = torch.zeros(batch * query_len, batch * key_len, dtype=torch.bool)
    query, key = 0, 0
    for query_end, key_end in zip(packed.cu_seqlens_q.tolist()[1:], packed.cu_seqlens_k.tolist()[1:], strict=True):
        block = torch.ones(query_end - query, key_end - key, dtype=torch.bool)
        if packed.causal:  # lower right: the last query sees every key
            block = block.tril(block.shape[1] - block.shape[0])
        pairs[packed.query_at[query:query_end, None].cpu(), packed.key_at[key:key_end].cpu()] = block
        query, key = query_end, key_end
    sample = torch.arange(batch)
    return pairs.view(batch, query_len, batch, key_len)[sample, :, sample]


def _cumulative(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()
