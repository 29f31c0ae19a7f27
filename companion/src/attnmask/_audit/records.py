"""Which data do the steps hand on?"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

import torch
from torch import Tensor

from attnmask._measure.call import ModelCall
from attnmask._measure.lookups import Tokens
from attnmask._measure.snapshot import copy_of
from attnmask._measure.values import Kind, other_values

AS_GIVEN, OTHER_VALUES = "", "with other values"  # labels of cases
FEW_IDS = 32  # a vocabulary up to this size is tried whole
Inputs = dict[str, Tensor]  # new values for some arguments, by name


class Mode(NamedTuple):
    """How a model is run: "eval", "train" or "function" (which has no modes), and whether gradients are recorded."""

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
    required: dict[str, Tensor]  # the same, its own only where the mask says so
    padding: dict[str, Tensor]  # (batch, input): where no output may look
    judged: Tensor  # (batch, output)
    output_sequence: str | None  # the input that is the output's own sequence
    tokens: Tokens
    output: Output
    allowed_for: Callable[[ModelCall], dict[str, Tensor]] | None = None  # where it depends on what is in the inputs
    without: frozenset[int] = frozenset()  # ids that are never tried
    samples: tuple[int, ...] | None = None  # which of those that were given, where they are in other company

    @property
    def resampled(self) -> bool:
        """Whether these are the samples that were given, in other company."""
        return self.samples is not None

    @property
    def is_complete(self) -> bool:
        """Whether all that is allowed has to be reached here: on the inputs as given, and at other lengths."""
        return not self.resampled and self.label != OTHER_VALUES

    @property
    def length(self) -> int:
        """How many inputs there are, of the first that is judged."""
        return next(iter(self.allowed.values())).shape[2]

    def same_rows(self, given: Inputs) -> Tensor:
        """Return the outputs (batch, output) that may depend on the same inputs as before where these are given."""
        if self.allowed_for is None:
            return torch.ones_like(self.judged)
        floats = {name: self.call.arguments[name].dtype for name in given}
        tables = self.allowed_for(self.call.replaced({name: each.to(floats[name]) for name, each in given.items()}))
        return torch.stack([(table == self.allowed[name]).all(-1) for name, table in tables.items()]).all(0)

    def required_pairs(self, name: str) -> Tensor:
        """Return the pairs that have to be reached where all that is allowed has to be, (batch, output, input)."""
        return self.required[name] & self.judged[..., None]

    def forbidden(self, name: str) -> Tensor:
        """Return the pairs that may not be, (batch, output, batch, input): other samples always."""
        same = torch.eye(len(self.judged), dtype=torch.bool)[:, None, :, None]
        return self.judged[:, :, None, None] & ~(self.allowed[name][:, :, None] & same)

    def may_change(self, name: str, cells: Tensor) -> Tensor:
        """Return which outputs may depend on some of these inputs, (batch, output)."""
        return (self.allowed[name] & cells[:, None]).any(-1)

    def other_values(self, name: str, kind: Kind, seed: int) -> Tensor:
        """Return other values for one of the inputs, (batch, position, …)."""
        values, vocabulary = self.call.as_batch_position(name), self.tokens.vocabulary.get(name)
        return other_values(name, values, kind, vocabulary, seed, self.without)

    def special_ids(self, name: str) -> list[int]:
        """Return ids that may mean something: all of a small vocabulary, else those that the model compares with."""
        size = self.tokens.vocabulary.get(name, 0)
        if size <= FEW_IDS:
            return list(range(size))
        return sorted(token for token in self.tokens.compared.get(name, ()) if 0 <= token < size)


class Perturbation(NamedTuple):
    """Values of one kind for some cells (batch, input) of one input; ``single`` = one position in every sample."""

    name: str
    cells: Tensor
    kind: Kind
    seed: int
    single: bool = False
    moved_a_copy: bool = False  # in a batch of copies
    same: Tensor = torch.tensor(True)  # outputs (batch, output) that may depend on the same inputs as before

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


class Hidden(NamedTuple):
    """Allowed pairs (batch, output, input) of one input that nothing reached in a mode, and those not tried."""

    name: str
    mode: Mode
    pairs: Tensor
    untried: Tensor


class Narrow(NamedTuple):
    """The modules that hide what has to be reached."""

    modules: tuple[str, ...]


class Effect(NamedTuple):
    """Whether changing a mask argument moves any output."""

    name: str
    moved: bool


class Remembered(NamedTuple):
    """An output that depends on what the call before was given."""

    sample: int
    output: int
    size: float
    evidence: Evidence
    module: str


class NanOutput(NamedTuple):
    """An output that is NaN for the inputs as they were given."""

    sample: int
    output: int
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

    MODE = auto()
    GRADIENTS = auto()
    SOME_VALUES = auto()
    CHANGES = auto()
    MODES = auto()
    WINDOW = auto()
    PAIRS = auto()
    REPEATS = auto()
    BATCH = auto()
    VALUES = auto()
    NAN_OUTPUTS = auto()
    LEFT_OUT = auto()
    LENGTHS = auto()
    LENGTH = auto()
    REST = auto()


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
