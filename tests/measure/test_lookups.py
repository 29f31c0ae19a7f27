"""Token ids are followed to where they become vectors; where they cannot be, that is said."""

import pytest
import torch
from torch import nn

from attnmask import causal
from attnmask.layers import Encoder
from attnmask.probe import influence
from real_models import IDS as SOURCE
from real_models import bart

TRIL = torch.ones(5, 5).tril().bool()
SELF = torch.eye(5).bool()
IDS = torch.tensor([[7, 3, 9, 3, 5]])
both_probes = pytest.mark.parametrize("probe", ["gradient", "perturbation"])


class Lookup(nn.Module):
    """Look ids up in one of several ways, then mix them causally."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.how, self.embedding, self.encoder = how, nn.Embedding(10, 8), Encoder(layers=1, d_model=8)

    def forward(self, ids):
        return self.encoder(self.how(self.embedding, ids), causal())


WAYS = {
    "module": lambda embedding, ids: embedding(ids),
    "function": lambda embedding, ids: nn.functional.embedding(ids, embedding.weight),
    "named arguments": lambda embedding, ids: nn.functional.embedding(input=ids, weight=embedding.weight),
    "indexing": lambda embedding, ids: embedding.weight[ids],
    "flat": lambda embedding, ids: embedding.weight.index_select(0, ids.flatten()).reshape(*ids.shape, 8),
    "view": lambda embedding, ids: embedding(ids.view(-1, ids.shape[-1])),
    "int32": lambda embedding, ids: embedding(ids.int()),
    "twice": lambda embedding, ids: embedding(ids) + embedding(ids.clone()).roll(1, 1),
    "frozen": lambda embedding, ids: nn.functional.embedding(ids, embedding.weight.detach()),
    "written into": lambda embedding, ids: embedding(ids).mul_(3).add_(1),
    "frozen and written into": lambda embedding, ids: embedding.weight.detach()[ids].mul_(3).add_(1),
}


@both_probes
@pytest.mark.parametrize("way", WAYS)
def test_token_ids_are_followed_to_where_they_are_looked_up(way, probe):
    model = Lookup(WAYS[way])
    expected = TRIL
    if way == "twice":
        expected = (TRIL.float() @ (SELF | SELF.roll(1, 0)).float()) > 0  # own token and, rolled, the one before
    several = torch.tensor([[7, 3, 9, 3, 5], [1, 1, 1, 1, 1]])
    for ids in (IDS, several):
        assert torch.equal(influence(model, ids, probe=probe), expected.expand(len(ids), 5, 5))


@both_probes
def test_an_embedding_that_is_overwritten_does_not_reach(probe):
    def overwrite(embedding, ids):
        hidden = embedding(ids)
        hidden[:, 2] = 0.5
        return hidden

    expected = TRIL.clone()
    expected[:, 2] = False
    assert torch.equal(influence(Lookup(overwrite), IDS, probe=probe)[0], expected)


def test_ids_changed_on_the_way_need_the_perturbation_probe():
    model = Lookup(lambda embedding, ids: embedding(ids.roll(1, 1)))
    expected = TRIL.float() @ SELF.roll(1, 0).float() > 0
    assert torch.equal(influence(model, IDS, probe="perturbation")[0], expected)


def test_ids_that_meet_no_embedding_are_exchanged_among_themselves():
    def one_hot(ids):
        return nn.functional.one_hot(ids, 10).float().cumsum(1)

    assert torch.equal(influence(one_hot, IDS, probe="perturbation")[0], TRIL)


BESIDE = {
    "shifted": lambda embedding, ids: embedding(ids.roll(1, 1)),
    "shifted in place": lambda embedding, ids: embedding(shift(ids)),
    "as a number": lambda embedding, ids: ids.float()[..., None],
    "one-hot": lambda embedding, ids: nn.functional.one_hot(ids, 10).float()[..., :8],
    "by several indices": lambda embedding, ids: embedding.weight[ids, :].cumsum(1),
    "of a table the other way up": lambda embedding, ids: embedding.weight.T.index_select(1, ids[0]).T[None],
    "outside PyTorch": lambda embedding, ids: embedding(torch.tensor(ids.tolist())).cumsum(1),
    "through NumPy": lambda embedding, ids: embedding(torch.from_numpy(ids.numpy()[:, ::-1].copy())),
    "gathered": lambda embedding, ids: embedding.weight[:, :1].T.expand(5, 10).gather(1, ids.T)[None],
}


def shift(ids):
    ids[:, 1:] = ids[:, :-1].clone()
    return ids


@pytest.mark.parametrize("way", BESIDE)
@pytest.mark.parametrize("beside", [True, False], ids=["beside a plain lookup", "alone"])
def test_a_way_on_which_ids_cannot_be_followed_is_not_passed_over(way, beside):
    def model(ids):
        hidden = embedding(ids) if beside else 0
        return hidden + BESIDE[way](embedding, ids) + embedding.weight[0]

    embedding = nn.Embedding(10, 8)
    with pytest.raises(ValueError, match="Expected inputs that the model looks up in an embedding as they are"):
        influence(model, IDS)
    assert influence(model, IDS, probe="perturbation").any()


def test_two_inputs_that_are_joined_are_both_refused():
    embedding = nn.Embedding(10, 8)
    for of in ("source", "target"):
        with pytest.raises(ValueError, match=f"Expected {of} that the model looks up"):
            influence(
                lambda source, target: embedding(target) + embedding(torch.cat([source, target], 1))[:, :5],
                {"source": IDS, "target": IDS},
                of=of,
            )


def test_bools_and_fresh_tensors_made_from_ids_are_no_way_of_ids():
    embedding, kinds, places = nn.Embedding(10, 8), nn.Embedding(2, 8), nn.Embedding(9, 8)

    def model(ids):
        real = (ids != 0).int()
        at = real.cumsum(1) * real
        bias = torch.where((ids == 3)[..., None], 1.0, 0.0)
        return embedding(ids) + kinds(torch.zeros_like(ids)) + places(at) + kinds(ids.new_zeros(1, 5)) + bias

    assert torch.equal(influence(model, IDS)[0], SELF)


def test_a_table_of_one_axis_is_looked_up_too():
    bias, embedding = nn.Parameter(torch.randn(10)), nn.Embedding(10, 8)
    found = influence(lambda ids: embedding(ids) + bias[ids].cumsum(1)[..., None], IDS)
    assert torch.equal(found[0], TRIL)


def test_bart_which_makes_its_target_from_the_source_is_refused_not_misread():
    with pytest.raises(ValueError, match="input_ids that the model looks up in an embedding as they are"):
        influence(bart("eager"), {"input_ids": SOURCE})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_ids_may_be_small_integers(dtype):
    embedding = nn.Embedding(300, 8)
    found = influence(lambda ids: embedding(ids.long()), IDS.to(dtype), probe="perturbation")
    assert torch.equal(found[0], SELF)
