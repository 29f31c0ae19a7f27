"""Which input really reaches which output: measured on any model (`influence`), computed from masks (`reach`)."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import one_hot

from attnmask._check import count, describe, not_a_mask_cause, type_error, value_error
from attnmask._watch import AsItWas, Lookups, Saved, copy_of, too_large
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
    ``detach`` or a choice (argmax, a step, a comparison), and to gradients too small for
    the dtype, as half precision has them. The perturbation probe gives one position after
    the other new values and compares the outputs bit for bit: it sees those, unless the
    new values lead to the same choice; it is blind to effects below rounding, and takes
    rounding itself for an effect, where other values make other sums, as in a mixture of
    experts (try it in float64). Both show what happens for these inputs, no more.

    Parameters
    ----------
    model
        A module or any function. What it returns, or the first fitting tensor of the
        tuple, dict or ``ModelOutput`` that it returns, is (batch, position, feature) floats.
    inputs
        One tensor, or the model's arguments by name: (batch, position, feature) floats or
        (batch, position) token ids, which are followed to the embedding that looks them up
        (but not into ``torch.vmap``).
    of
        The names to measure. By default every float and integer tensor among ``inputs``,
        save those whose name contains mask, bias, position, token_type or label.
    probe
        ``"gradient"`` costs about two forward passes of as many samples as there are
        outputs, ``"perturbation"`` three forward passes for each input, both times the
        samples in the batch, and a copy of the parameters.
    position_axis
        Which axis counts the positions, of inputs and output alike, or by name, with
        ``"output"`` among the names (a lone tensor is ``"inputs"``); 1 where none is given.
        The batch is axis 0, or axis 1 where positions are axis 0; floats of two axes and
        ids of one are then one sample.
    memory
        About how many bytes the gradients may take, and the result; the work is cut to fit.

    Returns
    -------
    Bool[Tensor, "batch output input"]
        True = reaches, within each sample; on the CPU; by name where ``inputs`` has names.
        Modules, inputs and random state are left bit for bit as they were, also after an
        error. Compiled models run as they were written.

    Raises
    ------
    ValueError, TypeError
        Nothing to measure; token ids outside the vocabulary, or not looked up as they
        were given; an output of integers, without a position axis, with NaN, or of
        another batch; an input or output cut off from its gradient; runs that differ
        though nothing was changed; sizes beyond ``memory``.

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
    arguments = dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}
    places = [*arguments, "output"]
    axes = dict(position_axis if isinstance(position_axis, Mapping) else dict.fromkeys(places, position_axis))
    if not set(axes) <= set(places):
        raise value_error(f"position_axis for {places}", f"{list(axes)}", "a spelling slip")
    layouts = {name: _Layout.of(name, arguments[name], axes.get(name, 1)) for name in _measured(arguments, named, of)}
    with torch.inference_mode(False):
        found = probes[probe](_Trial(model, arguments, named, layouts, axes.get("output", 1), count("memory", memory)))
    return found if named else found["inputs"]


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
        How many tokens.
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
    reached = torch.eye(count("query_len", query_len), dtype=torch.bool, device="cpu")[None]
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
    if not isinstance(masks, list | tuple):
        cause = "one mask meant for all layers; write [mask] * layers"
        raise type_error(wanted, describe(masks), cause if isinstance(masks, Mask) else not_a_mask_cause(masks))
    layers = []
    own = torch.eye(query_len, dtype=torch.bool, device="cpu")
    for mask in masks:
        if not isinstance(mask, Mask | None):
            raise type_error(wanted, f"a list with {describe(mask)}", not_a_mask_cause(mask))
        dense = (everything() if mask is None else mask).dense(query_len, batch=batch, heads=heads, device="cpu")
        dense = dense.expand(-1, -1, query_len, query_len)
        weighs = (dense.sum(-1) > 1).any(1) | residual  # (batch, query)
        layers.append((dense.any(1), own & weighs[..., None]))
    if len(batches := {len(seen) for seen, _ in layers} - {1}) > 1:
        raise value_error("masks of one batch", f"{sorted(batches)} samples", "different sets of token ids")
    return layers


# ---- one model and its inputs -----------------------------------------------------

_NO_KEY = "a query that may look at no key, as under left padding, whose softmax divides 0 by 0"
_NOT_MEASURED = ("mask", "bias", "position", "token_type", "label")


class _Layout(NamedTuple):
    """Where a tensor keeps its batch (None: one sample, no such axis) and its positions."""

    batch: int | None
    position: int

    @classmethod
    def of(cls, name: str, tensor: Tensor, position: int) -> "_Layout":
        kinds = "(batch, position, feature) floats or (batch, position) token ids"
        if not isinstance(tensor, Tensor) or tensor.is_complex() or tensor.dtype == torch.bool:
            raise type_error(f"{name} to be {kinds}", describe(tensor), "a mask, or something that is no tensor")
        lone_sample = position == 0 and tensor.dim() == 1 + tensor.is_floating_point()
        most = tensor.dim() if tensor.is_floating_point() else 2
        fits = lone_sample or max(2, count("position_axis", position) + 1) <= tensor.dim() <= most
        if not fits or tensor.numel() == 0:
            raise value_error(
                f"{name} to be {kinds}, none of them empty, with positions on axis {position}",
                describe(tensor),
                "another axis holds the positions (position_axis=), one sample lacks its batch axis, "
                "or it is not to be measured (of= names what is)",
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
    named: bool
    layouts: dict[str, _Layout]
    output_axis: int
    memory: int

    def run(self, given: dict[str, Tensor]) -> Tensor:
        """Run the model on copies of its arguments, some of them replaced; return (batch, position, …)."""
        copies = {name: given[name] if name in given else copy_of(value) for name, value in self.arguments.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*there are global hooks")  # ours
            result = self.model(**copies) if self.named else self.model(*copies.values())
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
                raise too_large(f"a result of {size:,} bytes", self.memory)
        return output

    def _pick(self, result: Any) -> Tensor:
        """Return the first tensor that can be the output, as (batch, position, …)."""
        found = list(result.values()) if isinstance(result, Mapping) else result
        tensors = [each for each in (found if isinstance(found, list | tuple) else [found]) if isinstance(each, Tensor)]
        batched = all(layout.batch is not None for layout in self.layouts.values())
        for tensor in tensors:
            if tensor.is_floating_point() and tensor.dim() >= max(2 + batched, self.output_axis + 1):
                return _Layout(int(self.output_axis == 0) if batched else None, self.output_axis).front(tensor)
        wanted = f"an output ({'batch, ' * batched}position, feature) of floats, positions on axis {self.output_axis}"
        got = " and ".join(map(describe, tensors)) or describe(result)
        if tensors and not any(tensor.is_floating_point() for tensor in tensors):
            raise type_error(wanted, got, "predictions; have the model return the scores they were chosen from")
        cause = "a pooled output; have the model return the one before pooling"
        raise value_error(wanted, got, f"{cause}. One number a position needs an axis: output[..., None]")


def _measured(arguments: dict[str, Any], named: bool, of: Iterable[str] | None) -> list[str]:
    """Return the names of the arguments to measure."""
    if not named:
        return list(arguments)
    numbers = [name for name, each in arguments.items() if isinstance(each, Tensor) and each.dtype != torch.bool]
    names = [name for name in numbers if not any(part in name for part in _NOT_MEASURED)]
    names = names if of is None else [of] if isinstance(of, str) else list(of)
    if not names or not set(names) <= set(arguments):
        raise value_error(f"inputs to measure, among {list(arguments)}", f"{names}", "a spelling slip, or only masks")
    return names


# ---- two probes -------------------------------------------------------------------


def _by_gradient(trial: _Trial) -> dict[str, Tensor]:
    """Run forward once, then take the gradients of all output positions, many of them in one batched backward pass."""
    given: dict[str, Tensor] = {}
    leaves: list[tuple[str, Tensor]] = []
    with AsItWas(trial.model) as kept, torch.enable_grad():
        for name in trial.layouts:
            given[name] = copy_of(trial.arguments[name])
            if given[name].is_floating_point():
                leaves.append((name, given[name].requires_grad_()))
                given[name] = given[name].clone()  # the model may write into it
        lookups, saved = Lookups(given), Saved(kept.places, trial.memory)
        with lookups if lookups.ids else nullcontext(), saved_tensors_hooks(saved.pack, saved.unpack):
            output = trial.run(given)
            _refuse_nan(output, "an output", _NO_KEY)
            along = 0.5 + torch.rand(output.shape, generator=_generator(), device="cpu").to(output)
            shadow = (output * along).flatten(2).sum(-1)  # (batch, position): each output on a random line
        leaves += lookups.found
        for name in trial.layouts:
            if name in lookups.lost or name not in dict(leaves):
                raise _no_lookup(name)

        leaves = [(name, leaf) for name, leaf in leaves if leaf.requires_grad and shadow.requires_grad]
        reached: dict[str, list[Tensor]] = {name: [] for name in trial.layouts}
        rows = torch.arange(shadow.numel(), device=shadow.device)
        chunk = max(1, min(64, trial.memory // max(saved.bytes, 1)))
        for some in _bar(torch.split(rows, chunk), "gradients"):
            seeds = one_hot(some, len(rows)).reshape(-1, *shadow.shape).to(shadow)
            nonzero: dict[str, Tensor] = {}
            for (name, _), gradient in zip(leaves, _backward(shadow, [leaf for _, leaf in leaves], seeds), strict=True):
                if gradient is not None:
                    _refuse_nan(gradient, "gradients", f'{_NO_KEY}, or a root at 0; probe="perturbation" takes none')
                    # An embedding has one axis more than its ids, wherever it was flattened.
                    gradient = gradient.reshape(len(some), *trial.arguments[name].shape, -1)
                    front = trial.layouts[name].front(gradient, lead=1)  # (row, batch, position, …)
                    hits = (front != 0).flatten(3).any(-1)
                    nonzero[name] = nonzero[name] | hits if name in nonzero else hits
            for name in trial.layouts:
                if name not in nonzero:
                    cause = 'the model ignores it, or cuts it off (no_grad, detach); probe="perturbation" tells which'
                    raise value_error(f"an output with a gradient for {name}", "none", cause)
                reached[name].append(nonzero[name][range(len(some)), some // shadow.shape[1]].cpu())
    return {name: torch.cat(parts).reshape(*shadow.shape, -1) for name, parts in reached.items()}


def _backward(output: Tensor, leaves: list[Tensor], seeds: Tensor) -> Sequence[Tensor | None]:
    """Return for each leaf the gradients of ``output`` along each seed, stacked; None where nothing connects them."""

    def gradients(seed: Tensor, batched: bool) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(output, leaves, seed, retain_graph=True, allow_unused=True, is_grads_batched=batched)

    if not leaves:
        return []
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            return gradients(seeds, batched=True)
    except RuntimeError:  # an operation of the model that cannot be batched
        each = zip(*(gradients(seed, batched=False) for seed in seeds), strict=True)
        return [None if one[0] is None else torch.stack(one) for one in each]


def _by_perturbation(trial: _Trial) -> dict[str, Tensor]:
    """Change one position of one sample after the other; compare each output with the unchanged one, bit for bit."""
    kept = AsItWas(trial.model)  # put back after every run, so that all runs start alike

    def run(given: dict[str, Tensor]) -> Tensor:
        with kept, torch.no_grad():
            return trial.run(given)

    given = {name: copy_of(trial.arguments[name]) for name in trial.layouts}
    lookups = Lookups(given)
    with lookups if lookups.ids else nullcontext(), suppress(RuntimeError):  # watching shuts PyTorch's fast paths
        run(given)
    unchanged = run({})
    _refuse_nan(unchanged, "an output", _NO_KEY)
    if not torch.equal(unchanged, run({})):
        cause = "randomness from outside PyTorch, NumPy and Python, or an accelerator's atomic sums"
        raise value_error("two runs on the same input to agree bit for bit", "two outputs that differ", cause)
    reached: dict[str, Tensor] = {}
    others: dict[str, list[Tensor]] = {}
    for name, layout in trial.layouts.items():
        others[name] = _other_values(name, trial.arguments[name], lookups.sizes.get(name))
        inputs = layout.front(trial.arguments[name]).shape[1]
        reached[name] = torch.zeros(*unchanged.shape[:2], inputs, dtype=torch.bool, device=unchanged.device)
    changes = [(name, *at) for name, each in reached.items() for at in (~each[:, 0]).nonzero().tolist()]
    for name, sample, position in _bar(changes, "changed inputs"):
        front, outputs = trial.layouts[name].front, []
        for other in others[name]:
            changed = copy_of(trial.arguments[name])
            front(changed)[sample, position] = front(other)[sample, position]
            outputs.append(run({name: changed})[sample])
        numbers = [output for output in outputs if not bool(output.isnan().any())]
        _refuse_nan((numbers or outputs)[0], f"an output for new values of {name}", "values the model cannot take")
        for output in numbers:
            reached[name][sample, :, position] |= (output != unchanged[sample]).flatten(1).any(-1)
    return {name: each.cpu() for name, each in reached.items()}


def _other_values(name: str, values: Tensor, vocabulary: int | None) -> list[Tensor]:
    """Return three tensors of the same kind: all new for ids; for floats small, large, and those of another place."""
    generator = _generator()
    if values.is_floating_point():
        spread = values.detach().std(correction=0)
        fresh = torch.randn(2, *values.shape, generator=generator, device="cpu").to(values)
        small, large = fresh * torch.where((spread > 0) & spread.isfinite(), spread, 1)
        return [small, 10 * large, values.detach().flatten().roll(values[:1, :1].numel()).reshape(values.shape)]
    ids = torch.unique(values)  # where none was looked up, exchange those that are there
    if vocabulary is not None:
        ids = torch.arange(min(vocabulary, torch.iinfo(values.dtype).max + 1), device=values.device)
    if len(ids) < 2:
        raise _no_lookup(name)
    places = torch.searchsorted(ids, values.to(ids).contiguous())
    steps = [torch.randint(1, len(ids), values.shape, generator=generator, device="cpu") for _ in range(3)]
    return [ids[(places + step.to(ids.device)) % len(ids)].to(values.dtype) for step in steps]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0x5EED)  # not a seed that inputs are drawn with


def _bar(steps: Sequence[Any], what: str) -> Iterable[Any]:
    """Show a progress bar once it takes longer than five seconds, where tqdm is installed."""
    try:
        from tqdm import tqdm  # an extra: attnmask[progress]
    except ImportError:
        return steps
    return tqdm(steps, desc=f"influence: {what}", delay=5, leave=False)


def _refuse_nan(values: Tensor, what: str, cause: str) -> None:
    if bool(values.isnan().any()):
        raise value_error(f"{what} of numbers", "NaN", cause)


def _no_lookup(name: str) -> ValueError:
    cause = "they are shifted, changed or turned into floats on the way, or not used"
    cause += '; try probe="perturbation", or give the embedded tokens instead'
    return value_error(f"{name} that the model looks up in an embedding as they are", "no lookup of just these", cause)
