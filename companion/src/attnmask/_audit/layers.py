"""Does each layer keep to its own mask?"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch

from attnmask._audit.calls import Called, calls_of
from attnmask._audit.question import Question
from attnmask._check import type_error, value_error
from attnmask._measure.snapshot import Snapshot
from attnmask.masks import sliding_window

_NAMES = 6  # of modules, in an error


def questions_of_layers(question: Question, layers: Mapping[str, Any]) -> dict[str, Question]:
    """Run the model once, and ask of each module that is named how it treats the tokens that it was given.

    ``layers``: by a module's name, or a pattern of names such as ``"layers.*.attention"``,
    what its outputs may depend on: of its tokens, or of several inputs by name.
    """
    if not isinstance(layers, Mapping) or not layers:
        cause = "one mask meant for all: layers={'*.attention': mask}"
        raise type_error("layers to give masks by the names of modules", f"{layers!r}", cause)
    call = question.call(question.inputs)
    with torch.inference_mode(False), Snapshot(question.model) as original:
        with suppress(Exception), original.run(), torch.no_grad():  # a function may call modules that it does not name
            call.outputs({})
        with calls_of(question.model, original.modules) as calls, original.run(), torch.enable_grad():
            call.outputs({})
    asked: dict[str, Question] = {}
    for pattern, allowed in layers.items():
        named = [called for name, called in calls.items() if fnmatchcase(name, pattern) and called.states]
        if not named:
            there = ", ".join([name for name, called in calls.items() if called.states][:_NAMES])
            cause = f"a spelling slip; among those that take tokens by name are {there}"
            raise value_error("layers to name modules that the model calls with tokens", f"{pattern!r}", cause)
        asked |= {called.name: _of_layer(question, called, allowed) for called in named}
    return {name: asked[name] for name in calls if name in asked}


def _of_layer(question: Question, called: Called, allowed: Any) -> Question:
    """Ask about one module with the arguments of its call; a lone mask is about keys, and each output has one query."""
    first, *others = called.states
    if not isinstance(allowed, Mapping):
        allowed = {first: sliding_window(0), **dict.fromkeys(others, allowed)} if others else {first: allowed}
    layer = replace(question, model=called.again, make_inputs=None, inputs=called.arguments, allowed=allowed)
    axis = 0 if question.position_axis == 0 else None  # tokens first, in the layers too
    return replace(layer, same_sequence=first, lengths=(), position_axis=axis, without_ids=())
