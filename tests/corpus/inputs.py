"""Inputs, what a mask made of them allows, and changes to them."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from attnmask import Mask, causal, documents, padding, prefix
from corpus.case import LENGTH, VOCABULARY, WIDTH, Cells, Inputs, floats, mapped, tensor_of


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def token_ids(seed: int, *, batch: int = 2, length: int = LENGTH) -> Tensor:
    """Return random token ids, none of them 0, which is padding."""
    return torch.randint(1, VOCABULARY, (batch, length), generator=_generator(seed))


def samples(batch: int, length: int = LENGTH) -> Callable[[int], Tensor]:
    """Return a function of a seed that gives random ids of this many samples."""
    return lambda seed: token_ids(seed, batch=batch, length=length)


def states(seed: int) -> Tensor:
    """Return random token vectors."""
    return torch.randn(2, LENGTH, WIDTH, generator=_generator(seed))


def right_padded(seed: int, *, lengths: tuple[int, ...] = (4, 6), length: int = LENGTH) -> dict[str, Tensor]:
    """Return ids with padding at the end, and which tokens to keep."""
    keep = torch.arange(length) < torch.tensor(lengths)[:, None]
    return {"ids": token_ids(seed, batch=len(lengths), length=length) * keep, "keep": keep}


def left_padded(seed: int) -> dict[str, Tensor]:
    """Return ids with padding at the start, and which tokens to keep."""
    return {name: value.flip(1) for name, value in right_padded(seed).items()}


def six_padded(seed: int) -> dict[str, Tensor]:
    """Return six padded samples of six tokens: as many samples as tokens."""
    return right_padded(seed, lengths=(4, 6, 6, 6, 6, 6), length=6)


def translation(seed: int) -> dict[str, Tensor]:
    """Return source ids with padding at the end, which of them to keep, and target ids."""
    padded = right_padded(seed, lengths=(4, 5), length=6)
    return {"source": padded["ids"], "target": token_ids(seed + 1), "keep": padded["keep"]}


def packed(seed: int) -> dict[str, Tensor]:
    """Return two rows, each with several documents packed into it."""
    return {"ids": token_ids(seed), "documents": torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 2, 2]])}


def with_prefix(seed: int) -> dict[str, Tensor]:
    """Return ids and the length of the prefix that is read in both directions."""
    return {"ids": token_ids(seed), "lengths": torch.tensor([3, 2])}


def kept(inputs: Inputs) -> Mask:
    return padding(inputs["keep"])


def causal_kept(inputs: Inputs) -> Mask:
    return causal() & padding(inputs["keep"])


def causal_documents(inputs: Inputs) -> Mask:
    return causal() & documents(inputs["documents"])


def causal_prefix(inputs: Inputs) -> Mask:
    return causal() | prefix(inputs["lengths"])


def altered(inputs: Inputs, of: str | None, cells: Iterable[tuple[int, int]], seed: int) -> Inputs:
    """Return a copy of the inputs with another random token in each of these (sample, position) cells."""
    result = mapped(inputs, Tensor.clone)
    tensor, generator = tensor_of(result, of), _generator(seed + 10_000)
    for sample, position in cells:
        if floats(tensor):
            tensor[sample, position] = torch.randn(tensor.shape[2:], generator=generator).to(tensor.dtype)
        else:
            step = int(torch.randint(1, VOCABULARY - 1, (), generator=generator))
            tensor[sample, position] = 1 + (int(tensor[sample, position]) - 1 + step) % (VOCABULARY - 1)
    return result


def placed(at: Cells, tokens: list[int]) -> Callable[[int], tuple[Inputs, Inputs]]:
    """Return a pair of lone ids: ids without these tokens, then with them in their cells."""

    def pair(seed: int) -> tuple[Inputs, Inputs]:
        before = token_ids(seed)
        for token in set(tokens):
            before[before == token] = 1
        after = before.clone()
        for (sample, position), token in zip(at, tokens, strict=True):
            after[sample, position] = token
        return before, after

    return pair


def in_row(before: list[int], after: list[int]) -> Callable[[int], tuple[Inputs, Inputs]]:
    """Return a pair of lone ids whose first sample holds these tokens, before and after."""

    def pair(seed: int) -> tuple[Inputs, Inputs]:
        one, other = token_ids(seed), token_ids(seed)
        one[0], other[0] = torch.tensor(before), torch.tensor(after)
        return one, other

    return pair


def with_token(
    vector: Callable[[Tensor], Tensor], *, at: tuple[int, int] = (0, LENGTH - 1), first: bool = False
) -> Callable[[int], tuple[Inputs, Inputs]]:
    """Return a pair of states that differ in one token, made from what was there; `first` puts that one first."""

    def pair(seed: int) -> tuple[Inputs, Inputs]:
        before, after = states(seed), states(seed)
        after[at] = vector(after[at])
        return (after, before) if first else (before, after)

    return pair


def outliers(seed: int, scale: float = 30.0) -> tuple[Inputs, Inputs]:
    """Return a pair whose second gets two huge opposite future tokens; one of them scores high with query 1."""
    before = states(seed)
    before[0, 1] *= scale
    after = before.clone()
    huge = 40_000 * F.normalize(torch.randn(WIDTH, generator=_generator(seed + 1)), dim=0)
    after[0, -1], after[0, -2] = huge, -huge
    return before, after
