"""Which data do the steps hand on?"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attnmask._measure.call import ModelCall
from attnmask._measure.snapshot import copy_of
from attnmask._measure.values import Kind, other_values

Inputs = dict[str, Tensor]  # new values for some arguments, by name


class Mode(NamedTuple):
    """How a model is run: "eval", "train" or "as it is", and whether gradients are recorded."""

    name: str
    grad: bool

    @property
    def label(self) -> str:
        """The mode in words."""
        return self.name if self.usual else f"{self.name}, {'recording' if self.grad else 'without'} gradients"

    @property
    def usual(self) -> bool:
        """Whether it is mostly run so: evaluated without gradients, trained with them."""
        return self.grad == (self.name == "train")


class Output(NamedTuple):
    """What a model gives: how many positions, how many bytes in all, and in which dtype."""

    length: int
    bytes: int
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Case:
    """Inputs on which a model is tried, and what is allowed there."""

    label: str  # "" for the inputs as given, else what tells them from those, in words
    call: ModelCall
    allowed: dict[str, Tensor]  # (batch, output, input), a position's own included
    padding: dict[str, Tensor]  # (batch, input): where no output may look
    judged: Tensor  # (batch, output)
    output_sequence: str | None  # the input that is the output's own sequence
    vocabulary: dict[str, int]
    output: Output
    branched_on: set[str]  # ids that the model compares, as where it makes a mask of its own
    allowed_for: Callable[[ModelCall], dict[str, Tensor]] | None = None  # where it depends on what is in the inputs
    resampled: bool = False  # the same samples, in other company

    @property
    def length(self) -> int:
        """How many inputs there are, of the first that is judged."""
        return next(iter(self.allowed.values())).shape[2]

    def forbidden(self, name: str) -> Tensor:
        """Return the pairs that may not be, (batch, output, batch, input): other samples always."""
        same = torch.eye(len(self.judged), dtype=torch.bool)[:, None, :, None]
        return self.judged[:, :, None, None] & ~(self.allowed[name][:, :, None] & same)

    def may_change(self, name: str, cells: Tensor) -> Tensor:
        """Return which outputs may depend on some of these inputs, (batch, output)."""
        return (self.allowed[name] & cells[:, None]).any(-1)

    def other_values(self, name: str, kind: Kind, seed: int) -> Tensor:
        """Return other values for one of the inputs, (batch, position, …)."""
        return other_values(name, self.call.as_batch_position(name), kind, self.vocabulary.get(name), seed)


class Perturbation(NamedTuple):
    """Values of one kind for some cells (batch, input) of one input; ``single`` = one position in every sample."""

    name: str
    cells: Tensor
    kind: Kind
    seed: int
    single: bool = False
    moved_a_copy: bool = False  # in a batch of copies

    def apply(self, case: Case, call: ModelCall | None = None) -> Inputs:
        """Return the input changed, in the dtype that it has in ``call``."""
        call = call or case.call
        perturbed = copy_of(call.arguments[self.name])
        front = call.as_batch_position(self.name, perturbed)
        front[self.cells] = case.other_values(self.name, self.kind, self.seed).to(front)[self.cells]
        return {self.name: perturbed}


class Hit(NamedTuple):
    """A perturbation, and outputs (batch, output) that it moved though they may depend on none of its cells."""

    perturbation: Perturbation
    moved: Tensor
    size: Tensor
    nan_changed: Tensor  # of those, the ones that turned into NaN, or back


class Counterexample(NamedTuple):
    """One cell (sample, input), and the outputs that moved when it alone changed, between two inputs."""

    name: str
    cell: tuple[int, int]
    moved: Tensor  # (batch, output)
    size: Tensor
    before: Inputs
    after: Inputs


class Probe(Enum):
    """What saw a leak."""

    GRADIENT = "gradient"
    VALUES = "changed inputs"
    REPEAT = "two calls"
    RUN = "running it"


class Doubt(Enum):
    """Why a difference need be no leak."""

    ROUNDING = "as small as rounding"
    DROPOUT = "only while there is dropout, whose chances may have moved"
    FROM_IDS = "perhaps the model makes a mask or positions of its own from these ids"
    FROM_ZEROS = "perhaps the model makes a mask or positions of its own from these zeros"
    UNCONFIRMED = "float64, which tells leaks from rounding, fails"


class Evidence(NamedTuple):
    """What saw a pair, in which mode, and what remains in doubt."""

    probe: Probe
    mode: Mode
    doubts: tuple[Doubt, ...] = ()
    error: str = ""  # of what could not be confirmed
    label: str = ""  # of the batch, where it is not the one that was given


class Verdict(NamedTuple):
    """Pairs (batch, output, batch, input) of one input, with the size of the effect; where doubts remain, suspects."""

    name: str
    pairs: Tensor
    size: Tensor
    evidence: Evidence
    example: Counterexample | None = None


class Reached(NamedTuple):
    """Allowed pairs (batch, output, input) of one input that are reached."""

    name: str
    pairs: Tensor


class Remembered(NamedTuple):
    """An output that depends on what the call before was given."""

    sample: int
    output: int
    size: float
    evidence: Evidence
    module: str


class Named(NamedTuple):
    """The first module whose output shows some pairs (batch, output, batch) of one input position."""

    name: str
    position: int
    pairs: Tensor
    module: str


class Untried(Enum):
    """What was not tried."""

    MODE = "a mode"
    GRADIENTS = "gradients"
    SOME_VALUES = "some values of an input"
    REPEATS = "two calls in a row"
    BATCH = "a batch of another size"
    LEFT_OUT = "inputs that allowed does not name"
    LENGTHS = "other lengths"
    LENGTH = "one length"
    REST = "anything after the first leak"


class NotTried(NamedTuple):
    """What was not tried, where, and why."""

    what: Untried
    mode: Mode | None = None
    label: str = ""
    detail: str = ""
    error: str = ""


class Finished(NamedTuple):
    """The modules in the order in which they finish, and whether some showed a leak no larger than rounding."""

    modules: tuple[str, ...]
    blurred: bool


class Mixed(NamedTuple):
    """That something moved in a batch of so many copies which does not move alone: samples may mix."""

    copies: int


class Tried(NamedTuple):
    """What was tried to its end; ``twin``: the mode that gave the same bits, so that the rest was not repeated."""

    mode: Mode
    probe: Probe = Probe.VALUES
    twin: Mode | None = None
    share: tuple[int, int] | None = None  # how many outputs, of how many


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
    remembered: dict[tuple[int, int], Remembered] = field(default_factory=dict)  # by (sample, output)
    nan_at_once: dict[tuple[int, int], Evidence] = field(default_factory=dict)  # by (sample, output)
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
    def clean(self) -> bool:
        """Whether there is nothing, not even a suspect."""
        return not self.leaking and not any(bool(each.known.any()) for each in self.suspects.values())

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
            case Remembered(sample, output):
                self.remembered.setdefault((sample, output), item)
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
