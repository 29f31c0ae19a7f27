"""Which pairs do packed sequences hold, as FlashAttention takes them, and which masks can they hold?"""

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int32, Int64
from torch import Tensor

from attnmask._check import kind_of, type_error, value_error


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
            cu_seqlens_q=_cumulative(query_lens.tolist(), allowed.device),
            cu_seqlens_k=_cumulative(key_lens, allowed.device),
            max_seqlen_q=max(query_lens.tolist(), default=0),
            max_seqlen_k=max(key_lens, default=0),
            causal=causal,
        )
        if torch.equal(unpack(packed, batch, query_len, key_len), allowed.cpu()):
            return packed
    return None


def unpack(packed: Varlen, batch: int, query_len: int, key_len: int) -> Bool[Tensor, "batch query key"]:
    """Return which pairs a packed batch holds, on the CPU: True = may attend."""
    _check(packed, batch, query_len, key_len)
    pairs = torch.zeros(batch, query_len, key_len, dtype=torch.bool, device="cpu")
    bounds = zip(pairwise(packed.cu_seqlens_q.tolist()), pairwise(packed.cu_seqlens_k.tolist()), strict=True)
    for queries, keys in bounds:
        query_at, key_at = packed.query_at[slice(*queries)].cpu(), packed.key_at[slice(*keys)].cpu()
        samples = torch.unique(torch.cat([query_at // max(query_len, 1), key_at // max(key_len, 1)])).tolist()
        if len(samples) > 1:
            expected = f"every sequence to lie in one of {batch} samples of {query_len} queries and {key_len} keys"
            raise value_error(expected, f"one in samples {samples}", "another batch or length than when it was packed")
        block = torch.ones(len(query_at), len(key_at), dtype=torch.bool, device="cpu")
        if packed.causal:  # lower right: the last query sees every key
            block = block.tril(block.shape[1] - block.shape[0])
        for sample in samples:
            pairs[sample, query_at[:, None] % query_len, key_at % key_len] = block
    return pairs


def _check(packed: Varlen, batch: int, query_len: int, key_len: int) -> None:
    """Raise unless the fields fit each other and the sizes."""
    if not isinstance(packed, Varlen):
        raise type_error("a Varlen, as to_flash gives", kind_of(packed), "its cu_seqlens alone; describe reads those")
    for at, starts, room in (
        (packed.query_at, packed.cu_seqlens_q, batch * query_len),
        (packed.key_at, packed.cu_seqlens_k, batch * key_len),
    ):
        if int(starts[-1]) != len(at) or (len(at) and not 0 <= int(at.min()) <= int(at.max()) < room):
            got = f"{len(at)} packed up to {int(at.max()) if len(at) else 0}, of which {int(starts[-1])} in sequences"
            raise value_error(f"packed rows below {room}, all of them in sequences", got, "another batch or length")
    if len(packed.cu_seqlens_q) != len(packed.cu_seqlens_k):
        got = f"{len(packed.cu_seqlens_q) - 1} and {len(packed.cu_seqlens_k) - 1}"
        raise value_error("as many sequences of queries as of keys", got, "the lengths of two different batches")


def _cumulative(lengths: list[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *lengths], device=device).cumsum(0).int()
