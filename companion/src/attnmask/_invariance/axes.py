"""Which axis of which argument holds the samples, and which the tokens of which sequence?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from attnmask._check import bool_table, kind_of, type_error, value_error
from attnmask._measure.call import ModelCall, measured

_TARGET, _SOURCE = ("decoder", "target", "tgt", "query"), ("encoder", "source", "src", "memory")
_CROSS = ("cross", "memory")  # masks whose queries are the target and whose keys are the source
_QUERY_BY_KEY = ("mask", "attn_mask", "src_mask", "tgt_mask", "memory_mask")  # PyTorch's names for masks of two axes
# What the axes of a tensor can be, the likeliest first; "other" is left as it is.
_MASKS = {
    1: ["batch", "key"],
    2: ["batch key", "query key"],
    3: ["batch query key", "other query key"],
    4: ["batch other query key"],
}
_POSITIONS = {1: ["token"], 2: ["batch token"], 3: ["other batch token"]}
_TOKENS = {1: ["batch", "token"], 2: ["batch token", "token other"]}


class Axes(NamedTuple):
    """Which axis of a tensor counts samples, and which count the tokens of a sequence, by its name."""

    batch: int | None
    tokens: dict[int, str]


class Trial(NamedTuple):
    """Some of the samples, and which columns of each sequence they get, some of them more than once."""

    samples: tuple[int, ...]
    columns: dict[str, tuple[int, ...]]
    what: str  # is tried, in words


@dataclass(frozen=True, eq=False)
class Sequences:
    """Which tokens are real, (batch, token) for each sequence by name, and which sequence is the output's own."""

    keep: dict[str, Tensor]
    own: str

    @property
    def batch(self) -> int:
        """How many samples were given."""
        return len(self.keep[self.own])

    def real(self, name: str, sample: int) -> list[int]:
        """Return the columns of a sequence that are real tokens of a sample."""
        return self.keep[name][sample].nonzero().flatten().tolist()

    @property
    def as_given(self) -> Trial:
        """All samples with all columns."""
        columns = {name: tuple(range(keep.shape[1])) for name, keep in self.keep.items()}
        return Trial(tuple(range(self.batch)), columns, "as given")

    def alone(self, sample: int) -> Trial:
        """One sample with its real tokens alone."""
        return Trial((sample,), {name: tuple(self.real(name, sample)) for name in self.keep}, f"sample {sample} alone")

    def places(self, name: str, trial: Trial, sample: int) -> list[int]:
        """Return where the real tokens of a sample stand in a trial."""
        return [place for place, column in enumerate(trial.columns[name]) if bool(self.keep[name][sample, column])]

    def cut(self, call: ModelCall, trial: Trial) -> ModelCall:
        """Return a call with some of the samples and columns of everything that has them."""

        def taken(name: str, value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            axes = self.axes_of(call, name, value)
            picks = {axis: trial.columns[each] for axis, each in axes.tokens.items()}
            picks |= {} if axes.batch is None else {axes.batch: trial.samples}
            for axis, places in picks.items():
                value = value.index_select(axis, torch.tensor(places, dtype=torch.int64, device=value.device))
            return value

        def all_taken(name: str, value: Any) -> Any:
            return tree_map(lambda each: taken(name, each), value)

        return call.replaced({name: all_taken(name, value) for name, value in call.arguments.items()})

    def axes_of(self, call: ModelCall, name: str, tensor: Tensor) -> Axes:
        """Tell by an argument's name and sizes what its axes are."""
        if name in call.layouts and tensor is call.arguments[name]:
            layout = call.layouts[name]
            return Axes(layout.batch, {layout.position: self._sequence(name, tensor, layout.position, "token")})
        fitting = [kinds for kinds in _readings(name, tensor) if self._fits(kinds, tensor)]
        if not fitting:
            self._check_untouched(name, tensor)
            return Axes(0 if tensor.dim() and len(tensor) == self.batch > 1 else None, {})
        kinds = fitting[0] if len(fitting) == 1 else self._likeliest(name, tensor, fitting)
        if kinds == ["other", "query", "key"] and self.batch > 1 and len(tensor) % self.batch == 0:
            cause = "samples and heads in one axis, as nn.MultiheadAttention has them; give key_padding_mask instead"
            wanted = f"{name} of shape (batch, query, key) or (batch, head, query, key)"
            raise value_error(wanted, kind_of(tensor), cause)
        axes = Axes(None, {})
        for axis, kind in enumerate(kinds):
            if kind == "batch" and tensor.shape[axis] == self.batch:
                axes = axes._replace(batch=axis)
            elif kind in ("key", "token") or (kind == "query" and tensor.shape[axis] > 1):
                axes.tokens[axis] = self._sequence(name, tensor, axis, kind)
        return axes

    def _fits(self, kinds: list[str], tensor: Tensor) -> bool:
        lengths = {keep.shape[1] for keep in self.keep.values()}
        sizes = {"batch": {1, self.batch}, "token": lengths, "key": lengths, "query": lengths | {1}}
        if kinds == ["batch"]:
            sizes["batch"] = {self.batch}
        return all(size in sizes.get(kind, {size}) for kind, size in zip(kinds, tensor.shape, strict=True))

    def _likeliest(self, name: str, tensor: Tensor, fitting: list[list[str]]) -> list[str]:
        """Choose between readings that fit the sizes: a batch comes first, where that is not in doubt."""
        first, axes = fitting[0], tensor.dim()
        as_many = first[0] == "batch" and len(tensor) == self.batch and axes <= 2
        if not as_many or not (axes == 1 or _is_mask(name, tensor)):
            return first
        if axes == 1:
            if any(part in name for part in ("len", "size", "label")):
                return first
        elif any(_tells(tensor, keep) for keep in self.keep.values()) or "padding" in name:
            return first
        elif name in _QUERY_BY_KEY:
            return fitting[1]
        elif not tensor.is_floating_point() and tensor.dtype != torch.bool:
            return first  # zeros and ones: nobody writes (query, key) so
        cause = "as many samples as tokens, so that its first axis may be either; try other samples"
        raise value_error(f"{name} whose axes can be told", kind_of(tensor), cause)

    def _check_untouched(self, name: str, tensor: Tensor) -> None:
        """Raise for a mask that has an axis of samples or tokens, and others that are neither."""
        lengths = sorted({keep.shape[1] for keep in self.keep.values()})
        known = {*lengths, self.batch} - {1}
        if _is_mask(name, tensor) and "head" not in name and tensor.dim() > 1 and known & set(tensor.shape):
            wanted = f"{name} of shape (batch, key), (query, key), (batch, query, key) or (batch, head, query, key)"
            cause = "another length than that of keep, as with a cache of earlier tokens"
            raise value_error(f"{wanted}, {self.batch} samples and {lengths} tokens", kind_of(tensor), cause)

    def _sequence(self, name: str, tensor: Tensor, axis: int, kind: str) -> str:
        """Tell whose tokens an axis counts: by its length, and by the argument's name where several are as long."""
        fitting = [each for each, keep in self.keep.items() if keep.shape[1] == tensor.shape[axis]]
        if name in fitting:
            return name
        if len(fitting) > 1:
            side, cross = side_of(name), any(part in name for part in _CROSS)
            if kind in ("query", "key") and cross:
                side = "target" if kind == "query" else "source"
            doubtful = kind == "query" and not cross and "encoder" in name and side == "source"
            fitting = [] if doubtful else [each for each in fitting if _belongs(side, side_of(each))]
        if len(fitting) != 1:
            lengths = {each: keep.shape[1] for each, keep in self.keep.items()}
            cause = "sequences that are equally long, and a name that says of neither; make one of them longer"
            raise value_error(f"{name} to go with one of {lengths} on axis {axis}", kind_of(tensor), cause)
        return fitting[0]


def asked(
    model: Any, inputs: Any, keep: Any, position_axis: int | Mapping[str, int] | None, memory: int
) -> tuple[Sequences, ModelCall]:
    """Check what was asked, and put the call together."""
    given = dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}
    by_name = dict(keep) if isinstance(keep, Mapping) else None
    if by_name is not None and not (by_name and set(by_name) <= set(given)):
        cause = "a spelling slip; a lone tensor is called inputs"
        raise value_error(f"keep for some of the inputs {list(given)}", f"{list(by_name)}", cause)
    tables = {
        name: bool_table(f"keep for {name}" if by_name else "keep", each, "batch, token").cpu()
        for name, each in (by_name or {"": keep}).items()
    }
    said = dict.fromkeys(given, position_axis) if isinstance(position_axis, int) else {}
    axes = position_axis if isinstance(position_axis, Mapping) else said
    names = list(tables) if by_name else _as_long(given, isinstance(inputs, Mapping), tables[""], axes)
    call = ModelCall.of(model, inputs, names if isinstance(inputs, Mapping) else None, position_axis, memory)
    for name in call.layouts:
        table = tables[name if by_name else ""]
        if call.layouts[name].batch is None or call.as_batch_position(name).shape[:2] != table.shape:
            cause = "the keep of another batch, or batch and position axes swapped (position_axis=)"
            raise value_error(f"{name} of (batch, token) = {tuple(table.shape)}", kind_of(call.arguments[name]), cause)
    if len({len(each) for each in tables.values()}) > 1:
        shapes = [tuple(each.shape) for each in tables.values()]
        raise value_error("keep of as many samples for each sequence", f"{shapes}", "the keep of another batch")
    named = tables if by_name else {names[0]: tables[""]}
    sequences = Sequences(named, _own(list(named)))
    _check_padding(named)
    for name, value in call.arguments.items():
        tree_map(
            lambda each, name=name: sequences.axes_of(call, name, each) if isinstance(each, Tensor) else None, value
        )
    return sequences, call


