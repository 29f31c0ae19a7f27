"""Which input really reaches which output: measured on any model (`influence`), computed from masks (`reach`)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from attnmask._check import count, kind_of, not_a_mask_cause, type_error, value_error
from attnmask._trial import NO_KEY, Trial, bar, other_values, refuse_nan
from attnmask._watch import AsItWas, copy_of
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
    trial = Trial.of(model, inputs, of, position_axis, memory)
    with torch.inference_mode(False):
        found = probes[probe](trial)
    return found if trial.named else found["inputs"]


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
        raise type_error(wanted, kind_of(masks), cause if isinstance(masks, Mask) else not_a_mask_cause(masks))
    layers = []
    own = torch.eye(query_len, dtype=torch.bool, device="cpu")
    for mask in masks:
        if not isinstance(mask, Mask | None):
            raise type_error(wanted, f"a list with {kind_of(mask)}", not_a_mask_cause(mask))
        dense = (everything() if mask is None else mask).dense(query_len, batch=batch, heads=heads, device="cpu")
        dense = dense.expand(-1, -1, query_len, query_len)
        weighs = (dense.sum(-1) > 1).any(1) | residual  # (batch, query)
        layers.append((dense.any(1), own & weighs[..., None]))
    if len(batches := {len(seen) for seen, _ in layers} - {1}) > 1:
        raise value_error("masks of one batch", f"{sorted(batches)} samples", "different sets of token ids")
    return layers


# ---- two probes -------------------------------------------------------------------


def _by_gradient(trial: Trial) -> dict[str, Tensor]:
    """Take for each output the gradients of its own sample's inputs; exactly zero means "does not reach"."""
    reached: dict[str, list[Tensor]] = {name: [] for name in trial.layouts}
    for samples, _, sizes in trial.gradients():
        for name in trial.layouts:
            if name not in sizes:
                cause = 'the model ignores it, or cuts it off (no_grad, detach); probe="perturbation" tells which'
                raise value_error(f"an output with a gradient for {name}", "none", cause)
            reached[name].append((sizes[name] != 0)[range(len(samples)), samples].cpu())
    return {
        name: torch.cat(parts).reshape(len(trial.front(name)), -1, trial.front(name).shape[1])
        for name, parts in reached.items()
    }


def _by_perturbation(trial: Trial) -> dict[str, Tensor]:
    """Change one position of one sample after the other; compare each output with the unchanged one, bit for bit."""
    kept = AsItWas(trial.model)  # put back after every run, so that all runs start alike

    def run(given: dict[str, Tensor]) -> Tensor:
        with kept, torch.no_grad():
            return trial.run(given)

    lookups = trial.watched(kept)
    unchanged = run({})
    refuse_nan(unchanged, "an output", NO_KEY)
    if not torch.equal(unchanged, run({})):
        cause = "chance or state of objects that are no modules, or an accelerator's atomic sums"
        raise value_error("two runs on the same input to agree bit for bit", "two outputs that differ", cause)
    reached: dict[str, Tensor] = {}
    others: dict[str, list[Tensor]] = {}
    for name, layout in trial.layouts.items():
        others[name] = other_values(name, trial.arguments[name], lookups.sizes.get(name))[:3]
        inputs = layout.front(trial.arguments[name]).shape[1]
        reached[name] = torch.zeros(*unchanged.shape[:2], inputs, dtype=torch.bool, device=unchanged.device)
    changes = [(name, *at) for name, each in reached.items() for at in (~each[:, 0]).nonzero().tolist()]
    for name, sample, position in bar(changes, "influence: changed inputs"):
        front, outputs = trial.layouts[name].front, []
        for other in others[name]:
            changed = copy_of(trial.arguments[name])
            front(changed)[sample, position] = front(other)[sample, position]
            outputs.append(run({name: changed})[sample])
        numbers = [output for output in outputs if not bool(output.isnan().any())]
        refuse_nan((numbers or outputs)[0], f"an output for new values of {name}", "values the model cannot take")
        for output in numbers:
            reached[name][sample, :, position] |= (output != unchanged[sample]).flatten(1).any(-1)
    return {name: each.cpu() for name, each in reached.items()}
