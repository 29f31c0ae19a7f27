"""Which input really reaches which output: measured on any model (`influence`), computed from masks (`reach`)."""

import copy
import random
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy
import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import one_hot
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from attnmask._check import count, describe, not_a_mask_cause, type_error, value_error
from attnmask.masks import Mask, everything


def influence(
    model: Callable[..., Any],
    inputs: Tensor | Mapping[str, Any],
    *,
    of: Iterable[str] | None = None,
    probe: Literal["gradient", "perturbation"] = "gradient",
    position_axis: int | Mapping[str, int] = 1,
    memory: int = 2**31,
) -> Bool[Tensor, "batch output input"] | dict[str, Bool[Tensor, "batch output input"]]:
    """Measure which input position reaches which output position of a model, in the mode that it is in.

    The gradient probe runs the model once and takes the gradient of every output
    position: exactly zero means "does not reach". It is blind to what passes through
    ``detach``, or through a choice such as argmax. The perturbation probe changes one
    position after the other and compares the outputs bit for bit: it sees those, and is
    blind to effects below rounding. Both show what happens for these inputs, no more.

    Parameters
    ----------
    model
        A module or any function. What it returns, or the first fitting tensor of the
        tuple, dict or ``ModelOutput`` that it returns, is (batch, position, feature) floats.
    inputs
        One tensor, or the model's arguments by name: (batch, position, feature) floats or
        (batch, position) token ids, which are followed to the embedding that looks them up.
    of
        The names to measure. By default every float and integer tensor among ``inputs``,
        save those whose name contains mask, bias, position, token_type or label.
    probe
        ``"gradient"`` costs about two forward passes of as many samples as there are
        outputs, ``"perturbation"`` as many forward passes as there are inputs.
    position_axis
        Which axis counts the positions, of inputs and output alike, or by name, with
        ``"output"`` among the names; 1 where none is given. The batch is axis 0, or axis 1
        where positions are axis 0; floats of two axes and ids of one are then one sample.
    memory
        How many bytes the gradients may take, and the result; the work is cut to fit.

    Returns
    -------
    Bool[Tensor, "batch output input"]
        True = reaches, within each sample; by name where ``inputs`` has names. Model,
        inputs and random state are left bit for bit as they were, also after an error.

    Raises
    ------
    ValueError, TypeError
        Nothing to measure; token ids outside the vocabulary, or of which no lookup was
        seen; an output of integers, without a position axis, with NaN, or of another
        batch; runs that differ though nothing was changed; sizes beyond ``memory``.

    Examples
    --------
    >>> from attnmask import causal
    >>> from attnmask.layers import Encoder
    >>> encoder = Encoder(layers=2, d_model=8)
    >>> influence(lambda x: encoder(x, causal()), torch.randn(1, 3, 8))[0].int()
    tensor([[1, 0, 0],
            [1, 1, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    probes = {"gradient": _by_gradient, "perturbation": _by_perturbation}
    if probe not in probes:
        raise value_error('probe to be "gradient" or "perturbation"', repr(probe), "a spelling slip")
    named = isinstance(inputs, Mapping)
    arguments = dict(inputs) if isinstance(inputs, Mapping) else {_LONE: inputs}
    axes = (
        dict(position_axis)
        if isinstance(position_axis, Mapping)
        else dict.fromkeys([*arguments, "output"], position_axis)
    )
    layouts = {name: _Layout.of(name, arguments[name], axes.get(name, 1)) for name in _measured(arguments, of)}
    with torch.inference_mode(False):
        found = probes[probe](_Trial(model, arguments, layouts, axes.get("output", 1), count("memory", memory)))
    return found if named else found[_LONE]


def reach(
    masks: Sequence[Mask | None], query_len: int, *, residual: bool = True, batch: int = 1, heads: int = 1
) -> Bool[Tensor, "batch_or_1 output input"]:
    """Compute which input position can reach which output position through a stack of self-attentions.

    In each layer a query's row takes in the rows of the keys that some head allows; its
    own through the residual, or else, where a head lets it weigh two keys or more,
    through the weights, which its query makes. The stack is the product of its layers.

    Parameters
    ----------
    masks
        One a layer, the first layer first; None = no mask.
    query_len
        How many tokens, 1 or more.
    residual
        Whether each layer adds its input to what it computes.
    batch, heads
        How many samples and heads to ask a rule of your own for, as in `Mask.dense`.

    Returns
    -------
    Bool[Tensor, "batch_or_1 output input"]
        True = can reach. Without a residual this is an upper bound: rows of equal
        content, as empty rows have, leave a query nothing to weigh.

    Raises
    ------
    ValueError, TypeError
        Not a list of masks; lengths that differ from those that a mask holds.

    Examples
    --------
    Two layers of a window of one token back see two tokens back:

    >>> from attnmask import sliding_window
    >>> reach([sliding_window(1)] * 2, 4)[0].int()
    tensor([[1, 0, 0, 0],
            [1, 1, 0, 0],
            [1, 1, 1, 0],
            [0, 1, 1, 1]], dtype=torch.int32)
    """
    reached = torch.eye(count("query_len", query_len), dtype=torch.bool)[None]
    for seen, own in each_layer(masks, query_len, residual=residual, batch=batch, heads=heads):
        reached = (seen | own).float() @ reached.float() > 0
    return reached


def each_layer(
    masks: Sequence[Mask | None], query_len: int, *, residual: bool = True, batch: int = 1, heads: int = 1
) -> list[tuple[Bool[Tensor, "batch_or_1 query key"], Bool[Tensor, "batch_or_1 query key"]]]:
    """Return for each layer which rows a query takes in as keys, and which queries carry their own row on.

    >>> from attnmask import padding
    >>> (seen, own), = each_layer([padding(torch.tensor([[True, False]]))], 2)
    >>> seen[0].tolist(), own[0].tolist()
    ([[True, False], [True, False]], [[True, False], [False, True]])
    """
    wanted = "a list of masks, one a layer (None = no mask)"
    if isinstance(masks, Mask):
        raise type_error(wanted, repr(masks), "one mask meant for all layers; write [mask] * layers")
    if not isinstance(masks, list | tuple):
        raise type_error(wanted, describe(masks), not_a_mask_cause(masks))
    layers = []
    for mask in masks:
        if not isinstance(mask, Mask | None):
            raise type_error(wanted, f"a list with {describe(mask)}", not_a_mask_cause(mask))
        dense = (everything() if mask is None else mask).dense(query_len, batch=batch, heads=heads, device="cpu")
        dense = dense.expand(-1, -1, query_len, query_len)
        weighs = (dense.sum(-1) > 1).any(1) | residual  # (batch, query)
        layers.append((dense.any(1), torch.eye(query_len, dtype=torch.bool) & weighs[..., None]))
    return layers


# ---- one model and its inputs -----------------------------------------------------

_LONE = ""  # the name of an input that was given without one
_NOT_MEASURED = ("mask", "bias", "position", "token_type", "label")


class _Layout(NamedTuple):
    """Where a tensor keeps its batch (None: one sample, no such axis) and its positions."""

    batch: int | None
    position: int

    @classmethod
    def of(cls, name: str, tensor: Tensor, position: int) -> "_Layout":
        what = name or "inputs"
        kinds = "(batch, position, feature) floats or (batch, position) token ids"
        if not isinstance(tensor, Tensor) or tensor.is_complex() or tensor.dtype == torch.bool:
            raise type_error(f"{what} to be {kinds}", describe(tensor), "a mask, or something that is no tensor")
        lone_sample = position == 0 and tensor.dim() == 1 + tensor.is_floating_point()
        most = tensor.dim() if tensor.is_floating_point() else 2
        if not (lone_sample or max(2, count("position_axis", position) + 1) <= tensor.dim() <= most):
            raise value_error(
                f"{what} to be {kinds}, with positions on axis {position}",
                describe(tensor),
                "another axis holds the positions, as position_axis can say, or one sample lacks its batch axis",
            )
        return cls(None if lone_sample else int(position == 0), position)

    def front(self, tensor: Tensor, lead: int = 0) -> Tensor:
        """View a tensor as (batch, position, …), behind ``lead`` further axes."""
        if self.batch is None:
            return tensor.movedim(lead + self.position, lead).unsqueeze(lead)
        return tensor.movedim((lead + self.batch, lead + self.position), (lead, lead + 1))


class _Trial(NamedTuple):
    """A model, its arguments, and where those to be measured keep their positions."""

    model: Callable[..., Any]
    arguments: dict[str, Any]
    layouts: dict[str, _Layout]
    output_axis: int
    memory: int

    def run(self, given: dict[str, Tensor]) -> Tensor:
        """Run the model on copies of its arguments, some of them replaced; return (batch, position, …)."""
        arguments = {
            name: given[name] if name in given else tree_map(_copy, value) for name, value in self.arguments.items()
        }
        result = self.model(arguments[_LONE]) if _LONE in arguments else self.model(**arguments)
        output = self._pick(result)
        samples = {len(layout.front(self.arguments[name])) for name, layout in self.layouts.items()}
        if samples != {len(output)}:
            raise value_error(
                "as many samples in the output as in each input",
                f"{len(output)} out, {sorted(samples)} in",
                "batch and position axes swapped, as position_axis can say, or the batch folded into the positions",
            )
        for name, layout in self.layouts.items():
            if (size := output.shape[:2].numel() * layout.front(self.arguments[name]).shape[1]) > self.memory:
                raise _too_large(f"a result of {size:,} bytes", self.memory)
        return output

    def _pick(self, result: Any) -> Tensor:
        """Return the first tensor that can be the output, as (batch, position, …)."""
        found = list(result.values()) if isinstance(result, Mapping) else result
        tensors = [each for each in (found if isinstance(found, list | tuple) else [found]) if isinstance(each, Tensor)]
        batched = all(layout.batch is not None for layout in self.layouts.values())
        for tensor in tensors:
            if tensor.is_floating_point() and tensor.dim() >= max(2 + batched, self.output_axis + 1):
                if bool(tensor.isnan().any()):
                    raise value_error(
                        "an output of numbers", "NaN in it", "a query that may look at no key, as under left padding"
                    )
                return _Layout(int(self.output_axis == 0) if batched else None, self.output_axis).front(tensor)
        wanted = f"an output ({'batch, ' * batched}position, feature) of floats, positions on axis {self.output_axis}"
        got = " and ".join(map(describe, tensors)) or describe(result)
        if tensors and not any(tensor.is_floating_point() for tensor in tensors):
            raise type_error(wanted, got, "predictions; have the model return the scores they were chosen from")
        cause = "a pooled output; have the model return the one before pooling"
        raise value_error(wanted, got, f"{cause}. One number a position needs an axis: output[..., None]")


def _measured(arguments: dict[str, Any], of: Iterable[str] | None) -> list[str]:
    """Return the names of the arguments to measure."""
    if of is not None:
        names = [of] if isinstance(of, str) else list(of)
        if not names or not set(names) <= set(arguments):
            raise value_error(f"names among {sorted(arguments)}", f"{names}", "a spelling slip")
        return names
    names = [
        name
        for name, value in arguments.items()
        if name == _LONE
        or (isinstance(value, Tensor) and value.dtype != torch.bool and not any(part in name for part in _NOT_MEASURED))
    ]
    if not names:
        raise value_error("an input to measure", f"{sorted(arguments)}", "only masks were given, or of= was meant")
    return names


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


def _too_large(what: str, memory: int) -> ValueError:
    return value_error(
        f"a measurement that fits into memory={memory:,} bytes",
        what,
        "a long sequence or a large model; a shorter input mostly shows the same, or give it more memory",
    )


# ---- two probes -------------------------------------------------------------------


def _by_gradient(trial: _Trial) -> dict[str, Tensor]:
    """Run forward once, then take the gradients of all output positions, many of them in one batched backward pass."""
    given: dict[str, Tensor] = {}
    leaves: list[tuple[str, Tensor]] = []
    with _AsItWas(trial.model) as kept, torch.enable_grad():
        for name in trial.layouts:
            given[name] = _copy(trial.arguments[name])
            if given[name].is_floating_point():
                leaves.append((name, given[name].requires_grad_()))
                given[name] = given[name].clone()  # the model may write into it
        lookups, saved = _Lookups(given), _Saved(kept, trial.memory)
        with lookups if lookups.ids else nullcontext(), saved_tensors_hooks(saved.pack, saved.unpack):
            output = trial.run(given)
            along = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
            shadow = (output * along).flatten(2).sum(-1)  # (batch, position): each output on a random line
        leaves += lookups.found
        for name in trial.layouts:
            if name not in dict(leaves):
                raise _no_lookup(name)
        if not shadow.requires_grad:
            cause = 'the model ran under no_grad, or detaches its output; probe="perturbation" needs no gradient'
            raise value_error("an output that has a gradient", "one without", cause)

        rows = torch.arange(shadow.numel(), device=shadow.device)
        chunk = max(1, min(64, trial.memory // max(saved.bytes, 1)))
        reached: dict[str, list[Tensor]] = {name: [] for name in trial.layouts}
        for some in _bar(torch.split(rows, chunk), "gradients"):
            seeds = one_hot(some, len(rows)).reshape(-1, *shadow.shape).to(shadow)
            nonzero: dict[str, Tensor] = {}
            for (name, _), gradient in zip(leaves, _backward(shadow, [leaf for _, leaf in leaves], seeds), strict=True):
                if bool(gradient.isnan().any()):
                    cause = 'minus infinity in a row without keys; probe="perturbation" needs no gradient'
                    raise value_error("gradients of numbers", "NaN in them", cause)
                shape = trial.arguments[name].shape  # an embedding has one axis more, wherever it was flattened
                gradient = gradient.reshape(len(some), *shape, -1)
                hits = (trial.layouts[name].front(gradient, lead=1) != 0).flatten(3).any(-1)  # (row, batch, position)
                nonzero[name] = nonzero[name] | hits if name in nonzero else hits
            for name, hits in nonzero.items():
                reached[name].append(hits[range(len(some)), some // shadow.shape[1]].cpu())
    return {name: torch.cat(parts).reshape(*shadow.shape, -1) for name, parts in reached.items()}


def _by_perturbation(trial: _Trial) -> dict[str, Tensor]:
    """Change one position of one sample after the other; compare each output with the unchanged one, bit for bit."""
    kept = _AsItWas(trial.model)  # put back after every run, so that all runs start alike

    def run(given: dict[str, Tensor]) -> Tensor:
        with kept, torch.no_grad():
            return trial.run(given)

    lookups = _Lookups({name: _copy(trial.arguments[name]) for name in trial.layouts})
    with lookups:
        run(lookups.given)
    unchanged = run({})
    if not torch.equal(unchanged, run({})):
        raise value_error(
            "two runs on the same input to agree bit for bit",
            "two outputs that differ",
            "randomness from outside PyTorch, NumPy and Python, or an accelerator's atomic sums",
        )
    changes = [
        (name, sample, position)
        for name, layout in trial.layouts.items()
        for sample in range(len(unchanged))
        for position in range(layout.front(trial.arguments[name]).shape[1])
    ]
    others = {name: _other_values(name, trial.arguments[name], lookups.sizes.get(name)) for name in trial.layouts}
    columns: dict[str, list[Tensor]] = {name: [] for name in trial.layouts}
    for name, sample, position in _bar(changes, "changed inputs"):
        front, changed = trial.layouts[name].front, _copy(trial.arguments[name])
        front(changed)[sample, position] = front(others[name])[sample, position]
        differs = run({name: changed})[sample] != unchanged[sample]
        columns[name].append(differs.flatten(1).any(-1).cpu())
    return {
        name: torch.stack(found).reshape(len(unchanged), -1, unchanged.shape[1]).mT for name, found in columns.items()
    }


def _backward(output: Tensor, leaves: list[Tensor], seeds: Tensor) -> list[Tensor]:
    """Return for each leaf the gradients of ``output`` along each seed, stacked."""

    def gradients(seed: Tensor, batched: bool) -> list[Tensor]:
        found = torch.autograd.grad(
            output, leaves, seed, retain_graph=True, allow_unused=True, is_grads_batched=batched
        )
        return [torch.zeros_like(leaf) if each is None else each for leaf, each in zip(leaves, found, strict=True)]

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            stacked = gradients(seeds, batched=True)
    except RuntimeError:  # an operation of the model that cannot be batched
        stacked = [torch.stack(each) for each in zip(*(gradients(seed, False) for seed in seeds), strict=True)]
    return [each.expand(len(seeds), *leaf.shape) for leaf, each in zip(leaves, stacked, strict=True)]


def _other_values(name: str, values: Tensor, vocabulary: int | None) -> Tensor:
    """Return values of the same kind that differ from the given ones at every place."""
    generator = torch.Generator().manual_seed(0)
    if values.is_floating_point():
        spread = values.std(correction=0) if values.numel() else values.new_ones(())
        return torch.randn(values.shape, generator=generator).to(values) * torch.where(spread > 0, spread, 1)
    ids = torch.unique(values) if vocabulary is None else torch.arange(vocabulary, device=values.device)
    if len(ids) < 2:
        raise _no_lookup(name)
    step = torch.randint(1, len(ids), values.shape, generator=generator).to(values.device)
    return ids[(torch.searchsorted(ids, values.contiguous()) + step) % len(ids)].to(values.dtype)


def _bar(steps: Sequence[Any], what: str) -> Iterable[Any]:
    """Show a progress bar once it takes longer than five seconds, where tqdm is installed."""
    try:
        from tqdm import tqdm  # an extra: attnmask[progress]
    except ImportError:
        return steps
    bar: Iterable[Any] = tqdm(steps, desc=f"influence: {what}", delay=5, leave=False)
    return bar


# ---- what the probes need to know of PyTorch --------------------------------------

_KEEP_ORDER = {
    "view",
    "reshape",
    "flatten",
    "unsqueeze",
    "squeeze",
    "contiguous",
    "clone",
    "to",
    "long",
    "int",
    "detach",
}
_LOOKUPS = {"embedding", "__getitem__", "index_select"}


class _Lookups(TorchFunctionMode):
    """While active, watches where token ids become vectors, whichever module or function looks them up."""

    def __init__(self, given: dict[str, Tensor]) -> None:
        super().__init__()
        self.given = given
        self.ids = {id(tensor): (tensor, name) for name, tensor in given.items() if not tensor.is_floating_point()}
        self.found: list[tuple[str, Tensor]] = []
        self.sizes: dict[str, int] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments = [each for each in (*args, *(kwargs or {}).values()) if isinstance(each, Tensor)]
        names = [self.ids[id(each)] for each in arguments if id(each) in self.ids]
        kind = getattr(function, "__name__", "")
        tables = [each for each in arguments if each.is_floating_point() and each.dim() > 1]
        looks_up = bool(names and tables) and kind in _LOOKUPS
        if looks_up:
            self._check(*names[0], len(tables[0]))
        result = function(*args, **(kwargs or {}))
        if looks_up:
            found = result if result.requires_grad or not torch.is_grad_enabled() else result.requires_grad_()
            self.found.append((names[0][1], found))
            return found.clone()  # the model may write into it
        if names and kind in _KEEP_ORDER and isinstance(result, Tensor):
            self.ids[id(result)] = (result, names[0][1])
        return result

    def _check(self, ids: Tensor, name: str, size: int) -> None:
        self.sizes[name] = min(size, self.sizes.get(name, size))
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
            raise value_error(
                f"{name or 'token ids'} from 0 to {size - 1}, as the embedding has {size} rows",
                f"ids from {int(ids.min())} to {int(ids.max())}",
                "the tokenizer of another model, or -100 left over from labels",
            )


def _no_lookup(name: str) -> ValueError:
    return value_error(
        f"{name or 'token ids'} that the model looks up in an embedding",
        "no lookup of just these ids",
        "they are changed on the way, unused, or looked up in compiled code; "
        'try probe="perturbation", or give the embedded tokens instead',
    )


class _Saved:
    """Counts the bytes that a forward pass saves for its backward pass, each storage once, parameters not at all."""

    def __init__(self, kept: "_AsItWas", memory: int) -> None:
        self.kept, self.memory, self.bytes, self.seen = kept, memory, 0, set[int]()

    def pack(self, tensor: Tensor) -> tuple[Tensor, int]:
        place = tensor.untyped_storage().data_ptr()
        if place not in self.seen and place not in self.kept.places:
            self.seen.add(place)
            self.bytes += tensor.nbytes
            if self.bytes > self.memory:
                raise _too_large(f"more than {self.memory:,} bytes saved in the forward pass", self.memory)
        return tensor, tensor._version

    def unpack(self, packed: tuple[Tensor, int]) -> Tensor:
        tensor, version = packed
        if tensor._version != version:
            cause = 'the model writes into it later, and so cannot be trained; try probe="perturbation"'
            raise value_error("what the backward pass needs unchanged", f"{describe(tensor)} changed in place", cause)
        return tensor


class _AsItWas:
    """Leaves every module that runs inside, and every random generator, bit for bit as it was, also after an error."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self.attributes: dict[nn.Module, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.tensors: dict[int, tuple[Tensor, Tensor]] = {}
        self.places: set[int] = set()
        self.random: list[tuple[Callable[..., Any], Any]] = [
            (random.setstate, random.getstate()),
            (numpy.random.set_state, numpy.random.get_state()),
            (torch.set_rng_state, torch.get_rng_state()),
        ]
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is not None:
            device = torch.get_device_module(accelerator)
            self.random.append((device.set_rng_state, device.get_rng_state()))
        if isinstance(model, nn.Module):
            self.add(model)

    def add(self, module: nn.Module, _: Any = None) -> None:
        """Remember the attributes of a module and its parts, the lists and dicts among them, and all their tensors."""
        if module in self.attributes:
            return
        for part in module.modules():
            attributes = dict(vars(part))
            held = {name: copy.copy(value) for name, value in attributes.items() if isinstance(value, dict | list)}
            self.attributes[part] = attributes, held
            inner = (value.values() if isinstance(value, dict) else value for value in held.values())
            for tensor in chain(attributes.values(), *inner):
                if isinstance(tensor, Tensor) and id(tensor) not in self.tensors:
                    self.tensors[id(tensor)] = tensor, tensor.detach().clone()
                    self.places.add(tensor.untyped_storage().data_ptr())

    def __enter__(self) -> "_AsItWas":
        self.hook = register_module_forward_pre_hook(self.add)  # meets the modules that a function calls
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()
        for part, (attributes, held) in self.attributes.items():
            vars(part).clear()
            vars(part).update(attributes)
            for name, value in held.items():
                attributes[name].clear()
                (attributes[name].update if isinstance(value, dict) else attributes[name].extend)(value)
        for tensor, before in self.tensors.values():
            if not torch.equal(tensor, before):
                with torch.no_grad():
                    tensor.copy_(before)
        for put_back, state in self.random:
            put_back(state)