def side_of(name: str) -> str:
    """Say of which side a name speaks: "target", "source", or neither, "".

    >>> side_of("decoder_input_ids"), side_of("memory_key_padding_mask"), side_of("input_ids")
    ('target', 'source', '')
    """
    if any(part in name for part in _TARGET):
        return "target"
    return "source" if any(part in name for part in _SOURCE) else ""


def is_mask_argument(sequences: Sequences, call: ModelCall, name: str) -> bool:
    """Say whether an argument is a mask over tokens."""
    value = call.arguments[name]
    return isinstance(value, Tensor) and _is_mask(name, value) and bool(sequences.axes_of(call, name, value).tokens)


def _is_mask(name: str, tensor: Tensor) -> bool:
    return tensor.dtype == torch.bool or "mask" in name or "bias" in name


def _readings(name: str, tensor: Tensor) -> list[list[str]]:
    """Return what the axes of a tensor can be, the likeliest first."""
    axes = tensor.dim()
    table = _MASKS if _is_mask(name, tensor) else _TOKENS
    if "position" in name and not tensor.is_floating_point():
        table = _POSITIONS
    if axes in table:
        return [kinds.split() for kinds in table[axes]]
    return [["batch", "token", *["other"] * (axes - 2)]] if axes > 2 and table is _TOKENS else []


