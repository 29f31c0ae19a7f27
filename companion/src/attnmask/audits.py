"""Does a model obey its mask? `audit` tries every forbidden pair, the two `assert_…` each fit one line of a test."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from attnmask._audit.engine import answer
from attnmask._audit.layers import questions_of_layers
from attnmask._audit.question import Allowed, Question
from attnmask._audit.report import Audit as Audit
from attnmask._audit.report import Leak as Leak
from attnmask._audit.report import report
from attnmask._invariance.engine import answer as answer_alone


class NotTriedWarning(UserWarning):
    """What a check that passed could not try, or was not asked to.

    ``lengths=[]`` says that no other length is wanted.

    >>> issubclass(NotTriedWarning, UserWarning)
    True
    """


def assert_allowed(
    model: Callable[..., Any],
    inputs: Tensor | Mapping[str, Any] | Callable[[int], Any],
    allowed: Allowed | Mapping[str, Allowed] | Callable[[Any], Any] | None = None,
    **options: Any,
) -> None:
    """Raise AssertionError, saying which output depends on which input, unless a model obeys its mask.

    Parameters
    ----------
    model, inputs, allowed, options
        As for `audit`, which this is, ended at the first leak.

    Raises
    ------
    AssertionError
        The model leaks, or gives NaN; with ``exact=True`` also: something is allowed and
        not reached. Or no change of some input ran to its end, so that nothing is known.
    ValueError, TypeError
        As `audit` raises them.

    Warns
    -----
    UserWarning
        There are suspects, or mask arguments that do nothing.
    NotTriedWarning
        What was not tried, in one line.

    Examples
    --------
    >>> import torch
    >>> from attnmask import Encoder, causal
    >>> encoder = Encoder(layers=1, d_model=8)
    >>> assert_allowed(lambda x: encoder(x, causal()), torch.randn(1, 4, 8), allowed=causal(), exact=True)
    """
    __tracebackhide__ = True  # pytest shows the test that failed, not this function
    found = audit(model, inputs, allowed, **options, until_leak=True)
    if not found.ok:
        raise AssertionError(str(found))
    if found.suspects or found.unused or any(each.suspects for each in found.layers.values()):
        warnings.warn(str(found), stacklevel=2)
        return
    layers = [f"in {name}: {each}" for name, layer in found.layers.items() for each in layer.not_tried]
    if found.not_tried or layers:
        warnings.warn(f"Not tried: {'; '.join([*found.not_tried, *layers])}.", NotTriedWarning, stacklevel=2)


def audit(
    model: Callable[..., Any],
    inputs: Tensor | Mapping[str, Any] | Callable[[int], Any],
    allowed: Allowed | Mapping[str, Allowed] | Callable[[Any], Any] | None = None,
    *,
    same_sequence: bool | str = True,
    modes: Iterable[str] = ("eval", "train"),
    lengths: Iterable[int] | None = None,
    position_axis: int | Mapping[str, int] | None = None,
    memory: int = 2**31,
    until_leak: bool = False,
    exact: bool = False,
    layers: Mapping[str, Allowed | Mapping[str, Allowed]] | None = None,
    without_ids: Iterable[int] | int = (),
) -> Audit:
    """Try to find an output of a model that depends on an input which its mask forbids.

    In each mode, with and without gradients recorded, gradients are taken, and all that an
    output may not see is changed at once, to small, large, huge, equal and other values; the
    other samples; in eval, the call before. No number of the output may move. What moves by
    no gradient is tried again in float64, so that rounding is not taken for a leak. Judged
    are the first fitting tensor of the output, and others of its axes that have a name. A
    mode that gives the same bits as another is not tried in full again; the report says so.

    Parameters
    ----------
    model
        As for `influence`: any module or function.
    inputs
        As for `influence`, or a function of a length that gives them.
    allowed
        What each output may finally depend on: a `Mask`, a bool tensor
        (batch or 1, output, input) as `reach` gives it, or one for each input by name;
        default ``causal()``. Or a function of the inputs that gives one of these: the way to
        say it where the model itself makes its mask from its inputs, as from ``ids != 0``,
        since changed inputs then change the mask.
    same_sequence
        Which input is the sequence of the output: there, a position may always depend on
        itself, and where no position may look, it is padding, whose output is not judged.
        True = the only input, or the one whose name speaks of a decoder, target or query;
        a name = that one; False = none, as where labels come in and are shifted inside.
    modes
        ``"eval"``, ``"train"`` or both; all modules are switched, those kept in eval too.
    lengths
        Which lengths to try. By default that of ``inputs`` (8 where it is a function),
        half of it, and one more than twice, where the inputs can be cut and repeated: a
        lone tensor under a mask that holds no length, and the longer one on a CPU only.
    position_axis, memory
        As for `influence`.
    until_leak
        Whether to end at the first leak.
    exact
        Whether everything allowed has to be reached, too: nothing may hide more than its mask.
        Through several layers that is what `reach` gives. It rests on changes of single
        inputs, many where few show nothing, among other tokens too, and in float64; on
        gradients where those show more; in each mode and at each length. In training
        nothing is dropped meanwhile. What no change could show is said.
    layers
        Masks of single modules, by name or pattern, as ``{"layers.*.attention": causal()}``:
        each is also asked by itself, with what the model calls it with, in the mode that it is
        in. What one layer hides need not show in the end, where another makes up for it.
    without_ids
        Token ids that are never put in the place of others, such as those of images.

    Returns
    -------
    Audit
        ``.ok``, ``.leaks`` and more; print it. Modules, inputs and random state are left bit
        for bit as they were, also after an error; objects of other classes are not looked into.

    Raises
    ------
    ValueError, TypeError
        As `influence` does. Besides: ``allowed`` of another shape, of another length than
        the output, or for an input that does not exist; a model whose runs differ
        though nothing was changed.

    Examples
    --------
    >>> import torch
    >>> from attnmask import Encoder, causal
    >>> encoder = Encoder(layers=2, d_model=8)
    >>> report = audit(lambda x: encoder(x, [causal(), None]), torch.randn(1, 4, 8))
    >>> print(report.ok, "-", report.leaks[0])
    False - output 0 depends on input 1, which is in its future; first seen in Encoder.layers.1.attention.part.W_O
    """
    question = Question.of(
        model,
        inputs,
        allowed,
        modes,
        lengths,
        same_sequence=same_sequence,
        position_axis=position_axis,
        memory=memory,
        stop_at_first=until_leak,
        without_ids=without_ids,
        exact=exact,
    )
    found = report(*answer(question), exact)
    if layers is None or (until_leak and not found.ok):
        return found
    asked = questions_of_layers(question, layers)
    alone = {name: replace(report(*answer(each), exact), subject="layer") for name, each in asked.items()}
    return replace(found, layers=alone)


def assert_padding_invariant(
    model: Callable[..., Any],
    inputs: Tensor | Mapping[str, Any],
    keep: Tensor | Mapping[str, Tensor],
    *,
    modes: str | Iterable[str] = "eval",
    position_axis: int | Mapping[str, int] | None = None,
    memory: int = 2**31,
) -> None:
    """Raise AssertionError unless each sample gives in its padded batch what it gives alone, without padding.

    A sample alone is everything that was given cut to its real tokens: ids or embedded tokens,
    masks of two to four axes, positions, token types; also in nested tuples and lists. Besides
    the batch as given, samples are tried with less and with more padding, on the sides on
    which they have some: with one column, half of it, one more, and as many more as there are.
    Compared are outputs at real tokens, in float64 up to 1e-9 of the largest number; where a
    model refuses float64 or rounds more coarsely inside, up to 1,000 times that rounding. Of a
    large batch, 16 samples are compared, whose amounts of padding are spread most; more padding
    is tried on a CPU only.

    Parameters
    ----------
    model
        As for `influence`: any module or function.
    inputs
        A lone tensor, or arguments by name. Whose samples and tokens an axis counts is told
        by its length, and by the argument's name where several are as long.
    keep
        Bool (batch, token): which tokens are real. For a model with several sequences, one for
        each input by name, as ``{"input_ids": …, "decoder_input_ids": …}``; the output
        belongs to the one that speaks of a decoder, target or query. A sample without a real
        token is left out.
    modes
        ``"eval"``, ``"train"`` or both. Dropout is switched off in training, since its
        chances depend on the shape; batch statistics are not.
    position_axis, memory
        As for `influence`.

    Raises
    ------
    AssertionError
        A sample differs, or is NaN: its first such token, by how much, with which padding, the
        first module to finish that shows it, and the cause as far as an experiment shows it.
    ValueError, TypeError
        No padding; an axis that cannot be told; an output that is not as long as ``keep``; a
        model that does not run on any sample alone.

    Warns
    -----
    NotTriedWarning
        What else could not be tried or judged.

    Notes
    -----
    Modules, inputs and random state are left bit for bit as they were. What stands in the
    padding, and other company, are not varied: that is what `audit` does. Position ids that are
    given are cut, not counted anew, and so not judged; those that count padding get a warning.

    Examples
    --------
    >>> import torch
    >>> from attnmask import Encoder, padding
    >>> keep = torch.tensor([[True, True, True, True], [True, True, False, False]])
    >>> encoder = Encoder(layers=1, d_model=8)
    >>> assert_padding_invariant(lambda x: x.cumsum(1), torch.randn(2, 4, 8), keep)
    >>> assert_padding_invariant(lambda x: x - x.mean(1, keepdim=True), torch.randn(2, 4, 8), keep)
    Traceback (most recent call last):
    AssertionError: sample 1, real token 0 ...
    """
    __tracebackhide__ = True  # pytest shows the test that failed, not this function
    found = answer_alone(model, inputs, keep, modes, position_axis, memory)
    if found.failure:
        raise AssertionError("\n".join([found.failure, *found.notes]))
    if found.notes:
        warnings.warn("; ".join(found.notes), NotTriedWarning, stacklevel=2)
