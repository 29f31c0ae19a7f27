"""What is a task? A solution, the same thing in plain loops, cases to try, and the mistakes that people make."""

import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from attnmask.exercises.mistakes import ADVICE

Case = dict[str, Any]  # the arguments of one call, by name
Answer = Callable[..., Any]


@dataclass(frozen=True)
class Mistake:
    """A solution with one thing wrong, the name of what is wrong, and a sentence that helps.

    The sentence defaults to the one that `mistakes.ADVICE` has for the name.
    """

    name: str
    answer: Answer
    advice: str = ""

    def __post_init__(self) -> None:
        if not self.advice:
            object.__setattr__(self, "advice", ADVICE[self.name])


@dataclass(frozen=True)
class Task:
    """One exercise. Its name and its text are those of the solution."""

    solution: Answer
    spec: Answer  # the same in plain loops: what an answer is compared with
    cases: Callable[["Draw"], Iterator[Case]]  # from small to large
    mistakes: tuple[Mistake, ...]
    chapter: str  # the number of the chapter that teaches it
    place: int  # in rising order
    hints: tuple[str, ...]
    groups: Mapping[str, Callable[[Case], bool]] = field(default_factory=dict)  # "batch 1": is the case one of them?

    @property
    def name(self) -> str:
        """The name of the function to write."""
        return self.solution.__name__

    @property
    def text(self) -> str:
        """What is to be written, in words."""
        return inspect.cleandoc(self.solution.__doc__ or "")

    @property
    def signature(self) -> str:
        """The first line of the function to write."""
        return f"def {self.name}{inspect.signature(self.solution)}:"

    @property
    def stub(self) -> str:
        """The function to write, with nothing in it yet."""
        text = textwrap.indent(self.text, "    ").strip()
        return f'{self.signature}\n    """{text}\n    """\n    pass  # your code'

    @property
    def code(self) -> str:
        """The solution's source, without its text."""
        before, _, after = inspect.getsource(self.solution).partition('"""')
        return before.rstrip() + after.partition('"""')[2].rstrip()


class Draw:
    """Random inputs, the same in every run."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw numbers from the normal distribution."""
        return torch.randn(shape, generator=self.generator).to(dtype)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Draw integers from low to high, both included."""
        return torch.randint(low, high + 1, shape, generator=self.generator)

    def bools(self, *shape: int, share: float = 0.5) -> Tensor:
        """Draw True with the given share."""
        return torch.rand(shape, generator=self.generator) < share

    def real(self, batch: int, length: int, *, side: str = "right") -> Tensor:
        """Draw which tokens are real: 1 to length of them a sample, the padding on one side; never all equal."""
        lengths = self.integers(1, length, batch)
        lengths[0] = max(1, length - 1)  # a sample with one padded token, whatever was drawn
        places = torch.arange(length)
        return (places if side == "right" else places.flip(0)) < lengths[:, None]


@cache
def tasks() -> dict[str, Task]:
    """Every task by its name, in rising order: one for each file of the folder ``tasks``."""
    package = importlib.import_module("attnmask.exercises.tasks")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    found = [importlib.import_module(f"{package.__name__}.{name}").TASK for name in names]
    return {task.name: task for task in sorted(found, key=lambda task: task.place)}
