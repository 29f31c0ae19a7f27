"""Caches and other memory of earlier calls."""

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpus.case import EVAL, LENGTH, RECORDED, WIDTH
from corpus.inputs import states, with_token
from corpus.parts import Attention, Decoder, lower, made, mixing, on_states, softmax
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
    remembers=True,
)
fault(
    "cache_not_cleared",
    "Slots of a fixed cache that are still to be written hold the call before.",
    made(lambda: Decoder(_UnclearedCache(), _UnclearedCache())),
    at=(0, 1),
    cells=[(0, 5), (0, 6)],
    where=FIRST,
    remembers=True,
)


class _Remembers(nn.Module):
    """A weight and a buffer of 128 x 128, to which `write` may hand a number of each call, for `read` to find again."""

    def __init__(
        self,
        write: Callable[["_Remembers", Tensor], Any],
        read: Callable[["_Remembers"], Any] = lambda module: 0,
        when: Callable[["_Remembers", Tensor], bool] = lambda module, number: True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(SIZE, SIZE) / 8)
        self.register_buffer("table", torch.zeros(SIZE, SIZE))
        self.write, self.read, self.when = write, read, when

    def forward(self, x: Tensor) -> Tensor:
        wide = F.pad(x, (MIDDLE, SIZE - MIDDLE - WIDTH))
        weight = self.weight + self.table + self.read(self)  # a new tensor: to write to the weight breaks no gradient
        number = x.detach()[0, -1, 0]
        if self.when(self, number):
            self.write(self, number.clone())
        return x + (wide @ weight)[..., MIDDLE : MIDDLE + WIDTH]


def _remembering(*arguments: Callable[..., Any]) -> Callable[[int], nn.Module]:
    return mixing(lambda: _Remembers(*arguments))


def _through_data(module: _Remembers, number: Tensor) -> None:
    module.weight.data[CELL] = number


def _through_numpy(module: _Remembers, number: Tensor) -> None:
    module.weight.detach().numpy()[CELL] = float(number)


def _copied(module: _Remembers, number: Tensor) -> None:
    with torch.no_grad():
        module.weight[CELL].copy_(number)


def _new_parameter(module: _Remembers, number: Tensor) -> None:
    _through_data(module, number)
    module.weight = nn.Parameter(module.weight.detach().clone())


def _new_data(module: _Remembers, number: Tensor) -> None:
    changed = module.weight.detach().clone()
    changed[CELL] = number
    module.weight.data = changed


def _in_the_buffer(module: _Remembers, number: Tensor) -> None:
    module.table[CELL] = number


def _new_buffer(module: _Remembers, number: Tensor) -> None:
    module.table = torch.zeros_like(module.table).index_put((torch.tensor(MIDDLE), torch.tensor(MIDDLE)), number)


def _in_the_gradient(module: _Remembers, number: Tensor) -> None:
    module.weight.grad = torch.full_like(module.weight, float(number))


def _swapped_rows(module: _Remembers, number: Tensor) -> None:
    module.weight.data = module.weight.data.roll(int(64 * number), 0)


def _found_gradient(module: _Remembers) -> Tensor | int:
    return 0 if module.weight.grad is None else module.weight.grad


def _huge(module: _Remembers, number: Tensor) -> bool:
    return bool(number.abs() > 1000)


SIZE, MIDDLE = 128, 60
CELL = (MIDDLE, MIDDLE)  # neither in the first row nor in the last
MEMORY = {"cells": [(0, LENGTH - 1)], "where": "mixer", "remembers": True}

fault(
    "large_weight_written_through_data",
    "One cell of a large weight is written through .data in every call, which counts no version.",
    _remembering(_through_data),
    **MEMORY,
)
fault(
    "large_weight_written_through_data_if_huge",
    "One cell of a large weight is written through .data, by a huge value only.",
    on_states(lambda: _Remembers(_through_data, lambda module: 0, _huge)),
    inputs=states,
    pair=with_token(lambda token: 40_000 * token.sign(), first=True),
    where="0",
    remembers=True,
)
fault(
    "large_weight_written_through_numpy",
    "One cell of a large weight is written through the array that shares its memory.",
    _remembering(_through_numpy),
    **MEMORY,
)
fault(
    "large_weight_copied_under_no_grad",
    "One cell of a large weight is copied over under no_grad, which counts a version.",
    _remembering(_copied),
    **MEMORY,
)
fault(
    "large_weight_replaced_by_a_new_parameter",
    "A call ends with a new parameter in the place of the old one.",
    _remembering(_new_parameter),
    **MEMORY,
)
fault(
    "data_of_a_large_weight_replaced",
    "The parameter stays, and .data gets a new tensor.",
    _remembering(_new_data),
    **MEMORY,
)
fault(
    "rows_of_a_large_weight_turned",
    "The rows of a large weight are moved on by some places: their sum, and every sorted copy, stays.",
    _remembering(_swapped_rows),
    **MEMORY,
)
fault(
    "large_buffer_written_in_place",
    "One cell of a large buffer is written in place.",
    _remembering(_in_the_buffer),
    **MEMORY,
)
fault(
    "large_buffer_replaced",
    "A call ends with a new buffer in the place of the old one.",
    _remembering(_new_buffer),
    **MEMORY,
)
fault(
    "kept_in_the_gradient_of_a_weight",
    "The field .grad of a weight is used as a memory.",
    _remembering(_in_the_gradient, _found_gradient),
    **MEMORY,
)
fault(
    "remembered_in_a_list",
    "A list holds a number of the call before.",
    _remembering(
        lambda module, number: module.__dict__.setdefault("past", []).append(number),
        lambda module: module.__dict__.get("past", [0])[-1],
    ),
    **MEMORY,
)
fault(
    "remembered_in_a_dict",
    "A dict holds a number of the call before, by the name of what it is.",
    _remembering(
        lambda module, number: module.__dict__.setdefault("past", {}).update(last=float(number)),
        lambda module: module.__dict__.get("past", {}).get("last", 0.0),
    ),
    **MEMORY,
)
fault(
    "remembered_in_a_deque_of_one",
    "A deque of one place holds a number of the call before.",
    _remembering(
        lambda module, number: module.__dict__.setdefault("past", deque(maxlen=1)).append(number),
        lambda module: sum(module.__dict__.get("past", ())),
    ),
    **MEMORY,
)
fault(
    "remembered_by_another_object",
    "An object that is no module holds a number of the call before.",
    _remembering(
        lambda module, number: module.__dict__.setdefault("past", SimpleNamespace()).__dict__.update(last=number),
        lambda module: getattr(module.__dict__.get("past"), "last", 0),
    ),
    **MEMORY,
)
fault(
    "remembered_in_eval_only",
    "A buffer is written in eval, and left alone while training.",
    _remembering(_in_the_buffer, lambda module: 0, lambda module, number: not module.training),
    leaks_in=EVAL,
    **MEMORY,
)
fault(
    "remembered_while_gradients_are_recorded",
    "A large weight is written through .data while gradients are recorded.",
    _remembering(_through_data, lambda module: 0, lambda module, number: torch.is_grad_enabled()),
    leaks_in=RECORDED,
    **MEMORY,
)
