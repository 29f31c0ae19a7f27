"""The corpus keeps its word: every fault leaks where its witness says, and no clean case leaks at all."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corpus import (
    ALWAYS,
    CLEAN,
    FAULTS,
    Case,
    Witness,
    allowed_table,
    altered,
    differs,
    leaves,
    run,
    same,
    tensor_of,
)

SEEDS = range(5)


pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.usefixtures("as_installed"),  # thousands of runs: with the checks of every signature, half as fast
]


def _cases(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def test_names_are_unique_and_there_are_enough() -> None:
    """Every name occurs once; every sentence is one sentence."""
    names = [case.name for case in FAULTS + CLEAN]
    assert len(set(names)) == len(names)
    assert len(FAULTS) >= 192
    assert len(CLEAN) >= 60
    assert all(case.why.endswith(".") and case.leaks_in for case in FAULTS + CLEAN)
    assert not any(case.missed for case in CLEAN)


@_cases(FAULTS)
def test_the_witness_changes_forbidden_places_only(case: Case) -> None:
    """Before and after differ only where the output may not look; that the output differs is the next test."""
    for seed in SEEDS:
        witness = _witness(case, seed)
        sample, position = witness.at
        before, after = tensor_of(witness.before, case.of), tensor_of(witness.after, case.of)
        assert before.shape == after.shape
        changed = (before != after).reshape(*before.shape[:2], -1).any(-1)
        assert changed.any()
        if isinstance(witness.before, dict):
            assert all(
                value is witness.after[name] or torch.equal(value, witness.after[name])
                for name, value in witness.before.items()
                if name != case.of
            )
        output = run(case.make(seed), witness.before, witness.mode, witness.grad_enabled, witness.dtype)
        for inputs in (witness.before, witness.after):
            table, judged = allowed_table(case, inputs, output[0].shape[1])
            assert judged[sample, position]
            assert not (changed[sample] & table[sample, position]).any()


@_cases(FAULTS)
def test_the_leak_shows_in_the_modes_it_names_and_in_no_other(case: Case) -> None:
    """The witness differs in every mode of leaks_in; in the others it does not, or the model refuses."""
    for seed in SEEDS:
        assert differs(case, _witness(case, seed), seed)
    for seed in SEEDS[:2]:
        for mode, grad_enabled in sorted(ALWAYS):
            found = _witness(case, seed)._replace(mode=mode, grad_enabled=grad_enabled)
            assert _shows(case, found, seed) == ((mode, grad_enabled) in case.leaks_in), (mode, grad_enabled)


@_cases([case for case in FAULTS if case.remembers])
def test_what_is_remembered_is_what_was_in_the_call_before(case: Case) -> None:
    """A count of calls would differ from call to call as well: here the same input follows two others."""
    for seed in SEEDS:
        witness = _witness(case, seed)
        given = witness.mode, witness.grad_enabled, witness.dtype, seed
        outputs = []
        for first in (witness.before, witness.after):
            model = case.make(seed)
            run(model, first, *given)
            outputs.append(run(model, witness.after, *given)[0][witness.at])
        assert not same(*outputs)


@_cases([case for case in FAULTS if case.where])
def test_the_leak_first_shows_where_it_says(case: Case) -> None:
    """Of all submodules, in the order in which they finish, the named one is the first that differs."""
    witness, seed = _witness(case, 0), 0
    model = case.make(seed)
    traces = []
    for inputs in (witness.before, witness.after):
        with _recorded(model) as trace:
            run(model, inputs, witness.mode, witness.grad_enabled, witness.dtype, seed)
        traces.append(trace)
    before, after = tensor_of(witness.before, case.of), tensor_of(witness.after, case.of)
    quiet = _unmoved(*allowed_table(case, witness.before, before.shape[1]), before != after)
    differing = [
        name
        for (name, one), (_, other) in zip(*traces, strict=True)
        if one.shape[:2] == quiet.shape and not same(one[quiet], other[quiet])
    ]
    if case.one_sequence:
        assert differing[0] == case.where
    else:
        assert case.where in [name for name, _ in traces[0]]


@_cases(CLEAN)
def test_clean_cases_do_not_change(case: Case) -> None:
    """No judged output moves when inputs that it may not depend on are changed.

    One model runs them all in eval, since it may not remember; training may move it, so there each run has its own.
    """
    chance = random.Random(case.name)
    for seed in SEEDS:
        before, model = case.inputs(seed), case.make(seed)
        batch, key_len = tensor_of(before, case.of).shape[:2]
        for mode, grad_enabled in sorted(case.leaks_in):
            plain = run(case.make(seed) if mode == "train" else model, before, mode, grad_enabled, None, seed)
            table, judged = allowed_table(case, before, plain[0].shape[1])
            for trial in range(8):
                sample, position = chance.choice(judged.nonzero().tolist())
                if trial % 2:  # all that one output may not depend on, other samples included
                    cells = [
                        (b, k)
                        for b in range(batch)
                        for k in range(key_len)
                        if b != sample or not table[sample, position, k]
                    ]
                else:  # one input
                    cells = [(sample, chance.randrange(key_len))]
                after = altered(before, case.of, cells, 100 * seed + trial)
                again = case.make(seed) if mode == "train" else model
                moved = run(again, after, mode, grad_enabled, None, seed)
                quiet = _unmoved(table, judged, tensor_of(before, case.of) != tensor_of(after, case.of))
                assert all(
                    same(one[quiet], other[quiet], case.rounding) for one, other in zip(plain, moved, strict=True)
                )
                assert quiet.any() or not trial % 2


def _unmoved(table: Tensor, judged: Tensor, changed: Tensor) -> Tensor:
    """Return (batch, query): the judged outputs that may depend on nothing that changed."""
    return judged & ~(changed.reshape(*changed.shape[:2], 1, -1).any(-1).mT & table).any(-1)


@cache
def _witness(case: Case, seed: int) -> Witness:
    return case.witness(seed)


def _shows(case: Case, witness: Witness, seed: int) -> bool:
    """Say whether the leak shows; PyTorch may refuse a causal hint that comes without a mask."""
    try:
        return differs(case, witness, seed)
    except RuntimeError as error:
        if "is_causal" in str(error):
            return False
        raise


@contextmanager
def _recorded(model: Any) -> Iterator[list[tuple[str, Tensor]]]:
    """Record what each submodule gives, in the order in which they finish."""
    trace: list[tuple[str, Tensor]] = []

    def note(name: str) -> Any:
        return lambda module, inputs, output: trace.append((name, leaves(output)[0].detach().clone()))

    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    handles = [module.register_forward_hook(note(name)) for name, module in modules if name]
    try:
        yield trace
    finally:
        for handle in handles:
            handle.remove()
