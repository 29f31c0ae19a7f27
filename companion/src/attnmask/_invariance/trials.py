"""Which samples are tried with how much padding?"""

from collections.abc import Iterator

from attnmask._invariance.axes import Sequences, Trial

SAMPLES = 16  # that are compared with themselves alone, at most: those whose amounts of padding are spread most
_TOGETHER = 4  # samples that are tried with more padding at once
SIDES = ("on the left", "in the middle", "on the right")


def chosen(sequences: Sequences) -> list[int]:
    """Return which samples are run alone: some with little, some with much padding, none without a real token."""
    everywhere = [set(keep.any(1).nonzero().flatten().tolist()) for keep in sequences.keep.values()]
    samples = sorted(set.intersection(*everywhere), key=lambda sample: (_amount(sequences, sample), sample))
    return sorted(_spread(samples, SAMPLES))


def trials(sequences: Sequences, samples: list[int], longer: bool) -> Iterator[Trial]:
    """Yield the batch as given; then for each side on which it has padding, some of it with less and with more.

    ``longer``: whether inputs may become longer than they were given.
    """
    yield sequences.as_given
    for name in sequences.keep:
        for side in SIDES:
            padded = {each: sides(sequences, name, each)[side] for each in samples}
            members = sorted((each for each in samples if padded[each]), key=lambda each: len(padded[each]))
            if members:
                yield from _less(sequences, name, side, padded, members)
                if longer:
                    yield from _more(sequences, name, side, padded, members)


def sides(sequences: Sequences, name: str, sample: int) -> dict[str, list[int]]:
    """Return which columns are padding of a sample on the left, in the middle and on the right of its real tokens."""
    real = sequences.real(name, sample)
    padding = sorted(set(range(sequences.keep[name].shape[1])) - set(real))
    return {
        SIDES[0]: [column for column in padding if column < real[0]],
        SIDES[1]: [column for column in padding if real[0] < column < real[-1]],
        SIDES[2]: [column for column in padding if column > real[-1]],
    }


def _less(
    sequences: Sequences, name: str, side: str, padded: dict[int, list[int]], members: list[int]
) -> Iterator[Trial]:
    """Yield one sample with one column of its padding, and half of it; pairs of samples with what both need."""
    what = f"with less padding {side}"
    most = members[-1]
    near = padded[most] if side == SIDES[2] else padded[most][::-1]  # those that are nearest to the real tokens
    for few in sorted({1, len(near) // 2} - {0, len(near)}):
        columns = sorted(sequences.real(name, most) + near[:few])
        yield Trial((most,), sequences.as_given.columns | {name: tuple(columns)}, what)
    for pair in zip(members[::2], members[1::2], strict=False):
        needed = {
            each: sorted({*sequences.real(each, pair[0]), *sequences.real(each, pair[1])}) for each in sequences.keep
        }
        both = {each: tuple(some) for each, some in needed.items()}
        if both != sequences.as_given.columns:
            yield Trial(pair, both, what)


def _more(
    sequences: Sequences, name: str, side: str, padded: dict[int, list[int]], members: list[int]
) -> Iterator[Trial]:
    """Yield some samples with a column of their padding repeated: once, and as often as there are columns."""
    together = _spread(members, _TOGETHER) if side != SIDES[1] else members[-1:]  # a middle is one sample's own
    column = padded[together[-1]][-1 if side == SIDES[2] else 0]
    given = sequences.as_given.columns
    for times in (1, len(given[name])):
        columns = sorted([*given[name], *[column] * times])
        yield Trial(tuple(together), given | {name: tuple(columns)}, f"with more padding {side}")


def _spread(members: list[int], most: int) -> list[int]:
    """Return some members, the first and the last among them."""
    if len(members) <= most:
        return members
    return [members[round(each * (len(members) - 1) / (most - 1))] for each in range(most)]


def _amount(sequences: Sequences, sample: int) -> int:
    """Return how many columns of a sample are padding, in all sequences."""
    return sum(int((~keep[sample]).sum()) for keep in sequences.keep.values())
