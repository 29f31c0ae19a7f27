"""Caches and other memory of earlier calls."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from corpus.parts import Attention, Decoder, lower, made, softmax
from corpus.registry import FIRST, fault


class Chunked(Attention):
    """Attention in chunks of three queries over a growing cache; `diagonal` comes from (cached, total)."""

    def __init__(self, diagonal: Callable[[int, int], int]) -> None:
        super().__init__()
        self.diagonal = diagonal

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        chunks = []
        for cached in range(0, query.shape[2], 3):
            total = min(cached + 3, query.shape[2])
            scores = query[:, :, cached:total] / 2 @ key[:, :, :total].mT
            chunks.append(softmax(scores, lower(scores, self.diagonal(cached, total))) @ value[:, :, :total])
        return torch.cat(chunks, 2)


class _EvictingCache(Attention):
    """Only the last four keys are kept, and is_causal counts queries and keys both from the upper left."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(query, key[:, :, -4:], value[:, :, -4:], is_causal=True)


class _KeptMemory(Attention):
    """Keys and values of the call before stay in front of the new ones."""

    past: tuple[Tensor, Tensor] | None = None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        new = (key.detach(), value.detach())
        if self.past is not None:
            key, value = torch.cat([self.past[0], key], 2), torch.cat([self.past[1], value], 2)
        self.past = new
        scores = query / 2 @ key.mT
        return softmax(scores, lower(scores, key.shape[2] - query.shape[2])) @ value


class _UnclearedCache(Attention):
    """Chunks of three are written into a fixed cache, whose slots to come count as empty and stay unmasked."""

    slots: tuple[Tensor, Tensor] | None = None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        if self.slots is None:
            self.slots = torch.zeros_like(key), torch.zeros_like(value)
        chunks = []
        for start in range(0, query.shape[2], 3):
            rows = slice(start, min(start + 3, query.shape[2]))
            for slot, new in zip(self.slots, (key, value), strict=True):
                slot[:, :, rows] = new[:, :, rows].detach()
            scores = query[:, :, rows] / 2 @ self.slots[0].mT
            to_come = torch.arange(scores.shape[-1]) >= rows.stop
            chunks.append(softmax(scores, lower(scores, start) | to_come) @ self.slots[1])
        return torch.cat(chunks, 2)


fault(
    "cache_length_counts_the_new_tokens",
    "The cache's length is read after the update, so a chunk sees all of itself.",
    made(lambda: Decoder(*(Chunked(lambda cached, total: total) for _ in range(2)))),
    at=(0, 3),
    where=FIRST,
)
fault(
    "cache_offset_one_too_large",
    "The offset of a chunk behind its cache is one too large; the first chunk is right.",
    made(lambda: Decoder(*(Chunked(lambda cached, total: cached + (cached > 0)) for _ in range(2)))),
    at=(0, 4),
    cells=[(0, 5)],
    where=FIRST,
)
fault(
    "upper_left_causal_over_evicted_cache",
    "is_causal aligns query 0 with key 0, and key 0 is not position 0 any more.",
    made(lambda: Decoder(_EvictingCache(), _EvictingCache())),
    where=FIRST,
)
fault(
    "memory_of_the_call_before",
    "The keys of the call before are not thrown away; the first call is right.",
    made(lambda: Decoder(_KeptMemory(), _KeptMemory())),
    where=FIRST,
)
fault(
    "cache_not_cleared",
    "Slots of a fixed cache that are still to be written hold the call before.",
    made(lambda: Decoder(_UnclearedCache(), _UnclearedCache())),
    at=(0, 1),
    cells=[(0, 5), (0, 6)],
    where=FIRST,
)
