"""Encoders with decoders, and labels shifted inside."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmask import causal
from corpus.case import VOCABULARY, WIDTH
from corpus.inputs import kept, translation
from corpus.parts import Attention, Block, Decoder, Embed, both_ways, made
from corpus.registry import PAD_CELLS, fault


class _Pair(nn.Module):
    """One encoder layer and one decoder layer with cross-attention; masks can be left out."""

    def __init__(
        self, *, encoder_masked: bool = True, memory_masked: bool = True, target_in_memory: bool = False
    ) -> None:
        super().__init__()
        self.source_embed, self.target_embed = Embed(), Embed()
        self.encoder, self.decoder = Block(Attention(both_ways)), Block(Attention())
        self.cross, self.head = Attention(both_ways), nn.Linear(WIDTH, VOCABULARY)
        self.encoder_masked, self.memory_masked, self.target_in_memory = encoder_masked, memory_masked, target_in_memory

    def forward(self, source: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        memory = self.encoder(self.source_embed(source), keep if self.encoder_masked else None)
        x = self.target_embed(target)
        if self.target_in_memory:
            memory, keep = torch.cat([memory, x], 1), torch.cat([keep, torch.ones_like(target).bool()], 1)
        memory, keep = self.remember(memory, keep)
        x = self.decoder(x) + self.hint(source, memory, keep)
        return self.head(x + self.cross(x, keep if self.memory_masked else None, memory))

    def remember(self, memory: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Return what cross-attention reads, and which of it to keep."""
        return memory, keep

    def hint(self, source: Tensor, memory: Tensor, keep: Tensor) -> Tensor | float:
        """Return what else the target is told."""
        return 0.0


class _OtherMemory(_Pair):
    def remember(self, memory: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        return memory.roll(1, 0), keep.roll(1, 0)


class _OtherMask(_Pair):
    def remember(self, memory: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        return memory, keep.roll(1, 0)


class _SharedMask(_Pair):
    def remember(self, memory: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        return memory, keep.any(0, keepdim=True).expand_as(keep)


class _OtherEncoderPadding(_Pair):
    """Padded places of the memory are filled from the next sample, and read."""

    def remember(self, memory: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        return memory.where(keep[..., None], memory.roll(1, 0)), torch.ones_like(keep)


class _PaddingHint(_Pair):
    """The target is told the mean of the source's padding, times a factor and without a gradient."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def hint(self, source: Tensor, memory: Tensor, keep: Tensor) -> Tensor:
        return self.factor * (memory * ~keep[..., None]).detach().mean(1, keepdim=True)


class _LengthHint(_Pair):
    def hint(self, source: Tensor, memory: Tensor, keep: Tensor) -> Tensor:
        length = (source != 0).sum(1)[:, None, None].to(memory)
        return 0.1 * length * torch.linspace(-1, 1, WIDTH).to(memory)


class Shifted(nn.Module):
    """A decoder that is given the labels themselves and shifts them before it reads them."""

    def __init__(self, shift: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.shift, self.decoder = shift, Decoder()

    def forward(self, labels: Tensor) -> Tensor:
        return self.decoder(self.shift(labels))


SOURCE = {"inputs": translation, "of": "source", "allowed": kept, "one_sequence": False}
STRICTLY_EARLIER = {"allowed": ~causal().T, "one_sequence": False}

fault(
    "source_padding_read_by_the_encoder",
    "The encoder has no padding mask, so padding reaches the target by real tokens.",
    made(lambda: _Pair(encoder_masked=False)),
    where="cross",
    **SOURCE,
    **PAD_CELLS,
)
fault(
    "memory_without_padding_mask",
    "Cross-attention has no padding mask and reads the encoded padding.",
    made(lambda: _Pair(memory_masked=False)),
    where="cross",
    **SOURCE,
    **PAD_CELLS,
)
fault(
    "target_in_the_memory",
    "The target is appended to the memory, which cross-attention reads whole.",
    made(lambda: _Pair(target_in_memory=True)),
    inputs=translation,
    of="target",
    where="cross.out",
)
fault(
    "labels_not_shifted",
    "The decoder reads the labels it is to predict, unshifted.",
    made(lambda: Shifted(lambda labels: labels)),
    cells=[(0, 1)],
    where="decoder.embed",
    **STRICTLY_EARLIER,
)
fault(
    "labels_shifted_the_wrong_way",
    "The labels are shifted to the left, so position p reads label p + 1.",
    made(lambda: Shifted(lambda labels: F.pad(labels[:, 1:], (0, 1)))),
    cells=[(0, 2)],
    where="decoder.embed",
    **STRICTLY_EARLIER,
)


def _one_translation(seed: int) -> dict[str, Tensor]:
    return {name: value[:1] for name, value in translation(seed).items()}


OTHER_SOURCE = {"cells": [(1, place) for place in range(4)], **SOURCE}

fault(
    "source_padding_told_without_gradient",
    "Every mask is right, and the target is told the mean of the encoded padding, detached.",
    made(lambda: _PaddingHint(1.0)),
    where="cross",
    **SOURCE,
    **PAD_CELLS,
)
fault(
    "millionth_of_the_source_padding_told",
    "Every mask is right, and the target is told a millionth of the encoded padding, detached.",
    made(lambda: _PaddingHint(1e-6)),
    where="cross",
    dtype=torch.float64,
    **SOURCE,
    **PAD_CELLS,
)
fault(
    "source_length_counted_from_its_ids",
    "The length of the source is counted from its ids, padding that is not 0 included, and told to the target.",
    made(_LengthHint),
    missed="A suspect: a model may make its mask from the ids, padding included, which changes with them.",
    where="cross",
    **SOURCE,
    **PAD_CELLS,
)
fault(
    "memory_of_another_sample",
    "Cross-attention reads the memory, and its mask, of the sample before.",
    made(_OtherMemory),
    where="cross",
    **OTHER_SOURCE,
)
fault(
    "memory_of_another_sample_and_one_is_given",
    "Cross-attention reads the memory of the sample before, and one sample is given.",
    made(_OtherMemory),
    where="cross",
    shown_on=translation,
    **OTHER_SOURCE | {"inputs": _one_translation},
)
fault(
    "memory_mask_of_another_sample",
    "Cross-attention reads its own memory with the mask of the sample before.",
    made(_OtherMask),
    where="cross",
    cells=[(0, 4)],
    **SOURCE,
)
fault(
    "memory_mask_of_the_longest_sample",
    "Cross-attention reads as far as the longest source of the batch reaches.",
    made(_SharedMask),
    where="cross",
    cells=[(0, 4)],
    **SOURCE,
)
fault(
    "padded_memory_filled_from_another_sample",
    "Padded places of the memory hold the sample before, and are read.",
    made(_OtherEncoderPadding),
    where="cross",
    cells=[(1, 4)],
    **SOURCE,
)
