"""Which gradients does an output have in its inputs, and in how much memory?"""

import math
import warnings
from collections.abc import Generator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import one_hot

from attnmask._check import kind_of, value_error
from attnmask._measure.call import ModelCall, too_large
from attnmask._measure.lookups import LookupTracer, no_lookup
from attnmask._measure.progress import progress
from attnmask._measure.snapshot import Snapshot, copy_of, plain
from attnmask._measure.values import seeded

NO_KEY = "a query that may look at no key, as under left padding, whose softmax divides 0 by 0"
_ROWS = 64  # outputs whose gradients are taken in one backward pass, where memory allows
_AT_ONCE = 2**28  # bytes that one backward pass should not much exceed


class SavedTensorMeter:
    """Counts the bytes that a forward pass saves for its backward pass: each storage once, the model's own not."""

    def __init__(self, own: set[int], limit: int) -> None:
        self.own, self.limit, self.bytes, self.counted = own, limit, 0, set[int]()

    def pack(self, tensor: Tensor) -> tuple[Tensor, int]:
        """Count a tensor; hold it by a new name, since a node that holds its own output is never freed."""
        if plain(tensor):
            place = tensor.untyped_storage().data_ptr()
            if place not in self.counted and place not in self.own:
                self.counted.add(place)
                self.bytes += tensor.nbytes
                if self.bytes > self.limit:
                    raise too_large(f"more than {self.limit:,} bytes saved in the forward pass", self.limit)
        return tensor.detach(), tensor._version

    @staticmethod
    def unpack(packed: tuple[Tensor, int]) -> Tensor:
        """Return a tensor, unless it was changed since: hooks switch PyTorch's own check off."""
        tensor, version = packed
        if tensor._version != version:
            cause = 'the model writes into it later, and so cannot be trained; try probe="perturbation"'
            raise value_error("what the backward pass needs unchanged", f"{kind_of(tensor)} changed in place", cause)
        return tensor


def gradients(
    call: ModelCall, snapshot: Snapshot, judged: Tensor | None = None, first: int | None = None
) -> Generator[tuple[Tensor, Tensor, dict[str, Tensor]], None, None]:
    """Run forward once, then take the gradients of all output positions, many in one batched backward pass.

    Parameters
    ----------
    call
        The model and its arguments.
    snapshot
        What puts the model back.
    judged
        Bool (batch, position): the output positions to take; the others may hold NaN.
    first
        How many of them, spread over all, come in a piece of their own before the others.

    Yields
    ------
    samples, positions, sizes
        Where some outputs are (row), and for each input by name the largest absolute
        gradient (row, batch, position). An input that nothing connects with the
        output has no entry.
    """
    given: dict[str, Tensor] = {}
    leaves: list[tuple[str, Tensor]] = []
    with snapshot.run(), torch.enable_grad():
        for name in call.layouts:
            given[name] = copy_of(call.arguments[name])
            if given[name].is_floating_point():
                leaves.append((name, given[name].requires_grad_()))
                given[name] = given[name].clone()  # the model may write into it
        lookups, saved = LookupTracer(given), SavedTensorMeter(snapshot.places, call.memory)
        with lookups if lookups.ids else nullcontext(), saved_tensors_hooks(saved.pack, saved.unpack):
            outputs = call.outputs(given) if judged is not None else call.outputs(given)[:1]
            shadow = torch.stack([_on_a_line(output, judged) for output in outputs]).sum(0)  # (batch, position)
        leaves += lookups.embedded
        for name in call.layouts:
            if name in lookups.untraced or name not in dict(leaves):
                raise no_lookup(name, others=[each for each in dict(leaves) if call.named and each != name])
        leaves = [(name, leaf) for name, leaf in leaves if leaf.requires_grad and shadow.requires_grad]
        rows = torch.arange(shadow.numel(), device=shadow.device)
        rows = rows if judged is None else rows[judged.to(rows.device).flatten()]
        chunk = max(1, min(_ROWS, min(call.memory, _AT_ONCE) // max(saved.bytes, 1)))
        ahead = rows[:: math.ceil(len(rows) / first)] if first is not None and len(rows) else rows[:0]
        rest = rows[~torch.isin(rows, ahead)]
        pieces = [each for part in (ahead, rest) for each in torch.split(part, chunk) if len(each)]
        for some in progress(pieces, "gradients"):
            yield some // shadow.shape[1], some % shadow.shape[1], _sizes(call, shadow, leaves, some)


def _sizes(call: ModelCall, shadow: Tensor, leaves: list[tuple[str, Tensor]], rows: Tensor) -> dict[str, Tensor]:
    """Return for some outputs the largest absolute gradient in each place of each input, (row, batch, position)."""
    sizes: dict[str, Tensor] = {}
    seeds = one_hot(rows, shadow.numel()).reshape(-1, *shadow.shape).to(shadow)
    for (name, _), gradient in zip(leaves, _backward(shadow, [leaf for _, leaf in leaves], seeds), strict=True):
        if gradient is not None:
            refuse_nan(gradient, "gradients", f'{NO_KEY}, or a root at 0; probe="perturbation" takes none')
            # An embedding has one axis more than its ids, wherever it was flattened.
            gradient = gradient.reshape(len(rows), *call.arguments[name].shape, -1)
            front = call.layouts[name].as_batch_position(gradient, lead=1)  # (row, batch, position, …)
            size = front.abs().flatten(3).amax(-1)
            sizes[name] = torch.maximum(sizes[name], size) if name in sizes else size
    return sizes


def _on_a_line(output: Tensor, judged: Tensor | None) -> Tensor:
    """Project each output position onto a random line; those not judged become 0."""
    if judged is not None:
        output = torch.where(judged.to(output.device).reshape(*judged.shape, *[1] * (output.dim() - 2)), output, 0)
    refuse_nan(output, "an output", NO_KEY)
    along = 0.5 + torch.rand(output.shape, generator=seeded(), device="cpu").to(output)
    return (output * along).flatten(2).sum(-1)


def _backward(output: Tensor, leaves: list[Tensor], seeds: Tensor) -> Sequence[Tensor | None]:
    """Return for each leaf the gradients of ``output`` along each seed, stacked; None where nothing connects them."""

    def along(seed: Tensor, batched: bool) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(output, leaves, seed, retain_graph=True, allow_unused=True, is_grads_batched=batched)

    if not leaves:
        return []
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            return along(seeds, batched=True)
    except RuntimeError:  # an operation of the model that cannot be batched
        each = zip(*(along(seed, batched=False) for seed in seeds), strict=True)
        return [None if one[0] is None else torch.stack(one) for one in each]


def refuse_nan(values: Tensor, what: str, cause: str) -> None:
    """Raise where NaN stands among numbers."""
    if bool(values.isnan().any()):
        raise value_error(f"{what} of numbers", "NaN", cause)
