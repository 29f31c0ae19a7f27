"""What does a sample give in a trial, and does it differ from what it gives alone?"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from attnmask._check import value_error
from attnmask._invariance.axes import Sequences, Trial
from attnmask._measure.call import ModelCall
from attnmask._measure.compare import SURE, max_abs, max_abs_diff
from attnmask._measure.float64 import InFloat64
from attnmask._measure.snapshot import Snapshot

# A share of the largest number. Float64 rounds to 2e-16; what is a million times as large is no rounding, and what a
# mask lets through by mistake is mostly a million times larger still.
_FLOOR = 1e-9
_HALVES = {torch.float16, torch.bfloat16}


class Exactly(InFloat64):
    """While active, a model that turns its numbers into half precision gets float64 too."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(
            lambda each: torch.float64 if isinstance(each, torch.dtype) and each in _HALVES else each,
            (args, kwargs or {}),
        )
        function = Tensor.double if function in (Tensor.half, Tensor.bfloat16) else function
        return super().__torch_function__(function, types, args, kwargs)


class Coarsest(TorchFunctionMode):
    """While active, notes how coarsely floats are rounded that are computed from floats; shuts PyTorch's fast paths."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = 0.0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        floats = [each for each in (result, *args) if isinstance(each, Tensor) and each.is_floating_point()]
        if len(floats) > 1 and floats[0] is result:
            self.eps = max(self.eps, torch.finfo(result.dtype).eps)
        return result


class Difference(NamedTuple):
    """The first real token of a sample that differs between a trial and the sample alone."""

    trial: Trial
    sample: int
    token: int  # which of its real tokens
    size: float  # infinite where one of the two is NaN
    scale: float  # the largest number


class Runs:
    """Runs of a model that all start from the same state: trials, and single samples alone, each once."""

    def __init__(self, sequences: Sequences, call: ModelCall, snapshot: Snapshot, grad: bool, exact: bool) -> None:
        self.sequences, self.call, self.snapshot, self.grad, self.exact = sequences, call, snapshot, grad, exact
        self.coarsest = Coarsest()
        self.fast = False  # whether PyTorch's fast paths are left open, which no watching allows
        self._alone: dict[int, list[Tensor] | Exception] = {}

    def with_call(self, call: ModelCall) -> "Runs":
        """Return runs of the same model on other arguments."""
        return Runs(self.sequences, call, self.snapshot, self.grad, self.exact)

    @contextmanager
    def watched(self, grad: bool | None = None) -> Iterator[None]:
        """Run a model once, as all runs are."""
        with ExitStack() as stack:
            stack.enter_context(self.snapshot.run())
            stack.enter_context(torch.set_grad_enabled(self.grad if grad is None else grad))
            if not self.fast:
                stack.enter_context(self.coarsest)
            if self.exact:
                stack.enter_context(Exactly())
            yield

    @cached_property
    def as_given(self) -> list[Tensor]:
        """What the whole batch gives, run once."""
        return self.outputs(self.sequences.as_given)

    def outputs(self, trial: Trial) -> list[Tensor]:
        """Run a trial; its output is as long as its own sequence there."""
        call = self.sequences.cut(self.call, trial)
        with self.watched():
            outputs = [each.detach() for each in call.outputs({})]
        wanted = len(trial.columns[self.sequences.own])
        if outputs[0].shape[1] != wanted:
            cause = "an output that is pooled, shortened or the last one only, or of a sequence that keep does not name"
            wanted_words = f"an output for each of {wanted} tokens of {self.sequences.own}"
            raise value_error(wanted_words, f"{outputs[0].shape[1]}", cause)
        return outputs

    def alone(self, sample: int) -> list[Tensor]:
        """Run one sample with its real tokens alone, once; raise again what it raised."""
        if sample not in self._alone:
            try:
                self._alone[sample] = self.outputs(self.sequences.alone(sample))
            except Exception as error:  # whatever a model raises
                self._alone[sample] = error
        found = self._alone[sample]
        if isinstance(found, Exception):
            raise found
        return found

    def difference(self, trial: Trial, sample: int, padded: list[Tensor] | None = None) -> Difference | None:
        """Compare a sample in a trial with the sample alone."""
        alone = self.alone(sample)
        rows = self.rows(trial, sample, self.outputs(trial) if padded is None else padded)
        alone, rows = (alone, rows) if len(alone) == len(rows) else (alone[:1], rows[:1])
        size, _ = max_abs_diff(alone, rows)
        scale = max_abs([*alone, *rows])
        tokens = (size[0] > self.tolerance(rows[0].dtype) * scale).nonzero().flatten().tolist()
        if not tokens:
            return None
        return Difference(trial, sample, tokens[0], float(size[0, tokens[0]]), scale)

    def rows(self, trial: Trial, sample: int, padded: list[Tensor]) -> list[Tensor]:
        """Return what stands at the real tokens of a sample's outputs, (1, real token, …) each."""
        places = torch.tensor(self.sequences.places(self.sequences.own, trial, sample), device=padded[0].device)
        row = trial.samples.index(sample)
        return [each[row : row + 1].index_select(1, places) for each in padded]

    def tolerance(self, dtype: torch.dtype) -> float:
        """Return what share of the largest number rounding can be."""
        return max(_FLOOR, SURE * max(self.coarsest.eps, torch.finfo(dtype).eps))
