"""Models that ask for inputs of a certain layout: masks and positions beside the ids, or a fixed batch."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from corpus.case import HEADS, LENGTH
from corpus.inputs import causal_kept, left_padded
from corpus.parts import Attention, Decoder, made, softmax
from corpus.registry import FIRST, LAST, clean, fault


def positioned(seed: int) -> dict[str, Tensor]:
    """Return ids padded on the left, which to keep, and positions that count the real tokens."""
    given = left_padded(seed)
    return given | {"position_ids": (given["keep"].cumsum(1) - 1).clamp(min=0)}


class _Positioned(Decoder):
    """A decoder whose mask and embeddings follow position ids, of which it wants as many samples as of ids."""

    def __init__(self, seen: Callable[[Tensor], Tensor], tell: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.seen, self.tell = seen, tell

    def forward(self, ids: Tensor, keep: Tensor, position_ids: Tensor) -> Tensor:  # type: ignore[override]
        if not ids.shape == keep.shape == position_ids.shape:
            raise ValueError("ids, keep and position_ids are of different sizes")
        x = self.embed.tokens(ids) + self.embed.positions(position_ids)
        x = x if self.tell is None else x + self.tell(x)
        seen = self.seen(position_ids)[:, None] & keep[:, None, None]
        for layer in self.layers:
            layer.attention.weigh = lambda scores, keep, training: softmax(scores, seen)
            x = layer(x)
        return self.head(self.norm(x))


def _earlier(position_ids: Tensor, more: int = 0) -> Tensor:
    return position_ids[:, None, :] <= position_ids[:, :, None] + more


def _from_the_first(position_ids: Tensor) -> Tensor:
    return _earlier(position_ids[:1]).expand(len(position_ids), -1, -1)


class _FixedBatch(Attention):
    """Attention with a mask buffer for two samples, which refuses any other number of them."""

    def __init__(self, *open_cells: tuple[int, int, int, int]) -> None:
        super().__init__(self.masked)
        self.register_buffer("seen", torch.ones(2, HEADS, LENGTH, LENGTH, dtype=torch.bool).tril())
        for cell in open_cells:
            self.seen[cell] = True

    def masked(self, scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
        if scores.shape != self.seen.shape:
            raise ValueError(f"the mask is for {tuple(self.seen.shape)}, and the scores are {tuple(scores.shape)}")
        return softmax(scores, self.seen)


class _FixedMixer(nn.Module):
    """Adds to each of exactly two samples a share of the other, without a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        one, other = x  # another number of samples is an error
        return x + 1e-3 * torch.stack([other, one]).detach()


POSITIONED = {"inputs": positioned, "of": "ids", "allowed": causal_kept}

fault(
    "position_ids_one_too_far",
    "The mask made from position ids lets in the next position.",
    made(lambda: _Positioned(lambda position_ids: _earlier(position_ids, 1))),
    at=(0, 4),
    cells=[(0, 5)],
    where=FIRST,
    **POSITIONED,
)
fault(
    "position_ids_of_the_first_sample",
    "The mask is made from the first sample's position ids, all zero where that is padded.",
    made(lambda: _Positioned(_from_the_first)),
    at=(1, 1),
    cells=[(1, 2), (1, 3)],
    where=FIRST,
    **POSITIONED,
)
fault(
    "samples_mix_beside_position_ids",
    "A thousandth of the other samples' mean is added, in a model that wants position ids for every sample.",
    made(lambda: _Positioned(_earlier, lambda x: 1e-3 * (x.sum(0) - x).detach())),
    at=(0, 4),
    cells=[(1, 4)],
    **POSITIONED,
)
fault(
    "fixed_batch_with_one_cell_open",
    "A mask buffer for two samples, which refuses any other batch, has one cell open.",
    made(lambda: Decoder(_FixedBatch(), _FixedBatch((1, 0, 2, 3)))),
    at=(1, 2),
    cells=[(1, 3)],
    where=LAST,
)
fault(
    "fixed_batch_whose_samples_mix",
    "A model for exactly two samples adds a thousandth of each to the other, without a gradient.",
    made(lambda: Decoder(_FixedBatch(), _FixedBatch(), mixer=_FixedMixer())),
    cells=[(1, 1)],
    where="mixer",
)
clean(
    "position_ids_beside_the_ids",
    "Mask and embeddings follow position ids, of which the model wants as many samples as of ids.",
    made(lambda: _Positioned(_earlier)),
    **POSITIONED,
)
clean(
    "fixed_batch",
    "A mask buffer for two samples of seven tokens refuses any other batch.",
    made(lambda: Decoder(_FixedBatch(), _FixedBatch())),
)
