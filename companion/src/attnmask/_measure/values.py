"""Which other values can an input take?"""

from collections.abc import Collection
from enum import Enum

import torch
from torch import Tensor

from attnmask._check import value_error
from attnmask._measure.lookups import no_lookup


class Kind(Enum):
    """One kind of other values, for floats or for token ids; those of the first three differ everywhere from ids."""

    SMALL = "as large as the tokens, drawn anew; of ids, others"
    LARGE = "ten times as large; of ids, others"
    MOVED = "those of another place; of ids, others"
    HUGE = "10,000 times as large; of ids, the three first and last of the vocabulary by turns"
    OPPOSITE = "10,000 times as large, with the other sign; of ids, the last one"
    ZERO = "zeros; of ids, the first one"
    EQUAL = "one and the same everywhere, drawn anew; of ids, that of the seed's number"
    REPEATED = "that of the sample's first place everywhere"
    THERE = "as SMALL; of ids, those that stand in the inputs, in turn; with the next seed, a quarter further"


def other_values(
    name: str,
    values: Tensor,
    kind: Kind,
    vocabulary: int | None = None,
    seed: int = 0,
    without: Collection[int] = (),
) -> Tensor:
    """Return a tensor of the same shape and dtype, (batch, position, …), with values of one kind.

    ``without``: ids that are not among them.

    >>> other_values("x", torch.tensor([[[1.0], [3.0]]]), Kind.REPEATED).flatten().tolist()
    [1.0, 1.0]
    >>> other_values("ids", torch.tensor([[4, 0]]), Kind.SMALL, vocabulary=2 + 3).shape
    torch.Size([1, 2])
    """
    if values.is_floating_point():
        return _other_floats(values.detach(), kind, seeded(seed))
    return _other_ids(name, values, kind, vocabulary, seed, without)


def _other_floats(values: Tensor, kind: Kind, chance: torch.Generator) -> Tensor:
    spread = values.std(correction=0)
    spread = torch.where((spread > 0) & spread.isfinite(), spread, 1)
    drawn = torch.randn(values.shape, generator=chance, device="cpu").to(values) * spread
    most = torch.finfo(values.dtype).max / 4
    match kind:
        case Kind.REPEATED:
            return values[:, :1].expand_as(values).clone()
        case Kind.LARGE:
            return 10 * drawn
        case Kind.MOVED:
            return values.flatten().roll(values[:1, :1].numel()).reshape(values.shape)
        case Kind.HUGE:
            return (1e4 * drawn).clamp(-most, most)
        case Kind.OPPOSITE:
            return (-1e4 * drawn).clamp(-most, most)
        case Kind.ZERO:
            return torch.zeros_like(values)
        case Kind.EQUAL:
            return drawn[:1, :1].expand_as(values).clone()
    return drawn


def _other_ids(
    name: str, values: Tensor, kind: Kind, vocabulary: int | None, seed: int, without: Collection[int]
) -> Tensor:
    chance, there = seeded(seed), torch.unique(values)
    ids = there  # where none was looked up, exchange those that are there
    if vocabulary is not None:
        ids = torch.arange(min(vocabulary, torch.iinfo(values.dtype).max + 1), device=values.device)
    if len(ids) < 2:
        raise no_lookup(name)
    if without:
        ids, there = (each[~torch.isin(each, torch.tensor([*without]).to(each))] for each in (ids, there))
        if len(ids) < 2:
            cause = "without_ids leaves none to change others to"
            raise value_error(f"two ids of {name} or more to try", f"{len(ids)}", cause)

    def drawn(low: int, high: int) -> Tensor:
        return torch.randint(low, high, values.shape, generator=chance, device="cpu").to(ids.device)

    places = torch.searchsorted(ids, values.to(ids).contiguous())
    match kind:
        case Kind.REPEATED:
            places = places[:, :1].expand_as(places) % len(ids)
        case Kind.THERE if len(there):
            turn = seed * max(1, len(there) // 4) + torch.arange(values.numel(), device=values.device)
            return there[turn.reshape(values.shape) % len(there)].to(values.dtype)
        case Kind.HUGE:
            places = (torch.arange(places.numel(), device=places.device).reshape(places.shape) + seed) % 6 - 3
            places = places % len(ids)
        case Kind.OPPOSITE:
            places = torch.full_like(places, len(ids) - 1)
        case Kind.ZERO:
            places = torch.zeros_like(places)
        case Kind.EQUAL:
            token = seed % vocabulary if vocabulary else ids[seed % len(ids)]
            places = torch.full_like(places, int(torch.searchsorted(ids, token))) % len(ids)
        case Kind.SMALL | Kind.LARGE | Kind.MOVED | Kind.THERE:
            places = (places + drawn(1, len(ids))) % len(ids)
    return ids[places].to(values.dtype)


def seeded(seed: int = 0) -> torch.Generator:
    """Return a source of chance that users are unlikely to draw their inputs with."""
    return torch.Generator().manual_seed(0x5EED + seed)
