"""On which inputs is the model tried, and what is allowed there?"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attnmask._audit.findings import Findings
from attnmask._audit.question import Question, sequences
from attnmask._audit.records import AS_GIVEN, OTHER_VALUES, Case, NotTried, Output, Untried
from attnmask._check import value_error
from attnmask._measure.call import ModelCall
from attnmask._measure.lookups import Tokens
from attnmask._measure.progress import one_line
from attnmask._measure.snapshot import Snapshot
from attnmask._measure.values import Kind
from attnmask.masks import Mask

_WINDOW = 64  # tokens; more than a window of fewer is tried without being asked for


def case_as_given(question: Question, snapshot: Snapshot) -> Case:
    """Make the case of the inputs as they were given."""
    call = question.call(question.inputs)
    tokens = call.trace_lookups(snapshot).tokens
    return _case(question, call, once(call, snapshot), AS_GIVEN, tokens)


def other_cases(question: Question, findings: Findings, snapshot: Snapshot) -> Iterator[Case | NotTried]:
    """Make cases of the samples in other company, of other tokens, and of other lengths; or say why not.

    ``findings``: on the inputs as given.
    """
    first = findings.case
    left_out = [name for name in sequences(first.call) if name not in first.allowed]
    if left_out:
        yield NotTried(Untried.LEFT_OUT, detail=", ".join(left_out))
    batch = len(first.judged)
    batches = [list(range(few)) for few in (1, 2) if few < batch] or [[0, 0]]
    if findings.mixed_copies and not findings.leaking:  # in a batch of copies, something moved that did not move alone
        batches.append(list(range(batch)) * findings.mixed_copies)
    for samples in batches:
        yield _in_a_batch(first, samples, snapshot)
    try:
        yield _with_other_values(question, first)
    except Exception as error:  # whatever a function of the inputs raises
        yield NotTried(Untried.VALUES, error=one_line(error))
    yield from _at_other_lengths(question, first, snapshot)


def _in_a_batch(first: Case, samples: list[int], snapshot: Snapshot) -> Case | NotTried:
    """Put some of the given samples into a batch, some of them more than once."""
    try:
        call = first.call.resampled(samples)
        output = once(call, snapshot)
        if output.length != first.output.length:
            raise value_error(f"{first.output.length} outputs, as before", f"{output.length}", "the size of the batch")
        return replace(
            first,
            label=f"in a batch of {len(samples)}",
            call=call,
            allowed={name: table[samples] for name, table in first.allowed.items()},
            required={name: table[samples] for name, table in first.required.items()},
            padding={name: cells[samples] for name, cells in first.padding.items()},
            judged=first.judged[samples],
            output=output,
            samples=tuple(samples),
        )
    except Exception as error:  # whatever a model raises
        return NotTried(Untried.BATCH, detail=str(len(samples)), error=one_line(error))


def _with_other_values(question: Question, first: Case) -> Case:
    call = first.call.replaced({name: _redrawn(first, name) for name in first.allowed})
    return _like(question, first, call, first.output, OTHER_VALUES)


def _at_other_lengths(question: Question, first: Case, snapshot: Snapshot) -> Iterator[Case | NotTried]:
    by_default = question.lengths is None
    lengths = [max(1, first.length // 2), 2 * first.length + 1] if question.lengths is None else question.lengths
    holds = question.holds_a_length() if by_default else ""
    fixed = bool(holds) or (question.make_inputs is None and len(first.call.arguments) > 1)
    longest = max([first.length, *([] if fixed else lengths)])
    for name, size in windows(question.model).items():
        if size >= longest and by_default and not fixed and size < _WINDOW:
            lengths = [*lengths, size + 2]
        elif size >= longest and lengths:
            yield NotTried(Untried.WINDOW, detail=f"{name}={size}")
    if fixed:
        yield from [NotTried(Untried.LENGTHS, detail=holds or "inputs")] if by_default else ()
        return
    for length in lengths:
        if length == first.length:
            continue
        try:
            maker = question.make_inputs
            inputs = maker(length) if maker else _stretched(first.call, length, by_default)
            call = question.call(inputs)
            yield _like(question, first, call, once(call, snapshot), f"at length {length}")
        except Exception as error:  # whatever a model raises
            yield NotTried(Untried.LENGTH, detail=str(length), error=one_line(error))


def windows(model: Any) -> dict[str, int]:
    """Return the sizes of windows and chunks that a model's config or modules name: what goes wrong there shows beyond.

    >>> attention = torch.nn.Identity()
    >>> attention.window_size = 4
    >>> windows(attention)
    {'window_size': 4}
    """
    holders = [vars(part) for part in model.modules()] if isinstance(model, torch.nn.Module) else []
    configs = [each for holder in holders for each in holder.values() if type(each).__name__.endswith("Config")]
    inner = [each for config in configs for each in vars(config).values() if type(each).__name__.endswith("Config")]
    found: dict[str, int] = {}
    for holder in [*holders, *map(vars, configs), *map(vars, inner)]:
        for name, size in holder.items():
            named_so = ("window" in name or "chunk" in name) and "layer" not in name
            if named_so and isinstance(size, int) and not isinstance(size, bool) and size > 1:
                found[name] = max(size, found.get(name, 0))
    return found


def once(call: ModelCall, snapshot: Snapshot) -> Output:
    """Run once, and say what comes out."""
    with snapshot.run(), torch.no_grad():
        outputs = call.outputs({})
        return Output(outputs[0].shape[1], sum(each.nbytes for each in outputs), outputs[0].dtype)


def _like(question: Question, first: Case, call: ModelCall, output: Output, label: str) -> Case:
    """Make a case of other inputs, whose ids go where those of the first go."""
    return _case(question, call, output, label, first.tokens)


def _case(question: Question, call: ModelCall, output: Output, label: str, tokens: Tokens) -> Case:
    """Write the masks out at these lengths, and tell what is padding and what is judged."""
    allowed = question.tables(call, output.length)
    own = question.output_sequence(call, allowed)
    # Where all outputs may look at the same places, the others are padding.
    padding = {name: ~table[:, 0] & (table == table[:, :1]).all(1).all(1, True) for name, table in allowed.items()}
    judged = torch.ones(len(next(iter(allowed.values()))), output.length, dtype=torch.bool)
    rule = question.allowed_for(call.inputs)
    rule = rule.get(own) if isinstance(rule, Mapping) else rule
    if own in allowed and allowed[own].shape[1] == allowed[own].shape[2]:
        # In the output's own sequence, what nobody may see is padding, unless no position may see itself.
        padding[own] = ~allowed[own].any(1) & allowed[own].diagonal(dim1=1, dim2=2).any(-1, keepdim=True)
        judged = ~padding[own]
    elif own in allowed and isinstance(rule, Mask) and rule.query_len is None:
        wanted, lengths = f"as many outputs as inputs under {rule!r}", allowed[own].shape
        cause = "an output that is pooled, shortened or the last one only; give allowed as a bool tensor"
        raise value_error(wanted, f"{lengths[1]} for {lengths[2]}", cause)
    if not any(bool(table.any()) for table in allowed.values()):
        raise value_error("an output to judge", f"{rule!r}", "a mask that lets no query look at any key")

    def tables(changed: ModelCall) -> dict[str, Tensor]:
        found = question.tables(changed, output.length)
        return {name: _and_itself(table) if name == own else table for name, table in found.items()}

    depends = tables if question.allowed_depends else None
    without = frozenset(question.without_ids)
    return Case(label, call, tables(call), allowed, padding, judged, own, tokens, output, depends, without)


def _and_itself(table: Tensor) -> Tensor:
    """Let each position see itself, where outputs and inputs are one sequence."""
    return table | torch.eye(table.shape[1], dtype=torch.bool) if table.shape[1] == table.shape[2] else table


def _redrawn(case: Case, name: str) -> Tensor:
    """Return new values everywhere but in the padding; floats are large in every other sample."""
    old, padded = case.call.as_batch_position(name), case.padding[name].to(case.call.arguments[name].device)
    values = case.call.arguments[name].clone()
    front = case.call.as_batch_position(name, values)
    front[:] = case.other_values(name, Kind.SMALL, seed=7)
    if values.is_floating_point():
        front[::2] *= 30
    else:
        padded = padded | torch.isin(front, old[padded])  # a new token that looks like padding might become one
    front[padded] = old[padded]
    return values


def _stretched(call: ModelCall, length: int, by_default: bool) -> Any:
    """Cut or repeat a lone argument."""
    ((name, values),) = call.arguments.items()
    axis = call.layouts[name].position
    if by_default and values.device.type != "cpu" and length > values.shape[axis]:
        raise value_error("a CPU", f"{values.device.type}", "positions beyond a table end the process there")
    places = torch.arange(length, device=values.device) % values.shape[axis]
    stretched = values.index_select(axis, places)
    return {name: stretched} if call.named else stretched
