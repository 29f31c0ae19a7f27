"""Which input really reaches which output, measured on any model?"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from attnmask._check import value_error
from attnmask._measure.call import ModelCall
from attnmask._measure.compare import any_feature, same_numbers
from attnmask._measure.gradients import NO_KEY, gradients, refuse_nan
from attnmask._measure.progress import progress
from attnmask._measure.snapshot import Snapshot, copy_of
from attnmask._measure.values import Kind, other_values


def influence(
    model: Callable[..., Any],
    inputs: Tensor | Mapping[str, Any],
    *,
    of: Iterable[str] | None = None,
    probe: Literal["gradient", "perturbation"] = "gradient",
    position_axis: int | Mapping[str, int] | None = None,
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
        ``"output"`` among the names (a lone tensor is ``"inputs"``); 1 where none is given,
        which floats of more than three axes do not take for granted.
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
    call = ModelCall.of(model, inputs, of, position_axis, memory)
    with torch.inference_mode(False), Snapshot(model) as kept:
        found = kept.settled(lambda: probes[probe](call, kept))
    return found if call.named else found["inputs"]


# ---- two probes -------------------------------------------------------------------


def _by_gradient(call: ModelCall, kept: Snapshot) -> dict[str, Tensor]:
    """Take for each output the gradients of its own sample's inputs; exactly zero means "does not reach"."""
    reached: dict[str, list[Tensor]] = {name: [] for name in call.layouts}
    for samples, _, sizes in gradients(call, kept):
        for name in call.layouts:
            if name not in sizes:
                cause = 'the model ignores it, or cuts it off (no_grad, detach); probe="perturbation" tells which'
                raise value_error(f"an output with a gradient for {name}", "none", cause)
            reached[name].append((sizes[name] != 0)[range(len(samples)), samples].cpu())
    return {
        name: torch.cat(parts).reshape(*call.as_batch_position(name).shape[:1], -1, parts[0].shape[-1])
        for name, parts in reached.items()
    }


def _by_perturbation(call: ModelCall, kept: Snapshot) -> dict[str, Tensor]:
    """Change one position of one sample after the other; compare each output with the unchanged one, bit for bit."""

    def run(given: dict[str, Tensor]) -> Tensor:
        with kept.run(), torch.no_grad():
            return call.outputs(given)[0]

    lookups = call.trace_lookups(kept)
    unchanged = run({})
    refuse_nan(unchanged, "an output", NO_KEY)
    if not same_numbers([unchanged], [run({})]):
        cause = "chance or state of objects that are no modules, or an accelerator's atomic sums"
        raise value_error("two runs on the same input to agree bit for bit", "two outputs that differ", cause)
    reached: dict[str, Tensor] = {}
    others: dict[str, list[Tensor]] = {}
    for name in call.layouts:
        values = call.as_batch_position(name)
        size, kinds = lookups.sizes.get(name), enumerate((Kind.SMALL, Kind.LARGE, Kind.MOVED))
        others[name] = [other_values(name, values, kind, size, seed) for seed, kind in kinds]
        reached[name] = torch.zeros(*unchanged.shape[:2], values.shape[1], dtype=torch.bool, device="cpu")
    changes = [(name, *at) for name, each in reached.items() for at in (~each[:, 0]).nonzero().tolist()]
    for name, sample, position in progress(changes, "influence: changed inputs"):
        outputs = []
        for other in others[name]:
            changed = copy_of(call.arguments[name])
            call.as_batch_position(name, changed)[sample, position] = other[sample, position]
            outputs.append(run({name: changed})[sample])
        numbers = [output for output in outputs if not bool(output.isnan().any())]
        refuse_nan((numbers or outputs)[0], f"an output for new values of {name}", "values the model cannot take")
        for output in numbers:
            reached[name][sample, :, position] |= any_feature((output != unchanged[sample])[None])[0]
    return reached
