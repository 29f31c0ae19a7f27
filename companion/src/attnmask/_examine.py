"""Try one model at one length in one mode: gradients, changed inputs, the retry in float64, and the module to blame."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from attnmask._check import value_error
from attnmask._compare import Flip, Records, anywhere, first_moved, gaps, largest, moved_at, recorded
from attnmask._scene import Pairs, Scene
from attnmask._trial import Trial, in_brief, seeded
from attnmask._watch import AsItWas, InFloat64, WithoutDropout, copy_of, drops

# In float64, rounding is 2e-9 times what it is in float32, and 2e-13 times what it is in float16.
_ROUNDING = 1e-5
_STAYS = 0.5  # what is no rounding stays as large as it was
_ROWS = 16  # outputs of which gradients are taken where others were taken before
_STRANGERS = 16  # inputs of other samples, of each of which a module is looked for


class Change(NamedTuple):
    """New values for some cells (batch, input) of one input; ``single`` = one position in every sample."""

    name: str
    cells: Tensor
    values: Tensor
    single: bool = False

    def made(self, trial: Trial) -> dict[str, Tensor]:
        """Return the input changed."""
        changed = copy_of(trial.arguments[self.name])
        values = trial.front(self.name, self.values.to(changed.dtype))
        trial.front(self.name, changed)[self.cells] = values[self.cells]
        return {self.name: changed}


class Way:
    """One scene in the mode that the model is in, gradients recorded or not."""

    def __init__(self, scene: Scene, trial: Trial, mode: str, grad: bool, start: AsItWas) -> None:
        self.scene, self.trial, self.mode, self.grad, self.start = scene, trial, mode, grad, start
        self.label = way_label(mode, grad)
        self.records: Records = {}
        self.base_records: dict[bool, Records] = {}  # by whether gradients are recorded
        self.recording = False
        self.base = self.run({})
        self.judged = scene.judged & ~torch.stack([anywhere(each.isnan()) for each in self.base]).any(0)

    def run(self, given: Mapping[str, Tensor], before: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """Run from the same start as ever, or after a call ``before`` whose traces are left in the model."""
        with self.start, torch.set_grad_enabled(self.grad or self.recording):
            if before is not None:
                self.trial.outputs(before)
                self.start.reseed()
                self.records.clear()
            outputs = [each.detach() for each in self.trial.outputs(given)]
        self.scene.runs.append(self.label)
        return outputs

    # ---- the program -------------------------------------------------------------

    def examine(self, thorough: bool, notes: dict[str, None]) -> None:
        """Try everything, and put what is found into the scene."""
        if bool(gaps(self.base, self.run({}))[0].any()):
            cause = "chance or state of objects that are no modules, or an accelerator's atomic sums"
            raise value_error(f"two runs on the same input to agree bit for bit ({self.label})", "two outputs", cause)
        for sample, output in (self.scene.judged & ~self.judged).nonzero().tolist():
            if thorough:
                self.scene.nan_at_once[sample, output] = self.label
            else:
                notes[f"some outputs{self.scene.place} (they are NaN)"] = None
        small = self._gradients(thorough, notes) if self.grad else {}
        pending = [each for change in self._changes(thorough) if (each := self._tried(change, notes)) is not None]
        if self.mode != "train" and thorough:
            self._calls(notes)
        self.scene.ways[self.label] = None
        open_leaks = any(bool((pairs.size > 0).any()) for pairs in self.scene.leaks.values())
        if not (small or pending or open_leaks):
            return
        try:
            with self._in_float64() as exact:
                exact._settle(small, pending, native=self.base[0].dtype == torch.float64)
                exact._name_modules()
        except Exception as error:  # whatever a model raises
            why = f"{self.label}; float64, which tells leaks from rounding, fails: {in_brief(error)}"
            for name, size in small.items():
                self.scene.suspects[name].add(size > 0, size, f"gradient: {why}")
            for change, fresh, size in pending:
                after = self.run(change.made(self.trial))
                large = size > 1e3 * torch.finfo(self.base[0].dtype).eps * largest(after)  # no rounding is
                for flip in self._pinned(change, after, fresh, torch.zeros(fresh.shape)):
                    doubt = self._doubt(change.name, flip.cell)
                    if doubt or not bool((large & flip.moved).any()):
                        self._note(self.scene.suspects[change.name], flip, f"changed inputs: {why}{doubt}")
                    else:
                        self._note(self.scene.leaks[change.name], flip, self._by_change)
            self._name_modules()

    def _gradients(self, thorough: bool, notes: dict[str, None]) -> dict[str, Tensor]:
        """Note what gradients reach; return the sizes of forbidden ones that may be rounding."""
        rows = self.judged.clone()
        rows[self.scene.samples :] = False
        if not thorough:
            rows &= torch.rand(rows.shape, generator=seeded(len(self.scene.runs))) < _ROWS / rows.sum()
        try:
            sizes = self.gradient_sizes(rows)
        except (ValueError, RuntimeError) as error:
            notes[f"gradients in {self.mode}{self.scene.place} ({in_brief(error)})"] = None
            return {}
        self.scene.ways[f"gradients in {self.mode}"] = None
        small = {}
        for name, size in sizes.items():
            samples = range(len(size))
            self.scene.reached[name] |= (size[samples, :, samples] > 0) & self.scene.allowed[name]
            size = size * self.scene.forbidden(name)
            sure = size > 1e3 * torch.finfo(self.base[0].dtype).eps
            self.scene.leaks[name].add(sure, size, f"gradient: {self.mode}")
            rest = size * ~(self.scene.leaks[name].size > 0)
            if bool(rest.any()):
                small[name] = rest
        return small

    def gradient_sizes(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the largest gradient of some outputs in each input, (batch, output, batch, input), as a share."""
        sizes = {name: torch.zeros_like(pairs.size) for name, pairs in self.scene.leaks.items()}
        for samples, positions, found in self.trial.gradients(rows, self.start):
            for name, size in found.items():
                sizes[name][samples.cpu(), positions.cpu()] = size.detach().double().cpu()
        top = max(float(size.max()) for size in sizes.values()) or 1.0
        return {name: size / top for name, size in sizes.items()}

    def _changes(self, thorough: bool) -> Iterator[Change]:
        """Yield changes: single positions, all that an output may not see, half of it, all other samples."""
        chance, turn = seeded(len(self.scene.runs)), 2 * (self.mode == "train") + self.grad
        usual = (self.mode == "train") == self.grad
        most = (None, 8) if thorough and usual else (8, 4) if thorough else (4, 3)  # positions, outputs
        for name, allowed in self.scene.allowed.items():
            values = self.scene.values(name, len(self.scene.runs))
            batch, outputs, inputs = allowed.shape
            floats = values[0].is_floating_point()
            kinds = [[0, 3, 2, 1], [0, 3, 1, 2]][not floats][turn : turn + 1] if thorough else [3, 4] if floats else [1]
            for position in torch.randperm(inputs, generator=chance)[: most[0]].tolist():
                cells = (torch.arange(inputs) == position).expand(batch, -1)
                yield from (Change(name, cells, values[kind], single=True) for kind in kinds)
            for number, output in enumerate(torch.randperm(outputs, generator=chance)[: most[1]].tolist()):
                cells = ~allowed[:, output]
                yield from (Change(name, cells, value) for value in values[(number + turn) % 2 :: 2])
                half = torch.rand(cells.shape, generator=chance) < 0.5
                yield Change(name, cells & half, values[number % 3])
            for sample in range(min(batch, 4) if batch > 1 else 0):
                others = (torch.arange(batch) != sample)[:, None].expand(-1, inputs)
                yield from (Change(name, others, value) for value in values[:: 2 if thorough and usual else 4])

    def _tried(self, change: Change, notes: dict[str, None]) -> tuple[Change, Tensor, Tensor] | None:
        """Run with a change; return the quiet outputs that it moved and no known leak explains, and by how much."""
        scene, name, cells = self.scene, change.name, change.cells
        if not bool(cells.any()):
            return None
        given = change.made(self.trial)
        if not self._same_mask(given):
            return None
        try:
            after = self.run(given)
            moved = moved_at(self.base, after) & self.judged
        except Exception as error:  # whatever a model raises
            notes[f"some values of {name}, {self.label}{self.scene.place} ({in_brief(error)})"] = None
            return None
        if change.single:
            scene.reached[name] |= moved[..., None] & cells[:, None] & scene.allowed[name]
        moved &= scene.quiet(name, cells)
        if not bool(moved.any()):
            return None
        size, turned = gaps(self.base, after)
        known = (scene.leaks[name].size > 0) & cells
        if change.single:
            explained = known & moved[..., None, None]
            scene.leaks[name].add(explained, size[..., None, None].expand(explained.shape), self._by_change)
        self._note_nan(change, turned & moved, after)
        doubted = (scene.suspects[name].size * cells).flatten(2).amax(-1)
        fresh = moved & ~turned & ~known.flatten(2).any(-1) & (size > 10 * doubted)
        return (change, fresh, size) if bool(fresh.any()) else None

    def _same_mask(self, given: dict[str, Tensor]) -> bool:
        """Say whether the same pairs are allowed for changed inputs, where what is allowed depends on them."""
        if self.scene.again is None:
            return True
        changed = self.scene.again(self.trial._replace(arguments=self.trial.arguments | given))
        return all(torch.equal(table, self.scene.allowed[name]) for name, table in changed.items())

    @property
    def _by_change(self) -> str:
        return f"changed inputs: {self.label}"

    def _note_nan(self, change: Change, turned: Tensor, after: list[Tensor]) -> None:
        """Note outputs that a change made NaN, unless it did so to every output that may depend on it.

        Numbers too large for the model become NaN where they stand; from there 0 times NaN
        reaches all rows, masked or not.
        """
        if not bool(turned.any()):
            return
        loud = (self.scene.allowed[change.name] & change.cells[:, None]).any(-1)  # (batch, output)
        finite = torch.stack([~anywhere(~each.isfinite()) for each in after]).all(0)
        turned = turned & (loud & finite).any(-1)[:, None]
        most = torch.full(turned.shape, torch.finfo(torch.float64).max, dtype=torch.float64)
        for flip in self._pinned(change, after, turned, most):
            self._note(self.scene.nan[change.name], flip, self._by_change)

    def _calls(self, notes: dict[str, None]) -> None:
        """Note outputs that depend on what the call before was given."""
        names = self.scene.allowed
        earlier = [{name: self.scene.values(name)[kind] for name in names} for kind in (0, 1)]
        try:
            size, _ = gaps(*(self.run({}, before=given) for given in earlier))
            moved = (size > 0) & self.judged
            if bool(moved.any()):
                first = list(first_moved(*(self._traced({}, given) for given in earlier)))
                for at in moved.nonzero().tolist():
                    module = next((name for name, rows in first if bool(rows[tuple(at)])), "")
                    self.scene.calls[at[0], at[1]] = (f"two calls: {self.label}", float(size[tuple(at)]), module)
        except Exception as error:  # whatever a model raises
            notes[f"two calls in a row, {self.label} ({in_brief(error)})"] = None

    # ---- float64 -----------------------------------------------------------------

    @contextmanager
    def _in_float64(self) -> Iterator["Way"]:
        """Turn the model and its arguments into float64 for a while."""

        def exact(value: Any) -> Any:
            return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

        modules = list(self.start.modules)
        default = torch.get_default_dtype()
        with AsItWas.of(self.trial.model, modules), torch.no_grad():
            try:
                torch.set_default_dtype(torch.float64)
                for module in modules:
                    for parameter in module._parameters.values():
                        if parameter is not None and parameter.is_floating_point():
                            parameter.data = parameter.data.double()
                    for place in (module._buffers, vars(module)):
                        for name, each in list(place.items()):
                            place[name] = exact(each)
                arguments = {name: tree_map(exact, each) for name, each in self.trial.arguments.items()}
                with torch.enable_grad():
                    start = AsItWas.of(self.trial.model, modules)
                    yield Way(self.scene, self.trial._replace(arguments=arguments), self.mode, self.grad, start)
            finally:
                torch.set_default_dtype(default)

    def _settle(self, small: dict[str, Tensor], pending: list[tuple[Change, Tensor, Tensor]], native: bool) -> None:
        """Tell leaks from rounding: what float64 does not make much smaller is real."""
        if small:
            with InFloat64():
                sizes = self.gradient_sizes(torch.stack([size.flatten(2).any(-1) for size in small.values()]).any(0))
            for name, size in small.items():
                stays = (size > 0) & (sizes[name] > _STAYS * size)
                if not native:
                    self.scene.leaks[name].add(stays, size, f"gradient: {self.mode}")
                    stays = (size > 0) & (sizes[name] > _ROUNDING * size) & ~stays
                self.scene.suspects[name].add(stays, size, f"gradient: {self.mode}; as small as rounding")
        for change, fresh, size in pending:
            fresh = fresh & ~((self.scene.leaks[change.name].size > 0) & change.cells).flatten(2).any(-1)
            if not bool(fresh.any()):
                continue
            given, floor = change.made(self.trial), torch.where(fresh, _ROUNDING * size, torch.inf)
            after = self.run(given)
            real = fresh & (gaps(self.base, after)[0] > floor)
            tiny = real & (size < (1e-9 if native else 1e-5) * largest(after))
            if bool(tiny.any()) and not native:  # perhaps the model itself goes back to float32
                exact = gaps(self._under(InFloat64(), {}), self._under(InFloat64(), given))[0]
                real &= ~tiny | (exact > floor)
                tiny &= exact < _STAYS * size
            by_chance = torch.zeros_like(real)
            if self.mode == "train" and bool(real.any()):
                by_chance = real & ~(gaps(self._undropped({}), self._undropped(given))[0] > floor)
            for flip in self._pinned(change, after, real, floor):
                doubt = self._doubt(change.name, flip.cell)
                if bool((flip.moved & by_chance).any()):
                    doubt = "; only while there is dropout, whose chances may have moved"
                elif bool((flip.moved & tiny).any()):
                    doubt = "; as small as rounding"
                kind = self.scene.suspects if doubt else self.scene.leaks
                self._note(kind[change.name], flip, self._by_change + doubt)
                pairs = torch.zeros(kind[change.name].size.shape[:3], dtype=torch.bool)
                pairs[..., flip.cell[0]] = flip.moved
                self._blame(change.name, flip.cell[1], pairs, flip.before, flip.after)

    def _doubt(self, name: str, cell: tuple[int, int]) -> str:
        """Say why a change of padding need be no leak: the model may make its mask from what is in it."""
        tokens = self.trial.front(name)
        from_ids = not tokens.is_floating_point() and name in self.scene.compared
        from_zeros = tokens.is_floating_point() and not bool(tokens[cell].any())
        if not (bool(self.scene.padded[name][cell]) and (from_ids or from_zeros)):
            return ""
        return f"; perhaps the model makes a mask or positions of its own from these {'ids' if from_ids else 'zeros'}"

    def _under(self, mode: TorchFunctionMode, given: dict[str, Tensor]) -> list[Tensor]:
        with mode:
            return self.run(given)

    def _undropped(self, given: dict[str, Tensor]) -> list[Tensor]:
        """Run while nothing is dropped."""
        places = [(part, name) for part in self.start.modules for name in vars(part) if drops(part, name)]
        before = [vars(part)[name] for part, name in places]
        try:
            for part, name in places:
                vars(part)[name] = 0.0
            return self._under(WithoutDropout(), given)
        finally:
            for (part, name), value in zip(places, before, strict=True):
                vars(part)[name] = value

    def _pinned(self, change: Change, after: list[Tensor], fresh: Tensor, floor: Tensor) -> Iterator[Flip]:
        """Find single cells that move these outputs by more than ``floor`` while nothing else changes.

        ``after`` is what the change as a whole gives. The cells are changed one after the
        other. Between some step and the next the output moves: bisection finds one.
        """
        cells = change.cells.nonzero().tolist()
        left = fresh.clone()
        for _ in range(8):
            if not bool(left.any()):
                return
            at = tuple(left.nonzero()[0].tolist())
            below, above = 0, len(cells)
            given: dict[int, dict[str, Tensor]] = {0: {}, above: change.made(self.trial)}
            outputs = {0: self.base, above: after}
            while above - below > 1:
                middle = (below + above) // 2
                some = torch.zeros_like(change.cells)
                some[tuple(torch.tensor(cells[:middle]).T)] = True
                given[middle] = change._replace(cells=some).made(self.trial)
                outputs[middle] = self.run(given[middle])
                if gaps(self.base, outputs[middle])[0][at] > floor[at]:
                    above = middle
                else:
                    below = middle
            size = gaps(outputs[below], outputs[above])[0]
            moved = (size > floor) & fresh
            moved[at] = True
            yield Flip((cells[below][0], cells[below][1]), moved, size, given[below], given[above])
            left &= ~moved

    @staticmethod
    def _note(kind: Pairs, flip: Flip, label: str) -> None:
        pairs = torch.zeros_like(kind.size, dtype=torch.bool)
        pairs[:, :, flip.cell[0], flip.cell[1]] = flip.moved
        kind.add(pairs, flip.size[..., None, None].expand(pairs.shape), label)

    # ---- naming modules ----------------------------------------------------------

    def _name_modules(self) -> None:
        """For each leak without a module, find the first module whose output a change of that input moves."""
        for name, pairs in self.scene.leaks.items():
            unnamed = (pairs.size > 0) & ~self._named(name)
            same = torch.eye(len(self.judged), dtype=torch.bool)[:, None, :, None]
            own = (unnamed & same).flatten(0, 2).any(0).nonzero().flatten().tolist()
            others = (unnamed & ~same).flatten(0, 1).any(0).nonzero().tolist()[:_STRANGERS]
            for sample, position in [*((None, each) for each in own), *others]:
                cells = torch.zeros(pairs.size.shape[2:], dtype=torch.bool)
                cells[slice(None) if sample is None else sample, position] = True
                left = unnamed[..., position] & (same[..., 0] if sample is None else ~same[..., 0] & cells[:, position])
                for values in self.scene.values(name)[:3]:
                    if bool(left.any()):
                        left = self._blame(name, position, left, {}, Change(name, cells, values).made(self.trial))

    def _named(self, name: str) -> Tensor:
        named = torch.zeros(self.scene.leaks[name].size.shape, dtype=torch.bool)
        for one, *at in self.scene.modules:
            if one == name:
                named[tuple(at)] = True
        return named

    def _blame(
        self, name: str, position: int, pairs: Tensor, before: dict[str, Tensor], after: dict[str, Tensor]
    ) -> Tensor:
        """Name the module for pairs (batch, output, batch) of one input position; return the pairs left over."""
        outputs, inputs = self.judged.shape[1], self.scene.allowed[name].shape[2]
        if name != self.scene.own and outputs == inputs and len(self.trial.arguments) > 1:
            # Rows of an encoder may pass for rows of the output: those of padding, save its own, hold for both.
            pairs = pairs & self.scene.padded[name][:, position]
            pairs[:, position] = False
        if not bool(pairs.any()):
            return pairs
        for self.recording in (True, False):  # while gradients are recorded, no fast path hides the parts of a layer
            with suppress(Exception) if self.recording else nullcontext():  # some models run on the fast path only
                for module, rows in first_moved(self._traced(before), self._traced(after)) if pairs.any() else ():
                    for sample, output, source in (pairs & rows[..., None]).nonzero().tolist():
                        self.scene.modules[name, sample, output, source, position] = module
                    pairs = pairs & ~rows[..., None]
                    if not bool(pairs.any()):
                        break
        return pairs

    def _traced(self, given: Mapping[str, Tensor], before: Any = None) -> Records:
        """Run and record what each module gives, in the order in which they finish; the unchanged inputs once."""
        unchanged = not given and before is None
        if unchanged and self.recording in self.base_records:
            return self.base_records[self.recording]
        batch, outputs = self.judged.shape
        named = recorded(self.trial.model, self.start.modules, batch, outputs, self.trial.output_axis)
        with named as self.records:
            self.run(given, before)
        for name, _ in self.records:
            self.scene.order.setdefault(name, len(self.scene.order))
        records, self.records = self.records, {}
        if unchanged:
            self.base_records[self.recording] = records
        return records


def way_label(mode: str, grad: bool) -> str:
    """Name a way to run: models are mostly evaluated without gradients and trained with them."""
    unusual = {("eval", True): ", recording gradients", ("train", False): ", without gradients"}
    return mode + unusual.get((mode, grad), "")
