"""The cases about exactness keep their word, by replacing one input at a time; no audit is involved.

An input is replaced by every other id, or by many vectors, small and large. A pair is reached where some replacement
moves the output; it is hidden where none does, bit for bit.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnmask
from corpus import ALWAYS, CLEAN, FAULTS, allowed_table, run, tensor_of
from corpus.case import VOCABULARY, Inputs, floats, mapped
from corpus.exact_case import NARROW, REACHED, ExactCase

SEEDS = range(5)
BASES = 20
SIZES = (1.0, 1.0, 3.0, 0.1, 10.0, 100.0)

pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.usefixtures("as_installed"),
]


def _cases(cases: list[ExactCase]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def test_names_are_unique_and_there_are_enough() -> None:
    names = [case.name for case in [*FAULTS, *CLEAN, *NARROW, *REACHED]]
    assert len(set(names)) == len(names)
    assert len(NARROW) >= 28
    assert len(REACHED) >= 28
    assert all(case.why.endswith(".") and case.hidden and case.hides_in for case in NARROW)
    assert all(case.why.endswith(".") and case.leaks_in and not case.hidden for case in REACHED)


@_cases(NARROW)
def test_hidden_pairs_are_allowed_and_no_replacement_shows_them(case: ExactCase) -> None:
    """Every replacement leaves the output equal bit for bit, as the model is and as the proof casts it."""
    chance = random.Random(case.name)
    for seed in SEEDS:
        before = _shown(case, seed)
        hidden, wanted = case.hidden(before), case.wanted(before)
        assert hidden
        assert all(wanted[triple] for triple in hidden)
        modes = sorted(case.hides_in) if seed == 0 else [chance.choice(sorted(case.hides_in))]
        for mode, grad_enabled in modes:
            dtype = case.dtype if seed % 2 else None
            replaced = _Replaced(case, before, seed, mode, grad_enabled, dtype)
            columns = _columns(hidden)
            for sample, key in chance.sample(columns, min(1 if seed == 0 else 2, len(columns))):
                rows = [query for b, query, k in hidden if (b, k) == (sample, key)]
                for changed in replaced.by_every(sample, key, chance.randrange(1000)):
                    assert not replaced.moved(changed, exactly=True)[sample, rows].any(), (sample, rows, key)


@_cases(NARROW)
def test_whatever_else_is_allowed_is_reached(case: ExactCase) -> None:
    """So `hidden` misses nothing, and in modes in which nothing is hidden everything is reached."""
    for seed in SEEDS[:2]:
        for mode, grad_enabled in sorted(ALWAYS) if len(case.hides_in) < len(ALWAYS) else [("eval", False)]:
            before = _shown(case, seed)
            wanted = case.wanted(before)
            for triple in case.hidden(before) if (mode, grad_enabled) in case.hides_in else ():
                wanted[triple] = False
            _assert_reached(
                case,
                lambda base: _shown(case, base),
                wanted,
                seed,
                mode,
                grad_enabled,
                nothing_else=not case.leaks,
            )


@_cases([case for case in NARROW if case.shown_on])
def test_shorter_inputs_hide_nothing(case: ExactCase) -> None:
    _assert_reached(case, case.inputs, case.wanted(case.inputs(0)), 0, "eval", False)


@_cases([case for case in NARROW if case.fits])
def test_the_rule_that_fits_allows_what_is_not_hidden(case: ExactCase) -> None:
    """A rule made of one of the inputs is read with that input in place of its shape."""
    inputs = _shown(case, 0)
    text = case.fits.split("[")[0] + case.fits.split("]")[-1] if "[" in case.fits else case.fits
    rule = eval(text, vars(attnmask) | (inputs if isinstance(inputs, dict) else {}))
    assert repr(rule) == case.fits
    seen = case.wanted(inputs)
    for triple in case.hidden(inputs):
        seen[triple] = False
    dense = rule.dense(*seen.shape[1:], batch=len(seen)).expand(len(seen), -1, *seen.shape[1:]).any(1)
    assert torch.equal(dense & case.wanted(inputs), seen)


@_cases([case for case in NARROW if case.where])
def test_what_hides_is_a_part_of_the_model(case: ExactCase) -> None:
    assert case.where in dict(case.make(0).named_modules())


@_cases(REACHED)
def test_every_allowed_pair_is_reached_and_no_other(case: ExactCase) -> None:
    """In all modes for one seed, and in one mode or the other for the rest."""
    modes = sorted(case.leaks_in)
    for seed in SEEDS:
        for mode, grad_enabled in modes if seed == 0 else modes[seed % len(modes) :][:1]:
            wanted = case.wanted(case.inputs(seed))
            _assert_reached(case, case.inputs, wanted, seed, mode, grad_enabled, nothing_else=True)


def _assert_reached(
    case: ExactCase,
    inputs: Callable[[int], Inputs],
    wanted: Tensor,
    seed: int,
    mode: str,
    grad_enabled: bool,
    *,
    nothing_else: bool = False,
) -> None:
    """Try replacements, from one base after the other, until every wanted pair has moved."""
    missing = wanted.clone()
    for attempt in range(BASES):
        base = seed + 1000 * attempt
        before = inputs(base)
        replaced = _Replaced(case, before, seed, mode, grad_enabled, case.dtype, draws=base)
        if nothing_else:
            table, judged = allowed_table(case, before, wanted.shape[1])
        for sample, key in _columns(missing.nonzero().tolist()):
            for changed in replaced.by_every(sample, key, base):
                moved = replaced.moved(changed)
                missing[sample, :, key] &= ~moved[sample]
                if nothing_else:
                    forbidden = judged.clone()
                    forbidden[sample] &= ~table[sample, :, key]
                    assert not (moved & forbidden).any(), (sample, key)
                if not missing[sample, :, key].any():
                    break
        if not missing.any():
            return
    raise AssertionError(f"seed {seed}, {mode}: not reached: {missing.nonzero().tolist()}")


class _Replaced:
    """A model run on inputs of which one token is replaced, compared with the run before."""

    def __init__(
        self,
        case: ExactCase,
        before: Inputs,
        seed: int,
        mode: str,
        grad_enabled: bool,
        dtype: torch.dtype | None,
        draws: int = 0,
    ) -> None:
        model = case.make(seed)
        if isinstance(model, nn.Module):  # set once, not before each of thousands of runs
            model.train(mode == "train").to(dtype)
        self.case, self.call = case, lambda *positional, **named: model(*positional, **named)
        self.before = mapped(before, lambda tensor: tensor.to(dtype or tensor.dtype) if floats(tensor) else tensor)
        self.how = mode, grad_enabled, None, draws
        self.plain = run(self.call, self.before, *self.how)

    def by_every(self, sample: int, key: int, seed: int) -> Iterator[list[Tensor]]:
        """Give the outputs for each replacement of one token; a model may refuse an id."""
        given = tensor_of(self.before, self.case.of)
        for token in _replacements(given[sample, key], seed):
            after = mapped(self.before, Tensor.clone)
            tensor_of(after, self.case.of)[sample, key] = token
            try:
                yield run(self.call, after, *self.how)
            except ValueError:
                continue

    def moved(self, outputs: list[Tensor], *, exactly: bool = False) -> Tensor:
        """Return (batch, query): which outputs differ, beyond rounding unless exactly."""
        parts = []
        for one, other in zip(self.plain, outputs, strict=True):
            apart = (one != other) & ~(one.isnan() & other.isnan())
            if one.dtype == torch.float64 and not exactly:
                apart &= ~((one - other).abs() <= 1e-12 * one.abs().max().clamp(min=1))
            parts.append(apart.flatten(2).any(-1) if apart.dim() > 2 else apart)
        return torch.stack(parts).any(0)


def _replacements(token: Tensor, seed: int) -> list[Tensor]:
    if not floats(token):
        return [torch.tensor(other) for other in reversed(range(VOCABULARY)) if other != int(token)]
    generator = torch.Generator().manual_seed(seed)
    return [size * torch.randn(token.shape, generator=generator).to(token) for size in SIZES for _ in range(5)]


def _columns(triples: list[Any]) -> list[tuple[int, int]]:
    return sorted({(sample, key) for sample, _, key in triples})


def _shown(case: ExactCase, seed: int) -> Inputs:
    return (case.shown_on or case.inputs)(seed)
