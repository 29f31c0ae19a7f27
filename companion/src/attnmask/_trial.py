"""One model and its inputs: run it, read its outputs, take its gradients, and find other values for its inputs."""

import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import one_hot
from torch.nn.parameter import is_lazy

from attnmask._check import count, kind_of, type_error, value_error
from attnmask._watch import AsItWas, Lookups, Saved, copy_of, too_large

NO_KEY = "a query that may look at no key, as under left padding, whose softmax divides 0 by 0"
_NOT_MEASURED = ("mask", "bias", "position", "token_type", "label")
_NOT_JUDGED = ("encoder", "hidden", "attention")


class Layout(NamedTuple):
    """Where a tensor keeps its batch (None: one sample, no such axis) and its positions."""

    batch: int | None
    position: int

    @classmethod
    def of(cls, name: str, tensor: Tensor, position: int) -> "Layout":
        """Read a tensor's layout off its dtype and axes, given the axis of its positions."""
        kinds = "(batch, position, feature) floats or (batch, position) token ids"
        if not isinstance(tensor, Tensor) or tensor.is_complex() or tensor.dtype == torch.bool:
            raise type_error(f"{name} to be {kinds}", kind_of(tensor), "a mask, or something that is no tensor")
        lone_sample = position == 0 and tensor.dim() == 1 + tensor.is_floating_point()
        most = tensor.dim() if tensor.is_floating_point() else 2
        fits = lone_sample or max(2, count("position_axis", position) + 1) <= tensor.dim() <= most
        if not fits or tensor.numel() == 0:
            raise value_error(
                f"{name} to be {kinds}, none of them empty, with positions on axis {position}",
                kind_of(tensor),
                "another axis holds the positions (position_axis=), one sample lacks its batch axis, "
                "or it is not to be measured (of= names what is; for an audit, allowed= by name)",
            )
        return cls(None if lone_sample else int(position == 0), position)

    def front(self, tensor: Tensor, lead: int = 0) -> Tensor:
        """View a tensor as (batch, position, …), behind ``lead`` further axes."""
        if self.batch is None:
            return tensor.movedim(lead + self.position, lead).unsqueeze(lead)
        return tensor.movedim((lead + self.batch, lead + self.position), (lead, lead + 1))


