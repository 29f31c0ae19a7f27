from importlib import import_module
from inspect import isfunction, signature
from pathlib import Path
from pkgutil import iter_modules

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attnmask
from attnmask import Mask, causal, chunked, documents, everything, masks, padding, prefix, sliding_window
from oracles import LEAVES, dense, some_sizes, table


def constructors():
    """Every public function of the package `masks` that makes a mask, wherever it was put."""
    modules = [import_module(f"attnmask.masks.{info.name}") for info in iter_modules(masks.__path__)]
    return {
        name: each
        for module in modules
        for name, each in vars(module).items()
        if isfunction(each)
        and each.__module__ == module.__name__
        and not name.startswith("_")
        and signature(each).return_annotation is Mask
    }


def test_every_constructor_is_exported_listed_and_has_an_oracle():
    made = constructors()
    assert {"causal", "from_dense"} < set(made)
    for package in (masks, attnmask):
        assert {name for name, each in made.items() if getattr(package, name, None) is not each} == set()
    assert set(made) - set(LEAVES) == set()
    for page in ("README.md", "CHANGELOG.md"):
        text = (Path(__file__).parents[2] / "companion" / page).read_text(encoding="utf-8")
        assert {name for name in made if f"`{name}`" not in text} == set(), page


@pytest.mark.parametrize("name", constructors())
@given(data=st.data())
def test_an_oracle_draws_the_constructor_that_it_is_named_after(name, data):
    assert repr(data.draw(LEAVES[name](data.draw(some_sizes()))).mask).startswith(f"{name}(")


@pytest.mark.parametrize("leaf", LEAVES)
@given(data=st.data())
def test_each_constructor_answers_like_a_plain_loop(leaf, data):
    case = data.draw(LEAVES[leaf](data.draw(some_sizes())))
    assert torch.equal(dense(case.mask, case.sizes), table(case.rule, case.sizes))


def test_a_dilated_window_reaches_as_many_keys_as_an_undilated_one():
    assert sliding_window(2, 1, dilation=5).dense(40)[0, 0].sum(-1)[10:35].tolist() == [4] * 25
    assert sliding_window(2, 1, dilation=1).same_as(sliding_window(2, 1), 9)
    ids = torch.tensor([[3, 1, 5, 0]])
    expected = sliding_window(2, dilation=2).dense(6)[:, :, ids[0]][..., ids[0]]
    assert torch.equal(sliding_window(2, dilation=2, position_ids=ids).dense(4), expected)


def test_interior_and_left_padding_and_an_empty_row():
    keep = torch.tensor([[True, False, True, False], [False, False, True, True], [False] * 4])
    both = (causal() & padding(keep)).dense(4)
    assert both[:, 0].int().tolist() == [
        [[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]],
        [[0] * 4] * 4,
    ]


@pytest.mark.parametrize(
    ("mask", "picture"),
    [
        (causal(), ["x...", "xx..", "xxx.", "xxxx"]),
        (causal(offset=2), ["xxx.", "xxxx", "xxxx", "xxxx"]),
        (sliding_window(1), ["x...", "xx..", ".xx.", "..xx"]),
        (sliding_window(0, 1), ["xx..", ".xx.", "..xx", "...x"]),
        (causal() | prefix(3), ["xxx.", "xxx.", "xxx.", "xxxx"]),
        (causal() & documents(torch.tensor([[7, 7, 2, 2]])), ["x...", "xx..", "..x.", "..xx"]),
        (causal(position_ids=torch.tensor([[0, 0, 1, 1]])), ["xx..", "xx..", "xxxx", "xxxx"]),
        (sliding_window(3) & documents(torch.arange(4)[None] % 2), ["x...", ".x..", "x.x.", ".x.x"]),
        (~everything(), ["....", "....", "....", "...."]),
        (chunked(3), ["xxx.", "xxx.", "xxx.", "...x"]),
        ((causal() & chunked(3)).after(1), ["xx..", "xxx.", "...x", "...x"]),
        (sliding_window(1, 1, dilation=2), ["x.x.", ".x.x", "x.x.", ".x.x"]),
        (sliding_window(1, dilation=3), ["x...", ".x..", "..x.", "x..x"]),
        (causal().at(torch.tensor([3, 0, 1, 3])), ["xxxx", "x...", "xx..", "xxxx"]),
        (causal().at(None, torch.tensor([3, 0, 1, 3])), [".x..", ".xx.", ".xx.", "xxxx"]),
    ],
    ids=repr,
)
def test_masks_drawn_by_hand(mask, picture):
    rows = mask.dense(4).expand(1, 1, 4, 4)[0, 0].tolist()
    assert ["".join("x" if cell else "." for cell in row) for row in rows] == picture
