"""How is one case run in one mode, as given or as many changed copies in one batch?"""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from hashlib import blake2b

import torch
from torch import Tensor

from attnmask._audit.records import Case, Doubt, Evidence, Inputs, Mode, Probe
from attnmask._measure.call import ModelCall
from attnmask._measure.compare import SURE, any_feature, changed, max_abs
from attnmask._measure.float64 import in_float64, undropped
from attnmask._measure.snapshot import Snapshot

_PLAIN = 0.01  # by how much of the largest number copies in a batch may differ from one alone, at most
_WITNESSES = 4  # changes by which two modes are compared, at least
_COPIES, _BYTES = 16, 2**25  # most samples in a batch of copies, and bytes of what they give


class Runner:
    """One case in the mode that the model is in: every run starts from the same state."""

    def __init__(
        self, case: Case, mode: Mode, snapshot: Snapshot, call: ModelCall | None = None, plain: bool | None = None
    ) -> None:
        self.case, self.mode, self.snapshot = case, mode, snapshot
        self.call = call or case.call
        self.plain = plain  # whether copies in a batch give what one gives; None: not known yet
        self.witness: list[tuple[list[Inputs], list[bytes]]] = []  # batches of changed copies, and what they gave
        self.bits: list[bytes] | None = None  # of what the unchanged inputs gave
        self.asked_of: set[str] = set()  # inputs that were to be changed
        self.changed: set[str] = set()  # inputs of which some change ran to its end

    @property
    def seed(self) -> int:
        """What the values that are tried here are drawn with."""
        return zlib.crc32(f"{self.case.label}, {self.mode.label}".encode()) % 10_000

    @property
    def where(self) -> tuple[Mode, str]:
        """The mode, and the label of the case."""
        return self.mode, self.case.label

    @cached_property
    def base(self) -> list[Tensor]:
        """What the unchanged inputs give, at the shape of the case."""
        outputs = self.run({})
        self.bits = list(map(digest, outputs))
        return outputs

    def forget(self) -> None:
        """Free the outputs, keeping what stands for their bits."""
        vars(self).pop("base", None)

    @property
    def judged(self) -> Tensor:
        """Which outputs (batch, output) are judged, those that are NaN left out."""
        return self.case.judged & ~is_nan(self.base)

    def copies(self, changes: int) -> int:
        """Return how many copies go into one batch, where there are so many changes: an even number."""
        most = max(2, min(_COPIES // len(self.case.judged), _BYTES // max(1, self.case.output.bytes)))
        batches = max(1, math.ceil(changes / most))
        return 2 * math.ceil(changes / batches / 2)

    def run(self, given: Mapping[str, Tensor], call_before: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """Run with some arguments replaced, perhaps after another call whose traces are left in the model."""
        with self.snapshot.run(), torch.set_grad_enabled(self.mode.grad):
            if call_before is not None:
                self.call.outputs(copies_of(call_before))
                self.snapshot.reseed()
            return [each.detach() for each in self.call.outputs(copies_of(given))]

    def run_copies(self, each: Sequence[Inputs]) -> list[Tensor]:
        """Run copies of the batch at once, each with some arguments replaced: (copy, batch, position, …)."""
        batch = len(self.case.judged)
        many = self.call.resampled(list(range(batch)) * len(each))
        for number, given in enumerate(each):
            for name, values in given.items():
                rows = slice(number * batch, (number + 1) * batch)
                many.as_batch_position(name)[rows] = self.call.as_batch_position(name, values)
        with self.snapshot.run(), torch.set_grad_enabled(self.mode.grad):
            outputs = many.outputs({name: each for name, each in many.arguments.items() if isinstance(each, Tensor)})
        return [output.detach().reshape(len(each), batch, *output.shape[1:]) for output in outputs]

    def bear_witness(self, each: Sequence[Inputs], outputs: list[Tensor]) -> None:
        """Keep what stands for the bits of the first few changed copies, for another mode to be compared with."""
        if sum(sum(map(bool, given)) for given, _ in self.witness) < _WITNESSES:
            self.witness.append((list(each), list(map(digest, outputs))))

    def gives_the_bits_of(self, earlier: "Runner") -> bool:
        """Say whether this gives the same bits as the case gave in another mode: as given, and as changed copies."""
        if not earlier.witness or self.bits != earlier.bits:
            return False
        try:
            return all(list(map(digest, self.run_copies(given))) == bits for given, bits in earlier.witness)
        except Exception:  # whatever a model raises
            return False

    def repeats_in(self, copies: list[Tensor]) -> bool:
        """Say whether unchanged copies are a plain repetition of the batch, as far as rounding allows."""
        rounding = torch.finfo(self.base[0].dtype).eps
        most = min(_PLAIN, SURE * rounding) * max_abs(self.base)
        return all(
            many.isclose(one, rtol=0, atol=most, equal_nan=True).all()
            for many, one in zip(copies, self.base, strict=True)
        )

    def evidence(self, probe: Probe, *doubts: Doubt, error: str = "") -> Evidence:
        """Say what saw something here."""
        return Evidence(probe, self.mode, doubts, error, self.case.label if self.case.resampled else "")

    def moved_in_copies(self, before: list[Tensor], after: list[Tensor]) -> Tensor:
        """Compare two runs of copies bit for bit: return the judged outputs that moved, (copy, batch, output)."""
        flat, then = ([each.flatten(0, 1) for each in outputs] for outputs in (before, after))
        return (changed(flat, then) & ~is_nan(flat)).reshape(-1, *self.case.judged.shape) & self.case.judged

    @contextmanager
    def exactly(self) -> Iterator["Runner"]:
        """Run the same in float64 for a while."""
        with in_float64(self.call, self.snapshot) as (call, snapshot):
            try:
                yield Runner(self.case, self.mode, snapshot, call)
            finally:
                self.snapshot.runs += snapshot.runs

    @contextmanager
    def undropped(self) -> Iterator["Runner"]:
        """Run the same for a while with nothing left to chance."""
        with undropped(self.snapshot) as snapshot:
            yield Runner(self.case, self.mode, snapshot, self.call)


def copies_of(given: Mapping[str, Tensor]) -> Inputs:
    """Copy new values, since the model may write into them."""
    return {name: values.clone() for name, values in given.items()}


def is_nan(outputs: list[Tensor]) -> Tensor:
    """Return which outputs (batch, output) hold NaN."""
    return torch.stack([any_feature(each.isnan()) for each in outputs]).any(0)


def digest(tensor: Tensor) -> bytes:
    """Return what stands for a tensor's bits."""
    flat = tensor.cpu().contiguous().flatten().view(torch.uint8)
    return blake2b(flat.numpy().data).digest()