def _belongs(side: str, sequence_side: str) -> bool:
    """Say whether a name goes with a sequence: what says nothing, or source, with one that says nothing."""
    return side == sequence_side or (side, sequence_side) == ("source", "")


def _tells(mask: Tensor, keep: Tensor) -> bool:
    """Say whether a mask over keys marks just the padding, True, 1 or 0.0 as real or as padding."""
    if mask.shape != keep.shape:
        return False
    marked = mask.cpu() == mask.cpu()[tuple(keep.nonzero()[0].tolist())]
    return torch.equal(marked, keep)


def _as_long(given: Mapping[str, Any], named: bool, keep: Tensor, axes: Mapping[str, int]) -> list[str]:
    """Return the names of the arguments that are as long as keep: ids, or embedded tokens."""
    fitting = []
    for name in measured(dict(given), named, None):
        value, axis = given[name], axes.get(name, 1)
        if not isinstance(value, Tensor) or value.dtype == torch.bool:
            continue
        enough = value.dim() > 2 if value.is_floating_point() else value.dim() == 2
        if enough and (value.shape[axis], value.shape[int(axis == 0)]) == (keep.shape[1], len(keep)):
            fitting.append(name)
    if not fitting:
        wanted = f"an input of (batch, token) = {tuple(keep.shape)}, as keep has: token ids, or embedded tokens"
        got = " and ".join(f"{name}: {kind_of(each)}" for name, each in given.items())
        cause = "the keep of another batch, or batch and position axes swapped (position_axis=)"
        raise (value_error if any(isinstance(each, Tensor) for each in given.values()) else type_error)(
            wanted, got, cause
        )
    return fitting


def _own(names: list[str]) -> str:
    """Return the sequence that the output belongs to."""
    targets = names if len(names) == 1 else [name for name in names if side_of(name) == "target"]
    if len(targets) != 1:
        cause = "names that do not speak of one decoder, target or query"
        raise value_error("one sequence of keep that is the output's own", f"{names}", cause)
    return targets[0]


def _check_padding(keep: Mapping[str, Tensor]) -> None:
    """Raise where nothing could be tried: no padding, or no sample with a real token in each sequence."""
    with_tokens = torch.stack([each.any(1) for each in keep.values()]).all(0)
    if not bool(with_tokens.any()):
        cause = "its meaning turned around: True = a real token"
        raise value_error("keep with a real token in some sample", "all False", cause)
    if all(bool(each[with_tokens].all()) for each in keep.values()):
        cause = "samples that are equally long: nothing could be tried; give a batch of different lengths"
        raise value_error("keep with some padding (False)", "all True", cause)
