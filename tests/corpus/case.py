"""What a case is, how it runs, and what proves that it leaks."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attnmask import Mask, causal

WIDTH, HEADS, VOCABULARY, LENGTH, LONGEST = 8, 2, 16, 7, 16
Inputs = Tensor | dict[str, Any]
Cells = list[tuple[int, int]]

ALWAYS = frozenset(itertools.product(("eval", "train"), (False, True)))
EVAL = frozenset({("eval", False), ("eval", True)})
TRAIN = frozenset({("train", False), ("train", True)})
RECORDED = frozenset({("eval", True), ("train", True)})
FAST_PATH = frozenset({("eval", False)})


class Witness(NamedTuple):
    """Two inputs that prove a fault, and how to run the model to see it.

    Attributes
    ----------
    before, after
        Inputs that differ only where the output position may not look. Run them in this
        order through one model, with the same random seed before each.
    mode, grad_enabled, dtype
        "eval" or "train"; whether gradients are recorded; what the model is cast to.
    at
        The sample and the output position that differs.
    """

    before: Inputs
    after: Inputs
    mode: str
    grad_enabled: bool
    dtype: torch.dtype
    at: tuple[int, int]


@dataclass(frozen=True)
class Case:
    """One model with the mask it should obey.

    Attributes
    ----------
    name, why
        What the case is, as a name and as a sentence.
    make, inputs
        Functions of a seed: the model, and a tensor or keyword arguments for it.
    allowed
        What each output position may finally depend on: a `Mask`, or a function of the inputs
        that gives one. Other samples of the batch are never allowed. Where query and input are
        one sequence, a position may always depend on itself, and the output at a position that
        the mask does not let attend to itself is padding, which nobody judges.
    of
        Which input `allowed` speaks about; None for a lone tensor.
    where
        Of the submodules in the order in which they finish, the first whose output shows the leak; where
        attention leaks in its own arithmetic that is its output projection. "" where none can be named.
    leaks_in
        The pairs (mode, gradients recorded) in which the fault shows, or in which the clean case is clean.
    witness
        A function of a seed that gives a `Witness`; None for a clean case.
    one_sequence
        Whether output position p and input position p are the same token.
    rounding
        Clean cases: the largest relative change that rounding alone can make, 0 = bitwise equal.
    remembers
        Whether it is a call before that shows in the output.
    missed
        Why no audit that ends can be sure to find this fault; "" = it has to be found.
    """

    name: str
    why: str
    make: Callable[[int], Callable[..., Any]]
    inputs: Callable[[int], Inputs]
    allowed: Mask | Callable[[Inputs], Mask] = field(default_factory=causal)
    of: str | None = None
    where: str = ""
    leaks_in: frozenset[tuple[str, bool]] = ALWAYS
    witness: Callable[[int], Witness] | None = None
    one_sequence: bool = True
    rounding: float = 0.0
    remembers: bool = False
    missed: str = ""

    def mask(self, inputs: Inputs) -> Mask:
        """Return what may be depended on, for these inputs."""
        return self.allowed if isinstance(self.allowed, Mask) else self.allowed(inputs)

    def asked(self, inputs: Inputs) -> dict[str, Any]:
        """Return the arguments with which `audit` is asked about this case, the model aside.

        A fault is looked for in every mode, since who looks for it does not know where it shows.
        """
        mask = self.mask(inputs)
        return {
            "inputs": inputs,
            "allowed": mask if self.of is None else {self.of: mask},
            "same_sequence": (self.of or True) if self.one_sequence else False,
            "modes": ("eval", "train") if self.witness else sorted({mode for mode, _ in self.leaks_in}),
        }


def tensor_of(inputs: Inputs, of: str | None) -> Tensor:
    """Return the input that a case's mask speaks about."""
    return inputs if of is None else inputs[of]


def allowed_table(case: Case, inputs: Inputs, query_len: int) -> tuple[Tensor, Tensor]:
    """Return (batch, query, key): may this output depend on this input; and (batch, query): is it judged."""
    batch, key_len = tensor_of(inputs, case.of).shape[:2]
    table = case.mask(inputs).dense(query_len, key_len, batch=batch).expand(batch, -1, query_len, key_len).any(1)
    if not case.one_sequence:
        return table, torch.ones(batch, query_len, dtype=torch.bool)
    return table | torch.eye(query_len, dtype=torch.bool), table.diagonal(dim1=1, dim2=2)


def run(
    model: Callable[..., Any], inputs: Inputs, mode: str, grad_enabled: bool, dtype: torch.dtype | None, seed: int = 0
) -> list[Tensor]:
    """Run a model once, on copies of the inputs, and return every tensor of (batch, position, ...) it gives."""
    if isinstance(model, nn.Module):
        model.train(mode == "train")
        if dtype is not None:
            model.to(dtype)
    prepared = mapped(
        inputs, lambda tensor: tensor.clone().to(dtype or tensor.dtype) if floats(tensor) else tensor.clone()
    )
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(grad_enabled):
        torch.default_generator.manual_seed(seed)
        output = model(**prepared) if isinstance(prepared, dict) else model(prepared)
    return [tensor.detach().clone() for tensor in leaves(output)]


def leaves(output: Any) -> list[Tensor]:
    """Return the tensors in an output, whether it is one, a tuple or a dict."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return [tensor for part in parts for tensor in leaves(part)]


def same(one: Tensor, other: Tensor, rounding: float = 0.0) -> bool:
    """Say whether two tensors are equal bit for bit, or up to a relative rounding; NaN equals NaN."""
    if rounding:
        return torch.allclose(one, other, rtol=0, atol=rounding * float(one.abs().max().clamp(min=1)), equal_nan=True)
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def mapped(inputs: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    if isinstance(inputs, dict):
        return {name: function(value) if isinstance(value, Tensor) else value for name, value in inputs.items()}
    return function(inputs)


def floats(tensor: Tensor) -> bool:
    return tensor.is_floating_point()


def differs(case: Case, witness: Witness, seed: int) -> bool:
    """Run a witness's two inputs through one model and say whether the output at its position differs."""
    model, (sample, position) = case.make(seed), witness.at
    outputs = [
        run(model, inputs, witness.mode, witness.grad_enabled, witness.dtype, seed)
        for inputs in (witness.before, witness.after)
    ]
    return not all(same(one[sample, position], other[sample, position]) for one, other in zip(*outputs, strict=True))
