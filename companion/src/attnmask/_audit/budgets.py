"""How much is tried of a case, and in which modes?"""

from typing import NamedTuple

from attnmask._audit.records import OTHER_VALUES, Case, Mode


class Budget(NamedTuple):
    """How much is tried of one case in one mode."""

    gradients: int | None  # outputs whose gradients are taken; None: all of them
    rows: int  # changes of all that an output may not see
    others: int  # kinds of values for the other samples
    singles: int = 0  # positions changed alone to huge values
    unbatched: int = 0  # changes run at the shape that was given, besides those that moved something in a batch
    every_output: bool = False  # as many rows as outputs, where that is more, and all ids of a small vocabulary


THOROUGH = Budget(gradients=None, rows=20, others=2, unbatched=4, every_output=True)
AGAIN = Budget(gradients=8, rows=7, others=1, unbatched=1)
OTHERS = Budget(gradients=4, rows=8, others=1)
LARGE_TOKENS = OTHERS._replace(singles=8)  # large queries may meet large keys
LENGTHS = OTHERS._replace(rows=4)
COMPANY = OTHERS._replace(rows=2, unbatched=9)


def budget_of(case: Case, first: Case, again: bool, gradients: bool) -> Budget:
    """Return how much is tried: most on the inputs as given, which is ``first``; less ``again`` in another mode."""
    if case is first:
        return AGAIN if again else THOROUGH
    if case.resampled:
        budget = COMPANY
    elif case.label != OTHER_VALUES:
        budget = LENGTHS if case.length > first.length else OTHERS
    else:
        floats = any(case.call.arguments[name].is_floating_point() for name in case.allowed)
        budget = LARGE_TOKENS if floats else OTHERS
    return budget if gradients and case.length >= first.length else budget._replace(gradients=0)


def modes_of(case: Case, name: str, names: list[str]) -> list[Mode]:
    """Return the ways to run a case in eval or train: as one usually does, and where branches are likely the other."""
    usual = Mode(name, grad=name == "train")
    if case.resampled and len(case.judged) <= 2 and name != names[0]:
        return []  # that samples mix shows in every batch of copies; these are for what so few alone may show
    other = case.label != OTHER_VALUES and not case.resampled
    return [usual, Mode(name, not usual.grad)] if other else [usual]
