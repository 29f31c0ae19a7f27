"""What was found on one case?"""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attnmask._audit.records import (
    Case,
    Effect,
    Evidence,
    Finished,
    Hidden,
    Hit,
    Mixed,
    Mode,
    Named,
    NanOutput,
    Narrow,
    NotTried,
    Reached,
    Remembered,
    Tried,
    Verdict,
)


class PairSizes:
    """Pairs that were reached, (batch, output, batch, input): how large the effect was, and what saw it."""

    def __init__(self, table: Tensor) -> None:
        batch, outputs, inputs = table.shape
        self.size = torch.zeros(batch, outputs, batch, inputs, dtype=torch.float64)
        self.seen: dict[Evidence, Tensor] = {}

    @property
    def known(self) -> Tensor:
        """Which pairs there are."""
        return self.size > 0

    def add(self, pairs: Tensor, size: Tensor, evidence: Evidence) -> None:
        """Note pairs with their sizes."""
        if bool(pairs.any()):
            self.seen[evidence] = self.seen.get(evidence, torch.zeros_like(pairs)) | pairs
            self.size = torch.where(pairs, torch.maximum(self.size, size), self.size)

    def copy(self) -> "PairSizes":
        """Return the same pairs, to be added to."""
        other = copy.copy(self)
        other.seen = dict(self.seen)
        return other

    def explains(self, cells: Tensor) -> Tensor:
        """Return the outputs (batch, output) that some of these inputs are known to reach."""
        return (self.known & cells).flatten(2).any(-1)


@dataclass(eq=False)
class Findings:
    """What was found on one case: the only place where anything is kept."""

    case: Case
    leaks: dict[str, PairSizes] = field(default_factory=dict)
    suspects: dict[str, PairSizes] = field(default_factory=dict)
    nan: dict[str, PairSizes] = field(default_factory=dict)
    reached: dict[str, Tensor] = field(default_factory=dict)  # (batch, output, input)
    modules: dict[tuple[str, int, int, int, int], str] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)  # in which modules finish
    hidden: dict[tuple[str, Mode], Hidden] = field(default_factory=dict)
    narrow: tuple[str, ...] = ()  # the modules that hide it
    effects: dict[str, bool] = field(default_factory=dict)  # of mask arguments
    remembered: dict[tuple[int, int], Remembered] = field(default_factory=dict)  # by (sample, output)
    nan_at_once: dict[tuple[int, int], NanOutput] = field(default_factory=dict)  # by (sample, output)
    mixed_copies: int = 0
    tried: dict[Tried, None] = field(default_factory=dict)
    not_tried: dict[NotTried, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, table in self.case.allowed.items():
            for kind in (self.leaks, self.suspects, self.nan):
                kind.setdefault(name, PairSizes(table))
            self.reached.setdefault(name, torch.zeros_like(table))

    @property
    def leaking(self) -> bool:
        """Whether there is a leak, or a NaN."""
        found = [*self.leaks.values(), *self.nan.values()]
        return bool(self.remembered or self.nan_at_once or any(bool(each.known.any()) for each in found))

    @property
    def failed(self) -> bool:
        """Whether there is a leak, a NaN, or something hidden that has to be reached."""
        return self.leaking or any(bool(each.pairs.any()) for each in self.hidden.values())

    @property
    def clean(self) -> bool:
        """Whether there is nothing, not even a suspect."""
        return not self.leaking and not any(bool(each.known.any()) for each in self.suspects.values())

    def leaks_more_than(self, other: "Findings") -> bool:
        """Say whether there are leaks that are not among others."""
        return any(bool((pairs.known & ~other.leaks[name].known).any()) for name, pairs in self.leaks.items())

    def add(self, item: Any) -> None:
        """File what a step found."""
        match item:
            case Verdict(name, pairs, size, evidence):
                kind = self.suspects if evidence.doubts else self.nan if bool(size[pairs].isinf().any()) else self.leaks
                kind[name].add(pairs, size, evidence)
            case Reached(name, pairs):
                self.reached[name] = self.reached[name] | (pairs & self.case.allowed[name])
            case Named(name, position, pairs, module):
                for sample, output, source in pairs.nonzero().tolist():
                    self.modules.setdefault((name, sample, output, source, position), module)
            case Finished(modules, _):
                self.order = self.order or {name: place for place, name in enumerate(modules)}
            case Effect(name, moved):
                self.effects[name] = moved or self.effects.get(name, False)
            case Narrow(modules):
                self.narrow = self.narrow or modules
            case Hidden(name, mode):
                self.hidden[name, mode] = item
            case Remembered(sample, output):
                self.remembered.setdefault((sample, output), item)
            case NanOutput(sample, output):
                self.nan_at_once.setdefault((sample, output), item)
            case Mixed(copies):
                self.mixed_copies = max(self.mixed_copies, copies)
            case Tried():
                self.tried[item] = None
            case NotTried():
                self.not_tried[item] = None

    def unreached(self) -> dict[str, Tensor]:
        """Return which inputs (input,) some judged output may depend on, and as far as is known does not."""
        judged = self.case.judged[..., None]
        allowed = self.case.allowed
        return {name: (table & ~self.reached[name] & judged).flatten(0, 1).any(0) for name, table in allowed.items()}

    def unexplained(self, hit: Hit) -> Hit | None:
        """Return what of a hit no known leak explains, and no suspect of that size; None where nothing is left."""
        name, cells = hit.perturbation.name, hit.perturbation.cells
        doubted = (self.suspects[name].size * cells).flatten(2).amax(-1)
        fresh = ~self.leaks[name].explains(cells) & (hit.nan_changed | (hit.size > 10 * doubted))
        fresh &= ~(self.nan[name].explains(cells) & hit.nan_changed)
        return hit._replace(moved=hit.moved & fresh) if bool((hit.moved & fresh).any()) else None

    def unnamed(self, name: str) -> Tensor:
        """Return the leaks of one input that have no module yet, (batch, output, batch, input)."""
        pairs = self.leaks[name].known.clone()
        for one, *at in self.modules:
            if one == name:
                pairs[tuple(at)] = False
        return pairs

    def copy(self) -> "Findings":
        """Return findings that can be added to while these stay as they are."""
        other = copy.copy(self)
        for name, part in vars(self).items():
            if isinstance(part, dict):
                setattr(other, name, dict(part))
        for pairs in (other.leaks, other.suspects, other.nan):
            pairs.update({name: each.copy() for name, each in pairs.items()})
        return other
