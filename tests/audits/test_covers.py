"""Every shortcut of the audit has a cover: with it a fault is found, and without it the same fault is missed."""

from contextlib import nullcontext
from typing import NamedTuple

import pytest
import torch
from torch import nn

from attnmask import audit, causal
from attnmask._audit import budgets, engine, reached
from attnmask._audit.records import Case
from attnmask._audit.runner import Runner
from attnmask._measure.snapshot import Snapshot
from corpus import CLEAN, FAULTS, REACHED

pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.usefixtures("as_installed"),
]
CASES = {case.name: case for case in FAULTS + CLEAN}


class Cover(NamedTuple):
    """What is taken away, and from where; the fault that is then missed, with a seed."""

    place: object
    name: str
    without: object
    fault: str
    seed: int = 0


def without_budget(**less):
    return {name: each._replace(**less) for name, each in vars(budgets).items() if isinstance(each, budgets.Budget)}


def other_cases_but(unwanted):
    """Return the cases that are made, without some."""
    made = engine.other_cases

    def rest(*asked):
        return (each for each in made(*asked) if not (isinstance(each, Case) and unwanted(each)))

    return rest


COVERS = {
    "a mode is only left out where it gives the bits of another": Cover(
        Runner, "gives_the_bits_of", lambda self, earlier: True, "training_without_gradients"
    ),
    "and gives them for changed inputs too": Cover(
        Runner,
        "gives_the_bits_of",
        lambda self, earlier: self.bits == earlier.bits,
        "huge_values_while_gradients_are_recorded",
    ),
    "what moves in a batch only is tried in that batch": Cover(
        engine,
        "other_cases",
        other_cases_but(lambda case: case.resampled and len(case.judged) > 2),
        "full_chunks_of_eight_samples_mix",
    ),
    "one and two samples are tried apart": Cover(
        engine,
        "other_cases",
        other_cases_but(lambda case: case.resampled and len(case.judged) <= 2),
        "two_samples_mix_and_three_are_given",
    ),
    "a batch of copies is used where it repeats one sample": Cover(
        Runner, "repeats_in", lambda self, copies: True, "a_lone_sample_tells_one_neighbour"
    ),
    "some changes are run at the shape that was given": Cover(
        budgets, "", without_budget(unbatched=0), "a_lone_sample_is_told_a_millionth_of_its_future"
    ),
    "as many changes as outputs": Cover(budgets, "", without_budget(every_output=False), "middle_token_id_is_next"),
    "every id of a small vocabulary": Cover(Case, "special_ids", lambda case, name: [], "middle_token_id_is_next"),
    "single huge values among large tokens": Cover(budgets, "", without_budget(singles=0), "half_precision_overflow"),
    "the other samples are changed by themselves": Cover(
        budgets, "", without_budget(others=0), "one_sample_given_sorted_over_the_batch"
    ),
    "other lengths in both ways of each mode": Cover(
        engine,
        "modes_of",
        lambda case, name, names: budgets.modes_of(case, name, names)[: 1 if case.label else 2],
        "longer_than_given_with_gradients_in_eval",
    ),
    "gradients": Cover(engine, "file_gradients", lambda *asked: {}, "dropout_before_softmax"),
    "two calls": Cover(engine, "file_repeats", lambda *asked: None, "remembered_in_a_list"),
}


def test_what_is_written_without_a_trace_is_measured_again(monkeypatch):
    """Else runs do not start alike: what one of them wrote to a weight is taken for the next one's doing."""
    case = CASES["large_weight_written_through_data_if_huge"]  # it remembers the call before, and leaks nothing else

    def sources():
        return {leak.input for leak in audit(case.make(0), **case.asked(case.inputs(0))).leaks}

    assert sources() == {None}
    monkeypatch.setattr(Snapshot, "settled", lambda self, measure: measure())
    assert sources() > {None}


@pytest.mark.parametrize("name", COVERS)
def test_without_its_cover_a_shortcut_misses_a_fault(name, monkeypatch):
    place, attribute, without, fault, seed = COVERS[name]
    case = CASES[fault]

    def verdict():
        return audit(case.make(seed), **case.asked(case.inputs(seed)), until_leak=True).ok

    assert not verdict()
    for each, value in without.items() if isinstance(without, dict) else [(attribute, without)]:
        monkeypatch.setattr(place, each, value)
    assert verdict()


class Dropping(nn.Module):
    """In training, a sum over the past that is dropped half of the time."""

    def forward(self, x):
        kept = not self.training or bool(torch.rand(()) >= 0.5)
        return x + kept * x.cumsum(1)


class Memory(nn.Module):
    """A state that keeps a third of itself with each token, and so 1e-31 of what is 64 tokens back."""

    def forward(self, x):
        state, states = torch.zeros_like(x[:, 0]), []
        for token in x.unbind(1):
            state = state / 3 + token
            states.append(state)
        return torch.stack(states, 1)


def corpus_case(name):
    case = next(each for each in REACHED if each.name == name)
    return lambda seed: (case.make(seed), case.asked(case.inputs(seed)))


def floats(model, length):
    return lambda seed: (model, {"inputs": torch.randn(1, length, 4), "allowed": causal(), "lengths": []})


EXACT = {
    "what ids are looked up as": ("_by_vectors", corpus_case("hard_attention"), 1),
    "many changes": ("_by_changes", corpus_case("repeats_counted"), 1),
    "gradients in float64": ("by_gradients", floats(Memory(), 66), 1),
    "no chance in training": ("_without_chance", floats(Dropping(), 5), 6),
}


@pytest.mark.parametrize("name", EXACT)
def test_without_it_a_model_that_reaches_all_is_accused(name, monkeypatch):
    """What is asked of a right model is shown in one of several ways, of which each is needed by some model."""
    attribute, made, seeds = EXACT[name]

    def verdict():
        found = []
        for seed in range(seeds):
            model, asked = made(seed)
            torch.manual_seed(seed)
            found.append(audit(model, **asked, exact=True, until_leak=True).ok)
        return all(found)

    assert verdict()
    if attribute == "_without_chance":
        monkeypatch.setattr(reached, attribute, nullcontext)
    else:
        monkeypatch.setattr(reached._Search, attribute, lambda *asked: None)
    assert not verdict()
