"""What a padded case is: a model with padded inputs, and what each sample is when it stands alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from corpus.case import Inputs, floats, leaves, mapped

Keep = Tensor | dict[str, Tensor]
CAUSES = ("", "positions", "mask unused", "convolution", "statistics")


def first_tensor(output: Any) -> Tensor:
    """Return the first tensor in an output, which most models give at (batch, position, ...)."""
    return leaves(output)[0]


@dataclass(frozen=True)
class PaddedCase:
    """One model with padded inputs, whose real tokens give in the batch what they give alone, or do not.

    Attributes
    ----------
    name, why
        What the case is, as a name and as a sentence.
    make, inputs
        Functions of a seed: the model, and a padded tensor or keyword arguments for it.
    keep
        A function of the inputs: which of them are real, as a Bool (batch, token); for several
        sequences a dict, whose keys name the arguments whose tokens are meant.
    alone
        A function of the inputs and of a sample: that sample alone, cut to its real tokens.
    more
        A function of the inputs and of a number: the same with so much more padding on the same side.
    mode
        "eval" or "train".
    rounding
        Right cases: the largest relative difference that rounding makes, by default that of sums in
        another order; 0 = bitwise equal.
    margin
        Wrong cases: the relative difference which the fault exceeds.
    where
        Of the submodules in the order in which they finish, the first whose output at real tokens
        differs. "" where none can be named.
    cause
        What a message could name as the likely cause: one of `CAUSES`.
    out, of
        How the (batch, position, ...) tensor is found in the output, and which sequence's positions
        it has; None for the only one.
    dtype
        What model and inputs are cast to; None where the model stays as it is made.
    shown_on
        Inputs that show the fault where `inputs` have too little padding, or the wrong amount, to show it.
    reports
        Where the fault was reported in public.
    """

    name: str
    why: str
    make: Callable[[int], Callable[..., Any]]
    inputs: Callable[[int], Inputs]
    keep: Callable[[Inputs], Keep]
    alone: Callable[[Inputs, int], Inputs]
    more: Callable[[Inputs, int], Inputs]
    mode: str = "eval"
    rounding: float = 1e-12
    margin: float = 1e-6
    where: str = ""
    cause: str = ""
    out: Callable[[Any], Tensor] = first_tensor
    of: str | None = None
    dtype: torch.dtype | None = torch.float64
    shown_on: Callable[[int], Inputs] | None = None
    reports: tuple[str, ...] = ()

    def real(self, inputs: Inputs) -> Tensor:
        """Return which output positions are judged, as a Bool (batch, position)."""
        keep = self.keep(inputs)
        return keep if isinstance(keep, Tensor) else keep[self.of]

    def run(self, model: Callable[..., Any], inputs: Inputs) -> Tensor:
        """Run a model on copies of the inputs and return its (batch, position, ...) output."""
        if isinstance(model, nn.Module) and model.training != (self.mode == "train"):
            model.train(self.mode == "train")
        if isinstance(model, nn.Module) and self.dtype not in (None, next(model.parameters()).dtype):
            model.to(self.dtype)
        given = mapped(inputs, lambda tensor: tensor.clone().to((floats(tensor) and self.dtype) or tensor.dtype))
        with torch.no_grad():
            return self.out(model(**given) if isinstance(given, dict) else model(given)).clone()


VARIANT: list[PaddedCase] = []
INVARIANT: list[PaddedCase] = []


def variant(name: str, why: str, make: Callable[[int], Any], *reports: str, **rest: Any) -> None:
    """Register a model whose real tokens change with the padding; `reports` are addresses on GitHub."""
    VARIANT.append(PaddedCase(name, why, make, reports=reports, **rest))


def invariant(name: str, why: str, make: Callable[[int], Any], **rest: Any) -> None:
    """Register a model whose real tokens do not change with the padding."""
    INVARIANT.append(PaddedCase(name, why, make, **rest))
