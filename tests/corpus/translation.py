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
        x = self.decoder(x)
        return self.head(x + self.cross(x, keep if self.memory_masked else None, memory))


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
