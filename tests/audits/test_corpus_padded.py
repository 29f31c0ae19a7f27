"""The padded cases keep their word: plain loops compare each sample in the batch with the sample alone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corpus import CLEAN, FAULTS, leaves
from corpus.case import Inputs, mapped
from corpus.invariant import INVARIANT
from corpus.padded_case import CAUSES, PaddedCase
from corpus.variant import VARIANT

SEEDS = range(5)
MORE = (1, 4)
FIRST_DIFFERS = 1e-9

pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.usefixtures("as_installed"),
]


def _cases(cases: list[PaddedCase]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def test_names_are_unique_and_there_are_enough() -> None:
    names = [case.name for case in FAULTS + CLEAN + VARIANT + INVARIANT]
    assert len(set(names)) == len(names)
    assert len(VARIANT) >= 81
    assert len(INVARIANT) >= 83
    assert sum(case.shown_on is not None for case in VARIANT) <= 4
    for case in VARIANT + INVARIANT:
        assert case.why.endswith(".")
        assert ". " not in case.why
        assert case.cause in CAUSES
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", report) for report in case.reports)


@_cases(VARIANT + INVARIANT)
def test_a_sample_alone_is_its_real_tokens_however_much_padding_there_was(case: PaddedCase) -> None:
    inputs = case.inputs(0)
    grown = case.more(inputs, 2)
    assert case.real(grown).shape[1] == case.real(inputs).shape[1] + 2
    for sample, length in enumerate(case.real(inputs).sum(1)):
        alone = case.alone(inputs, sample)
        assert case.real(alone).tolist() == [[True] * length]
        assert _equal(case.alone(grown, sample), alone)


@_cases(VARIANT)
def test_some_sample_is_not_in_the_batch_what_it_is_alone(case: PaddedCase) -> None:
    """Where the given inputs do not show it, others do, with more padding on the same side."""
    for seed in SEEDS:
        assert max(_differences(case, (case.shown_on or case.inputs)(seed), seed)) > case.margin
        if case.shown_on:
            assert max(_differences(case, case.inputs(seed), seed)) <= FIRST_DIFFERS


@_cases(VARIANT)
def test_without_padding_a_batch_is_what_its_samples_are_alone(case: PaddedCase) -> None:
    """So it is padding that makes the difference, not that samples stand together."""
    alone = case.alone((case.shown_on or case.inputs)(0), 0)
    twice = mapped(alone, lambda tensor: tensor.repeat_interleave(2, 0) if tensor.ndim else tensor)
    assert max(_differences(case, twice, 0)) <= FIRST_DIFFERS


@_cases([case for case in VARIANT if case.where])
def test_the_difference_first_shows_where_it_says(case: PaddedCase) -> None:
    """Of all submodules, in the order in which they finish, the named one is the first that differs."""
    for seed in SEEDS[:2]:
        inputs = (case.shown_on or case.inputs)(seed)
        real, batch = case.real(inputs), _traced(case, inputs, seed)
        found = []
        for sample in range(len(real)):
            alone = _traced(case, case.alone(inputs, sample), seed)
            assert [name for name, _ in alone] == [name for name, _ in batch]
            found += [
                number
                for number, ((_, many), (_, one)) in enumerate(zip(batch, alone, strict=True))
                if many.shape[:2] == real.shape and _difference(many[sample, real[sample]], one[0]) > FIRST_DIFFERS
            ]
        assert batch[min(found)][0] == case.where


@_cases(INVARIANT)
def test_each_sample_is_in_the_batch_what_it_is_alone(case: PaddedCase) -> None:
    for seed in SEEDS:
        inputs = case.inputs(seed)
        assert max(_differences(case, inputs, seed)) <= case.rounding
        for extra in MORE:
            assert max(_differences(case, case.more(inputs, extra), seed)) <= case.rounding


@cache
def _model(case: PaddedCase, seed: int) -> Any:
    return case.make(seed)


def _differences(case: PaddedCase, inputs: Inputs, seed: int) -> list[float]:
    """Return for each sample how far its real tokens are from those that it has alone.

    One model runs them all in eval, since it may not remember; training may move it, so there each run has its own.
    """

    def run(inputs: Inputs) -> Tensor:
        return case.run(_model(case, seed) if case.mode == "eval" else case.make(seed), inputs)

    output, real = run(inputs), case.real(inputs)
    return [
        _difference(output[sample, real[sample]], run(case.alone(inputs, sample))[0]) for sample in range(len(real))
    ]


def _difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest number; infinite where a number is missing."""
    assert one.shape == other.shape
    one, other = one.double(), other.double()
    if not (one.isfinite().all() and other.isfinite().all()):
        return torch.inf
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-3))


def _equal(one: Inputs, other: Inputs) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return one.keys() == other.keys() and all(
        torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])) for name, value in one.items()
    )


def _traced(case: PaddedCase, inputs: Inputs, seed: int) -> list[tuple[str, Tensor]]:
    model = case.make(seed)
    with _recorded(model) as trace:
        case.run(model, inputs)
    return trace


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[tuple[str, Tensor]]]:
    """Record what each submodule gives, in the order in which they finish."""
    trace: list[tuple[str, Tensor]] = []

    def note(name: str) -> Any:
        return lambda module, inputs, output: trace.extend((name, tensor.clone()) for tensor in leaves(output)[:1])

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        yield trace
    finally:
        for handle in handles:
            handle.remove()
