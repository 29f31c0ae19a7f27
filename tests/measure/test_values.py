"""Other values have the shape and dtype of those given, and are what their kind says."""

import pytest
import torch

from attnmask._measure.call import Layout
from attnmask._measure.values import Kind, other_values

SEEDS = range(20)
every_kind = pytest.mark.parametrize("kind", Kind, ids=[kind.name for kind in Kind])
FLOATS = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[7, 3, 9, 3, 5], [0, 11, 11, 1, 2]])
VOCABULARY = 12


@every_kind
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_floats_keep_their_shape_and_dtype_and_are_numbers(kind, dtype):
    before = FLOATS.to(dtype)
    after = other_values("x", before, kind)
    assert (after.shape, after.dtype) == (before.shape, dtype)
    assert after.isfinite().all()
    assert torch.equal(before, FLOATS.to(dtype))
    after.zero_()  # and a place of their own
    assert torch.equal(before, FLOATS.to(dtype))


@every_kind
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("vocabulary", [VOCABULARY, 5000, None])
def test_ids_keep_their_shape_and_dtype_and_stay_inside_the_vocabulary(kind, dtype, vocabulary):
    before = IDS.to(dtype)
    for seed in SEEDS:
        after = other_values("ids", before, kind, vocabulary, seed)
        assert (after.shape, after.dtype) == (before.shape, dtype)
        if vocabulary is None:  # those that are there
            assert torch.isin(after, before).all()
        else:
            assert after.min() >= 0
            assert int(after.max()) < vocabulary
    assert torch.equal(before, IDS.to(dtype))


@every_kind
@pytest.mark.parametrize(
    ("tensor", "position"),
    [(FLOATS[0], 0), (FLOATS.transpose(0, 1), 0), (FLOATS.mT, 2), (IDS[0], 0), (IDS.T, 0)],
    ids=["a lone sample", "positions first", "positions last", "lone ids", "ids, positions first"],
)
def test_every_layout_is_viewed_as_batch_and_position_first(kind, tensor, position):
    front = Layout.of("x", tensor, position).as_batch_position(tensor)
    after = other_values("x", front, kind, None if tensor.is_floating_point() else VOCABULARY)
    assert (after.shape, after.dtype) == (front.shape, tensor.dtype)
    assert after.shape[1] == 5


@pytest.mark.parametrize("kind", [Kind.SMALL, Kind.LARGE, Kind.MOVED], ids=lambda kind: kind.name)
@pytest.mark.parametrize("vocabulary", [2, VOCABULARY, None])
def test_other_ids_differ_at_every_place(kind, vocabulary):
    ids = IDS % vocabulary if vocabulary else IDS
    for seed in SEEDS:
        assert (other_values("ids", ids, kind, vocabulary, seed) != ids).all()


def test_ids_of_one_kind_are_all_the_same_number():
    for seed in SEEDS:
        assert set(other_values("ids", IDS, Kind.EQUAL, VOCABULARY, seed).flatten().tolist()) == {seed % VOCABULARY}
    assert set(other_values("ids", IDS, Kind.ZERO, VOCABULARY).flatten().tolist()) == {0}
    assert set(other_values("ids", IDS, Kind.OPPOSITE, VOCABULARY).flatten().tolist()) == {VOCABULARY - 1}


def test_huge_ids_are_the_first_and_the_last_of_the_vocabulary():
    found = torch.stack([other_values("ids", IDS, Kind.HUGE, 5000, seed) for seed in SEEDS])
    assert set(found.flatten().tolist()) == {0, 1, 2, 4997, 4998, 4999}


@pytest.mark.parametrize("before", [FLOATS, IDS], ids=["floats", "ids"])
def test_repeated_is_the_value_of_the_first_place_everywhere(before):
    after = other_values("x", before, Kind.REPEATED, VOCABULARY)
    assert all(torch.equal(after[:, place], before[:, 0]) for place in range(5))


def test_floats_are_as_large_as_their_kind_says():
    size = {kind: other_values("x", 3 * FLOATS, kind).abs().max() / (3 * FLOATS).abs().max() for kind in Kind}
    for kind, expected in {Kind.SMALL: 1, Kind.LARGE: 10, Kind.HUGE: 1e4, Kind.OPPOSITE: 1e4}.items():
        assert expected / 2 < size[kind] < expected * 2
    assert size[Kind.ZERO] == 0
    assert torch.equal(other_values("x", FLOATS, Kind.OPPOSITE), -other_values("x", FLOATS, Kind.HUGE))
    equal = other_values("x", FLOATS, Kind.EQUAL)
    assert torch.equal(equal, equal[:1, :1].expand_as(equal))


def test_moved_floats_are_those_of_the_place_before():
    moved = other_values("x", FLOATS, Kind.MOVED)
    assert torch.equal(moved.flatten(0, 1), FLOATS.flatten(0, 1).roll(1, 0))


@pytest.mark.parametrize("kind", [Kind.HUGE, Kind.OPPOSITE], ids=lambda kind: kind.name)
def test_huge_values_stay_finite_in_half_precision(kind):
    for spread in (1, 100, 10_000):
        after = other_values("x", (spread * FLOATS).half(), kind)
        assert after.isfinite().all()
        assert after.abs().max() > 10_000


@every_kind
@pytest.mark.parametrize("before", [FLOATS, IDS], ids=["floats", "ids"])
def test_a_seed_gives_the_same_values_again(kind, before):
    state = torch.get_rng_state()
    one, again = (other_values("x", before, kind, VOCABULARY, seed=3) for _ in range(2))
    assert torch.equal(one, again)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("before", [torch.full((1, 5, 8), 2.0), torch.full((1, 5, 8), torch.inf)], ids=["one", "inf"])
def test_values_without_a_spread_are_exchanged_for_some_of_size_one(before):
    after = other_values("x", before, Kind.SMALL)
    assert 0.5 < after.std() < 2