class Trial(NamedTuple):
    """A model, its arguments, and where those to be measured keep their positions."""

    model: Callable[..., Any]
    arguments: dict[str, Any]
    named: bool
    layouts: dict[str, Layout]
    output_axis: int
    memory: int

    @classmethod
    def of(
        cls,
        model: Callable[..., Any],
        inputs: Tensor | Mapping[str, Any],
        names: Iterable[str] | None,
        position_axis: int | Mapping[str, int],
        memory: int,
    ) -> "Trial":
        """Check the arguments of a measurement and put them together."""
        if not callable(model) or isinstance(model, type):
            raise type_error("a model: a module or a function", kind_of(model), "a class that was not called yet")
        if isinstance(model, nn.Module) and any(map(is_lazy, chain(model.parameters(), model.buffers()))):
            raise value_error("a model whose weights are made", "lazy ones", "it has not run yet; run it once")
        named = isinstance(inputs, Mapping)
        given = dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}
        arguments = {name: each.detach() if isinstance(each, Tensor) else each for name, each in given.items()}
        places = [*arguments, "output"]
        axes = dict(position_axis if isinstance(position_axis, Mapping) else dict.fromkeys(places, position_axis))
        if not set(axes) <= set(places):
            raise value_error(f"position_axis for {places}", f"{list(axes)}", "a spelling slip")
        picked = measured(arguments, named, names)
        layouts = {name: Layout.of(name, arguments[name], axes.get(name, 1)) for name in picked}
        return cls(model, arguments, named, layouts, axes.get("output", 1), count("memory", memory))

    @property
    def inputs(self) -> Any:
        """The arguments as they were given: by name, or the lone one."""
        return self.arguments if self.named else next(iter(self.arguments.values()))

    def front(self, name: str, tensor: Tensor | None = None) -> Tensor:
        """View one of the arguments, or a tensor like it, as (batch, position, …)."""
        return self.layouts[name].front(self.arguments[name] if tensor is None else tensor)

    def run(self, given: Mapping[str, Tensor]) -> Tensor:
        """Run the model on copies of its arguments, some of them replaced; return (batch, position, …)."""
        return self.outputs(given)[0]

    def outputs(self, given: Mapping[str, Tensor]) -> list[Tensor]:
        """Run as `run` does; return besides each further output that has a name of its own and the same axes."""
        copies = {name: given[name] if name in given else copy_of(value) for name, value in self.arguments.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*there are global hooks")  # ours
            result = self.model(**copies) if self.named else self.model(*copies.values())
        first = self._pick(result)
        if first.layout is not torch.strided or first.is_nested or first.is_meta or first.numel() == 0:
            raise value_error("an output with numbers, densely stored", kind_of(first), "a sparse, nested or empty one")
        output = self._front(first)
        samples = {len(self.front(name)) for name in self.layouts}
        if samples != {len(output)}:
            raise value_error(
                "as many samples in the output as in each input",
                f"{len(output)} out, {sorted(samples)} in",
                "batch and position axes swapped, as position_axis can say, or the batch folded into the positions",
            )
        for name in self.layouts:
            if (size := output.shape[:2].numel() * self.front(name).shape[1]) > self.memory:
                raise too_large(f"a result of {size:,} bytes", self.memory)
        named = result.items() if isinstance(result, Mapping) else ()
        others = [each for name, each in named if each is not first and not any(part in name for part in _NOT_JUDGED)]
        fronts = [self._front(each) for each in others if _floats(each) and each.dim() == first.dim()]
        return [output, *(each for each in fronts if each.shape[:2] == output.shape[:2])]

    @property
    def _batched(self) -> bool:
        return all(layout.batch is not None for layout in self.layouts.values())

    def _front(self, output: Tensor) -> Tensor:
        return Layout(int(self.output_axis == 0) if self._batched else None, self.output_axis).front(output)

    def _pick(self, result: Any) -> Tensor:
        """Return the first tensor that can be the output."""
        found = list(result.values()) if isinstance(result, Mapping) else result
        tensors = [each for each in (found if isinstance(found, list | tuple) else [found]) if isinstance(each, Tensor)]
        for tensor in tensors:
            if _floats(tensor) and tensor.dim() >= max(2 + self._batched, self.output_axis + 1):
                return tensor
        wanted = (
            f"an output ({'batch, ' * self._batched}position, feature) of floats, positions on axis {self.output_axis}"
        )
        got = " and ".join(map(kind_of, tensors)) or kind_of(result)
        if tensors and not any(map(_floats, tensors)):
            raise type_error(wanted, got, "predictions; have the model return the scores they were chosen from")
        cause = "a pooled output; have the model return the one before pooling"
        raise value_error(wanted, got, f"{cause}. One number a position needs an axis: output[..., None]")

    def watched(self, start: AsItWas) -> Lookups:
        """Run once to see where token ids go. Watching shuts PyTorch's fast paths: what fails off them is let pass."""
        given = {name: copy_of(self.arguments[name]) for name in self.layouts}
        lookups = Lookups(given)
        with start, torch.no_grad(), lookups if lookups.ids else nullcontext(), suppress(RuntimeError):
            self.run(given)
        return lookups

    def gradients(
        self, judged: Tensor | None = None, kept: AsItWas | None = None
    ) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
        """Run forward once, then take the gradients of all output positions, many in one batched backward pass.

        Parameters
        ----------
        judged
            Bool (batch, position): the output positions to take; the others may hold NaN.
        kept
            What puts the model back, where it was remembered before.

        Yields
        ------
        samples, positions, sizes
            Where some outputs are (row), and for each input by name the largest absolute
            gradient (row, batch, position). An input that nothing connects with the
            output has no entry.
        """
        given: dict[str, Tensor] = {}
        leaves: list[tuple[str, Tensor]] = []
        with kept or AsItWas(self.model) as kept, torch.enable_grad():
            for name in self.layouts:
                given[name] = copy_of(self.arguments[name])
                if _floats(given[name]):
                    leaves.append((name, given[name].requires_grad_()))
                    given[name] = given[name].clone()  # the model may write into it
            lookups, saved = Lookups(given), Saved(kept.places, self.memory)
            with lookups if lookups.ids else nullcontext(), saved_tensors_hooks(saved.pack, saved.unpack):
                outputs = self.outputs(given) if judged is not None else [self.run(given)]
                shadow = torch.stack([_on_a_line(output, judged) for output in outputs]).sum(0)  # (batch, position)
            leaves += lookups.found
            for name in self.layouts:
                if name in lookups.lost or name not in dict(leaves):
                    raise no_lookup(name)

            leaves = [(name, leaf) for name, leaf in leaves if leaf.requires_grad and shadow.requires_grad]
            rows = torch.arange(shadow.numel(), device=shadow.device)
            rows = rows if judged is None else rows[judged.to(rows.device).flatten()]
            chunk = max(1, min(64, self.memory // max(saved.bytes, 1)))
            for some in bar(torch.split(rows, chunk), "gradients"):
                seeds = one_hot(some, shadow.numel()).reshape(-1, *shadow.shape).to(shadow)
                sizes: dict[str, Tensor] = {}
                gradients = _backward(shadow, [leaf for _, leaf in leaves], seeds)
                for (name, _), gradient in zip(leaves, gradients, strict=True):
                    if gradient is not None:
                        cause = f'{NO_KEY}, or a root at 0; probe="perturbation" takes none'
                        refuse_nan(gradient, "gradients", cause)
                        # An embedding has one axis more than its ids, wherever it was flattened.
                        gradient = gradient.reshape(len(some), *self.arguments[name].shape, -1)
                        front = self.layouts[name].front(gradient, lead=1)  # (row, batch, position, …)
                        size = front.abs().flatten(3).amax(-1)
                        sizes[name] = torch.maximum(sizes[name], size) if name in sizes else size
                yield some // shadow.shape[1], some % shadow.shape[1], sizes


def measured(arguments: dict[str, Any], named: bool, of: Iterable[str] | None) -> list[str]:
    """Return the names of the arguments to measure."""
    if not named:
        return list(arguments)
    numbers = [name for name, each in arguments.items() if isinstance(each, Tensor) and each.dtype != torch.bool]
    names = [name for name in numbers if not any(part in name for part in _NOT_MEASURED)]
    names = names if of is None else [of] if isinstance(of, str) else list(of)
    if not names or not set(names) <= set(arguments):
        raise value_error(f"inputs to measure, among {list(arguments)}", f"{names}", "a spelling slip, or only masks")
    return names


def _floats(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.is_floating_point()


def _on_a_line(output: Tensor, judged: Tensor | None) -> Tensor:
    """Project each output position onto a random line; those not judged become 0."""
    if judged is not None:
        output = torch.where(judged.to(output.device).reshape(*judged.shape, *[1] * (output.dim() - 2)), output, 0)
    refuse_nan(output, "an output", NO_KEY)
    along = 0.5 + torch.rand(output.shape, generator=seeded(), device="cpu").to(output)
    return (output * along).flatten(2).sum(-1)


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


def other_values(name: str, values: Tensor, vocabulary: int | None, seed: int = 0) -> list[Tensor]:
    """Return seven tensors of the same kind, those of the first three all new where they are ids.

    Floats: small, large, those of another place, huge, the opposite, zeros, one everywhere.
    Ids: three of chance, the vocabulary's ends, its first, its last, one everywhere.
    """
    chance = seeded(seed)
    if values.is_floating_point():
        spread = values.detach().std(correction=0)
        spread = torch.where((spread > 0) & spread.isfinite(), spread, 1)
        small, large, huge, alike = torch.randn(4, *values.shape, generator=chance, device="cpu").to(values) * spread
        elsewhere = values.detach().flatten().roll(values[:1, :1].numel()).reshape(values.shape)
        most = torch.finfo(values.dtype).max / 4
        huge = (1e4 * huge).clamp(-most, most)
        return [small, 10 * large, elsewhere, huge, -huge, 0 * small, alike[:1, :1].expand_as(alike)]
    ids = torch.unique(values)  # where none was looked up, exchange those that are there
    if vocabulary is not None:
        ids = torch.arange(min(vocabulary, torch.iinfo(values.dtype).max + 1), device=values.device)
    if len(ids) < 2:
        raise no_lookup(name)

    def drawn(low: int, high: int) -> Tensor:
        return torch.randint(low, high, values.shape, generator=chance, device="cpu").to(ids.device)

    places = torch.searchsorted(ids, values.to(ids).contiguous())
    picked = [(places + drawn(1, len(ids))) % len(ids) for _ in range(3)]
    first, last = torch.zeros_like(places), torch.full_like(places, len(ids) - 1)
    picked += [drawn(-3, 3) % len(ids), first, last, first + drawn(0, len(ids)).flatten()[0]]
    return [ids[each].to(values.dtype) for each in picked]


def seeded(seed: int = 0) -> torch.Generator:
    """Return a source of chance that users are unlikely to draw their inputs with."""
    return torch.Generator().manual_seed(0x5EED + seed)


def bar(steps: Sequence[Any], what: str) -> Iterable[Any]:
    """Show a progress bar once it takes longer than five seconds, where tqdm is installed."""
    try:
        from tqdm import tqdm  # an extra: attnmask[progress]
    except ImportError:
        return steps
    return tqdm(steps, desc=what, delay=5, leave=False)


def refuse_nan(values: Tensor, what: str, cause: str) -> None:
    if bool(values.isnan().any()):
        raise value_error(f"{what} of numbers", "NaN", cause)


def no_lookup(name: str) -> ValueError:
    cause = "they are shifted, changed or turned into floats on the way, or not used"
    cause += '; try probe="perturbation", or give the embedded tokens instead'
    return value_error(f"{name} that the model looks up in an embedding as they are", "no lookup of just these", cause)


def in_brief(error: Exception) -> str:
    """Return the kind of an error and the start of its first line."""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {textwrap.shorten(line, 120, placeholder=' …')}"
