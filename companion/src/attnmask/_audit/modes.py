"""From which state does the model start, in which mode?"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from attnmask._audit.cases import case_as_given, once
from attnmask._audit.question import Question
from attnmask._audit.records import Case
from attnmask._measure.call import ModelCall
from attnmask._measure.snapshot import Snapshot

AS_IT_IS = "as it is"


def in_modes(call: ModelCall, modes: Iterable[str], original: Snapshot) -> dict[str, Snapshot]:
    """Bring the model into each mode that was asked for, and remember it there."""
    model = call.model
    if not isinstance(model, nn.Module):  # a function may call modules that it does not name
        with suppress(Exception), original.run(), torch.no_grad():
            call.outputs({})
    if not original.modules:
        return {"function": original}
    try:
        return _switched(model, modes, original)
    except NotImplementedError:  # as an exported program, which has one mode for good
        original.resume()
        return {AS_IT_IS: original}


def _switched(model: Any, modes: Iterable[str], original: Snapshot) -> dict[str, Snapshot]:
    snapshots = {}
    for mode in modes:
        original.resume()
        for module in [model] if isinstance(model, nn.Module) else list(original.modules):
            if any(part.training != (mode == "train") for part in module.modules()):
                module.train(mode == "train")
        snapshots[mode] = Snapshot(model, original.modules, like=original)
    return snapshots


def first_case(question: Question, snapshots: list[Snapshot]) -> tuple[Case, Snapshot]:
    """Make the case of the inputs as given, in the first mode in which the model runs."""
    for snapshot in snapshots[:-1]:
        snapshot.resume()
        with suppress(Exception):  # whatever a model raises
            return case_as_given(question, snapshot), snapshot
    snapshots[-1].resume()
    return case_as_given(question, snapshots[-1]), snapshots[-1]


def some_copies(case: Case, snapshot: Snapshot) -> None:
    """Run a batch of copies, as most runs are, to see how long it takes; or what was given where the model refuses."""
    try:
        once(case.call.resampled(list(range(len(case.judged))) * 4), snapshot)
    except Exception:  # whatever a model raises
        once(case.call, snapshot)
