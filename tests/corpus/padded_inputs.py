"""Padded inputs on every side, the hand-written cut of a sample to its real tokens, and more padding."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from corpus.case import LENGTH, WIDTH, Inputs
from corpus.inputs import right_padded, token_ids
from corpus.padded_case import Keep


class Argument(NamedTuple):
    """Which axes of an argument count tokens, what stands at padding, and of which sequence."""

    axes: tuple[int, ...] = (1,)
    fill: float = 0
    of: str = ""


ARGUMENTS = {
    "ids": Argument(),
    "keep": Argument(),
    "ignored": Argument(fill=True),
    "states": Argument(),
    "position_ids": Argument(),
    "token_type_ids": Argument(),
    "lengths": Argument(axes=()),
    "scale": Argument(axes=()),  # one number for all
    "causal": Argument(axes=()),  # no tensor
    "prefix": Argument(axes=()),
    "speaker": Argument(axes=()),  # (batch, feature)
    "key_bias": Argument(axes=(3,), fill=torch.finfo(torch.float32).min),  # (batch, 1, 1, key)
    "mask": Argument(axes=(2, 3)),  # (batch, 1, query, key)
    "source": Argument(of="source"),
    "source_keep": Argument(of="source"),
    "target": Argument(of="target"),
    "target_keep": Argument(of="target"),
    "input_ids": Argument(of="input_ids"),
    "attention_mask": Argument(of="input_ids"),
    "decoder_input_ids": Argument(of="decoder_input_ids"),
    "decoder_attention_mask": Argument(of="decoder_input_ids"),
}


def _cut(value: Any, argument: Argument, sample: int, keep: Tensor) -> Any:
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    value, real = value[sample : sample + 1], keep[sample].nonzero()[:, 0]
    for axis in argument.axes:
        value = value.index_select(axis, real)
    return value


def _grown(value: Any, argument: Argument, extra: int, at: int | None) -> Any:
    for axis in argument.axes:
        before = value.shape[axis] if at is None else at
        fill = torch.full_like(value.narrow(axis, 0, 1), argument.fill).repeat_interleave(extra, axis)
        value = torch.cat(
            [value.narrow(axis, 0, before), fill, value.narrow(axis, before, value.shape[axis] - before)], axis
        )
    return value


def laid_out(
    inputs: Callable[[int], Inputs],
    at: int | None = None,
    keep: Callable[[Inputs], Keep] = lambda inputs: inputs["keep"],
    fill: int = 0,
) -> dict[str, Any]:
    """Return the part of a case that its inputs decide; `at` is the column where more padding would go, None the end.

    `fill` is the id of the padding.
    """

    def argument_of(name: str) -> Argument:
        return ARGUMENTS[name]._replace(fill=fill) if name == "ids" else ARGUMENTS[name]

    def alone(inputs: Inputs, sample: int) -> Inputs:
        kept = keep(inputs)
        if isinstance(inputs, Tensor):
            return _cut(inputs, Argument(), sample, kept)
        return {
            name: _cut(value, argument_of(name), sample, kept if isinstance(kept, Tensor) else kept[ARGUMENTS[name].of])
            for name, value in inputs.items()
        }

    def more(inputs: Inputs, extra: int) -> Inputs:
        if isinstance(inputs, Tensor):
            return _grown(inputs, Argument(fill=fill), extra, at)
        return {name: _grown(value, argument_of(name), extra, at) for name, value in inputs.items()}

    return {"inputs": inputs, "keep": keep, "alone": alone, "more": more}


def right(seed: int, lengths: tuple[int, ...] = (4, 6), length: int = LENGTH) -> dict[str, Tensor]:
    return right_padded(seed, lengths=lengths, length=length)


def left(seed: int, lengths: tuple[int, ...] = (4, 6), length: int = LENGTH) -> dict[str, Tensor]:
    return {name: value.flip(1) for name, value in right(seed, lengths, length).items()}


def inside(seed: int) -> dict[str, Tensor]:
    """Return ids with padding between real tokens, as prompts and answers of several lengths have when joined."""
    keep = torch.tensor([[1, 1, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0, 1]]).bool()
    return {"ids": token_ids(seed) * keep, "keep": keep}


def both_sides(seed: int) -> dict[str, Tensor]:
    keep = torch.tensor([[0, 0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1, 1]]).bool()
    return {"ids": token_ids(seed) * keep, "keep": keep}


def sized(
    make: Callable[..., dict[str, Tensor]], *lengths: int, length: int = LENGTH
) -> Callable[[int], dict[str, Tensor]]:
    """Return a function of a seed that gives samples of these lengths, padded to `length`."""
    return lambda seed: make(seed, lengths=lengths, length=length)


def with_other(
    make: Callable[[int], dict[str, Tensor]], **other: Callable[[dict[str, Tensor]], Tensor]
) -> Callable[[int], dict[str, Tensor]]:
    """Return these inputs with more arguments, each made from the ids and which of them to keep."""

    def inputs(seed: int) -> dict[str, Tensor]:
        given = make(seed)
        return given | {name: function(given) for name, function in other.items()}

    return inputs


def without_keep(make: Callable[[int], dict[str, Tensor]], **other: Any) -> Callable[[int], dict[str, Tensor]]:
    """Return these inputs with other arguments in the place of `keep`."""
    make = with_other(make, **other)
    return lambda seed: {name: value for name, value in make(seed).items() if name != "keep"}


def nonzero(inputs: Inputs) -> Tensor:
    """Return which ids are real where no mask is given: all that are not 0."""
    return (inputs["ids"] if isinstance(inputs, dict) else inputs) != 0


def frames(seed: int) -> dict[str, Tensor]:
    """Return token vectors, 0 at the padding on the right, as features of sound are."""
    keep = right(seed)["keep"]
    states = torch.randn(2, LENGTH, WIDTH, generator=torch.Generator().manual_seed(seed))
    return {"states": states * keep[..., None], "keep": keep}


def pair(source: Callable[..., Any], target: Callable[..., Any]) -> Callable[[int], dict[str, Tensor]]:
    """Return a source and a target, each padded on its side."""

    def inputs(seed: int) -> dict[str, Tensor]:
        one, other = source(seed, length=LENGTH + 1), target(seed + 100, lengths=(6, 3))
        return {
            "source": one["ids"],
            "target": other["ids"],
            "source_keep": one["keep"],
            "target_keep": other["keep"],
        }

    return inputs


def both_kept(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"source": inputs["source_keep"], "target": inputs["target_keep"]}


RIGHT, LEFT, INSIDE = laid_out(right), laid_out(left, at=0), laid_out(inside, at=3)
FRAMES = laid_out(frames)
PAIR = laid_out(pair(right, right), keep=both_kept) | {"of": "target"}
LEFT_PAIR = laid_out(pair(left, left), at=0, keep=both_kept) | {"of": "target"}
