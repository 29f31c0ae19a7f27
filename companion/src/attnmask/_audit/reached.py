"""Is everything that is allowed also reached?"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from attnmask._audit.probes import gradient_sizes
from attnmask._audit.records import FEW_IDS, Hidden, Inputs, Reached
from attnmask._audit.runner import Runner
from attnmask._measure.compare import SURE, max_abs, max_abs_diff
from attnmask._measure.float64 import InFloat64
from attnmask._measure.lookups import LookupTracer
from attnmask._measure.values import Kind, other_values, seeded

_PLACES = 3  # inputs that are looked at closely; where one of them stays hidden, so does all that is left
_VECTORS, _AT_A_TIME, _TIMES = 24, 16, 3  # other vectors of each, changes of each, and how often without news
_PATIENCE = 4  # times as many, once they showed anything that the changes before did not
_SCALES = (1.0, 0.1, 0.01)  # of new floats around a change: small ones let a softmax that was decided weigh again
_FLOATS = (Kind.SMALL, Kind.SMALL, Kind.LARGE, Kind.HUGE, Kind.ZERO, Kind.OPPOSITE, Kind.MOVED)
_IDS = (Kind.SMALL, Kind.SMALL, Kind.HUGE, Kind.THERE)
Attempt = tuple[int, int]  # which input is changed, in which of many ways


def hidden(runner: Runner) -> Iterator[Reached | Hidden]:
    """Change single inputs until every output that may depend on them has moved; yield what stays hidden.

    First each input once. What that does not show is looked for in float64, where less is
    lost: by gradients, and by many other changes, among other tokens too. So a dead unit, a
    decided softmax or a choice is not taken for a mask. In training nothing is dropped meanwhile.
    """
    search = _Search(runner)
    with _without_chance(runner) as calm:
        search.once(calm)
    if search.unfinished:
        try:
            with runner.exactly() as exact, _without_chance(exact) as calm:
                search.once(calm)
                search.by_gradients(calm)
                search.closely(calm)
        except Exception:  # whatever a model raises
            search.surely = False
            with _without_chance(runner) as calm:
                search.closely(calm)
    for name, pairs in search.left.items():
        ran = search.ran[name][:, None]
        yield Reached(name, runner.case.required_pairs(name) & ~pairs)
        if bool(pairs.any()):
            yield Hidden(name, runner.mode, pairs & ran, pairs & ~ran)


class _Search:
    """What is still to be shown, (batch, output, input) by name, and which inputs could be changed."""

    def __init__(self, runner: Runner) -> None:
        self.case, self.plain = runner.case, runner.plain
        self.left = {name: self.case.required_pairs(name) for name in self.case.required}
        self.ran = {name: torch.zeros(pairs.shape[::2], dtype=torch.bool) for name, pairs in self.left.items()}
        self.surely = True  # whether only that counts which is no rounding

    @property
    def unfinished(self) -> bool:
        """Whether something is still to be shown."""
        return any(bool(pairs.any()) for pairs in self.left.values())

    def once(self, runner: Runner) -> None:
        """Change each input once."""
        for name, pairs in self.left.items():
            self._change(runner, name, [(place, 0) for place in _places(pairs)])

    def closely(self, runner: Runner) -> None:
        """Look at a few inputs in many ways, and at others once all is shown that these reach."""
        for name, pairs in self.left.items():
            floats = runner.call.arguments[name].is_floating_point()
            while bool(pairs.any()):
                places = _places(pairs)
                places = places[:: max(1, len(places) // _PLACES)][:_PLACES]
                for place in () if floats else places:
                    self._by_vectors(runner, name, place)
                self._by_changes(runner, name, places)
                if bool(pairs[..., places].any()):
                    break

    def by_gradients(self, runner: Runner) -> None:
        """Take the gradients of outputs that something still has to reach, if the model does the same with them."""
        rows = torch.stack([pairs.any(-1) for pairs in self.left.values()]).any(0)
        with suppress(ValueError, RuntimeError):  # ids that are not looked up, or whatever cannot be differentiated
            with runner.snapshot.run(), torch.enable_grad():
                outputs = [each.detach() for each in runner.call.outputs({})]
            if bool(rows.any()) and not bool(_apart(runner.base, outputs, SURE).any()):
                with InFloat64():
                    sizes, _ = gradient_sizes(runner, rows)
                samples = range(len(rows))
                for name, size in sizes.items():
                    self.left[name] &= ~(size[samples, :, samples] > 0)

    def _by_changes(self, runner: Runner, name: str, places: list[int]) -> None:
        """Change inputs, as long as that shows anything new."""
        pairs, since, turn, times = self.left[name], 0, 1, _TIMES
        while since < times and bool(pairs[..., places].any()):
            before = int(pairs.sum())
            self._change(runner, name, [(place, turn + each) for each in range(_AT_A_TIME) for place in places])
            since, turn = since + 1, turn + _AT_A_TIME
            if int(pairs.sum()) < before:
                since, times = 0, _PATIENCE * _TIMES

    def _by_vectors(self, runner: Runner, name: str, place: int) -> None:
        """Change what ids are looked up as: a model that chooses may choose an input for none of its ids."""
        pairs, since, turn, times = self.left[name], 0, 0, _VECTORS
        copies = 1 if self.plain is False else runner.copies(_VECTORS)
        with suppress(Exception):  # whatever a model raises
            while since < times and bool(pairs[:, :, place].any()):
                before, after = (_with_vectors(runner, name, place, turn, copies, change) for change in (False, True))
                moved = _apart(before, after, SURE).reshape(copies, *pairs.shape[:2]).any(0)
                since, turn = since + copies, turn + copies
                if bool((pairs[:, :, place] & moved).any()):
                    since, times = 0, _PATIENCE * _VECTORS
                pairs[:, :, place] &= ~moved

    def _change(self, runner: Runner, name: str, attempts: list[Attempt]) -> None:
        copies = runner.copies(len(attempts)) if attempts else 1
        for chunk in (attempts[at : at + copies] for at in range(0, len(attempts), copies)):
            try:
                before = [_surroundings(runner, name, turn) for _, turn in chunk]
                after = [_changed(runner, name, given, attempt) for given, attempt in zip(before, chunk, strict=True)]
            except ValueError:  # no other ids to change these to
                return
            for (place, _), given, moved in zip(chunk, after, self._moved(runner, before, after), strict=True):
                if moved is not None:
                    self.ran[name][:, place] = True
                    self.left[name][:, :, place] &= ~(moved & self.case.same_rows(given))

    def _moved(self, runner: Runner, before: list[Inputs], after: list[Inputs]) -> list[Tensor | None]:
        """Return for each change which outputs it moves, (batch, output); None where the model takes no such input."""
        factor = SURE if self.surely else 0.0
        if self.plain is not False:
            with suppress(Exception):  # whatever a model raises: then one by one
                one, other = runner.run_copies(before), runner.run_copies(after)
                return [_apart([x[n] for x in one], [y[n] for y in other], factor) for n in range(len(before))]
        moved: list[Tensor | None] = []
        for given, then in zip(before, after, strict=True):
            moved.append(None)
            with suppress(Exception):  # whatever a model raises
                moved[-1] = _apart(runner.run(given), runner.run(then), factor)
        return moved


def _apart(before: list[Tensor], after: list[Tensor], factor: float) -> Tensor:
    """Return which outputs (batch, output) differ by more than so many times their rounding, and are numbers."""
    size, nan_changed = max_abs_diff(before, after)
    return (size > factor * torch.finfo(before[0].dtype).eps * max_abs(before)) & ~nan_changed


def _places(pairs: Tensor) -> list[int]:
    return pairs.flatten(0, 1).any(0).nonzero().flatten().tolist()


def _surroundings(runner: Runner, name: str, turn: int) -> Inputs:
    """Return other tokens for every other turn, the padding kept."""
    if turn % 2 == 0:
        return {}
    case = runner.case
    values = runner.call.arguments[name].clone()
    front = runner.call.as_batch_position(name, values)
    drawn, kept = case.other_values(name, Kind.SMALL, turn).to(front), case.padding[name].to(front.device)
    if values.is_floating_point():
        drawn = drawn * _SCALES[turn // 2 % len(_SCALES)]
    else:
        kept = kept | torch.isin(drawn, front[kept])  # a new token that looks like padding might become one
    front[~kept] = drawn[~kept]
    return {name: values}


def _changed(runner: Runner, name: str, around: Inputs, attempt: Attempt) -> Inputs:
    """Return the input with one position of every sample changed, in one of many ways."""
    place, turn = attempt
    call, case = runner.call.replaced(around), runner.case
    values = call.arguments[name].clone()
    front = call.as_batch_position(name, values)
    vocabulary = case.tokens.vocabulary.get(name)
    kinds, seed = (_FLOATS if values.is_floating_point() else _IDS), turn * front.shape[1] + place
    kind = kinds[turn // 2 % len(kinds)]
    if vocabulary is not None and turn and (ids := case.special_ids(name)):
        kind, seed = (Kind.EQUAL, ids[turn // 2 % len(ids)]) if turn % 4 < 2 or vocabulary <= FEW_IDS else (kind, seed)
    drawn = other_values(name, front, kind, vocabulary, seed, case.without)
    front[:, place] = drawn[:, place]
    return {name: values}


def _with_vectors(runner: Runner, name: str, place: int, turn: int, copies: int, change: bool) -> list[Tensor]:
    """Run copies with vectors drawn anew, larger or smaller, for all tokens; in one place perhaps with others."""
    batch = len(runner.case.judged)
    many = runner.call.resampled(list(range(batch)) * copies) if copies > 1 else runner.call
    given = {one: each.clone() for one, each in many.arguments.items() if isinstance(each, Tensor)}

    def other(one: str, vectors: Tensor) -> Tensor:
        chance = seeded(turn)
        drawn = torch.randn(vectors.shape, generator=chance).to(vectors) * vectors.std()
        front = many.as_batch_position(name, drawn.view(*given[name].shape, -1))
        if one == name:
            sizes = 10.0 ** (torch.arange(turn * batch, turn * batch + len(front)) // batch % 4 - 2)
            front *= sizes.to(front)[:, None, None]
            if change:
                other = 3 * torch.randn(front[:, place].shape, generator=chance).to(front) * vectors.std()
                front[:, place] = other * sizes.to(front)[:, None]
        return drawn

    with LookupTracer({name: given[name]}, other), runner.snapshot.run(), torch.set_grad_enabled(runner.mode.grad):
        return many.outputs(given)


@contextmanager
def _without_chance(runner: Runner) -> Iterator[Runner]:
    """In training, run for a while with nothing left to chance."""
    if runner.mode.name != "train":
        yield runner
        return
    with runner.undropped() as calm:
        yield calm
