"""Small models that disobey their attention mask, each in one known way, and models that obey it.

Every fault comes with a witness: two inputs that differ only where one output position may not look,
and yet that output position differs. Every clean case keeps to its mask, however odd it looks. Two more lists are about
the other side: models that never reach some of what their mask allows, and models that reach all of it.
A file holds a family of faults; importing it writes them down.
"""

from corpus import (  # noqa: F401
    batch,
    clean,
    conditions,
    hidden,
    layouts,
    masks,
    mixing,
    modes,
    narrow,
    narrow_padding,
    narrow_state,
    numerics,
    padding,
    reached,
    reached_inputs,
    reached_values,
    state,
    suspicious,
    translation,
)
from corpus.case import ALWAYS, FAST_PATH, Case, Witness, allowed_table, differs, leaves, run, same, tensor_of
from corpus.exact_case import NARROW, REACHED, ExactCase
from corpus.inputs import altered
from corpus.parts import Attention, lower, softmax
from corpus.registry import CLEAN, FAULTS

__all__ = [
    "ALWAYS",
    "CLEAN",
    "FAST_PATH",
    "FAULTS",
    "NARROW",
    "REACHED",
    "Attention",
    "Case",
    "ExactCase",
    "Witness",
    "allowed_table",
    "altered",
    "differs",
    "leaves",
    "lower",
    "run",
    "same",
    "softmax",
    "tensor_of",
]
