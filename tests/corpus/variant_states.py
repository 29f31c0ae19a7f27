"""Convolution and recurrence that read padding for tokens."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpus.case import WIDTH
from corpus.padded_case import variant
from corpus.padded_inputs import INSIDE, LEFT, RIGHT, left, sized
from corpus.padded_parts import (
    convolved,
    decoding,
    encoding,
    only,
    scanned,
)

CONVOLUTION = {"where": "mixer", "cause": "convolution"}
MIXER = {"where": "mixer"}


def _conv(**options: object) -> Callable[[], nn.Module]:
    return lambda: nn.Conv1d(WIDTH, WIDTH, 3, **options)


def _gru(**options: object) -> Callable[[], nn.Module]:
    return lambda: nn.GRU(WIDTH, WIDTH, batch_first=True, **options)


def _convolved_and_masked_at_first(layers: nn.Module, x: Tensor, keep: Tensor) -> Tensor:
    return x + convolved(layers[1], convolved(layers[0], only(x, keep)))


def _masked_if_several(layer: nn.Module, x: Tensor, keep: Tensor) -> Tensor:
    return x + layer(only(x, keep) if len(x) > 1 else x)[0]


def _both_ways(layer: nn.Module, x: Tensor, keep: Tensor) -> Tensor:
    return x + sum(layer(only(x, keep))[0].chunk(2, -1))


def _decayed(x: Tensor, keep: Tensor) -> Tensor:
    return x + scanned(only(x, keep), torch.full(x.shape[:2], 0.5).to(x))


variant(
    "convolution_past_the_last_token",
    "The convolution of a conformer reads the padding after the last token.",
    encoding(lambda layer, x, keep: x + convolved(layer, x), _conv(padding=1, groups=WIDTH)),
    "pytorch/audio#4205",
    "espnet/espnet#6660",
    "lucidrains/soundstorm-pytorch#26",
    **RIGHT,
    **CONVOLUTION,
)
variant(
    "causal_convolution_over_left_padding",
    "The short convolution before a state space reads the padding in front.",
    decoding(lambda layer, x, keep: x + convolved(layer, F.pad(x, (0, 0, 2, 0))), _conv()),
    "huggingface/transformers#32677",
    "AI-Hypercomputer/maxtext#5295",
    **LEFT,
    **CONVOLUTION,
)
variant(
    "second_convolution_without_mask",
    "The first of two convolutions reads masked tokens, and its bias fills the padding for the second.",
    encoding(
        _convolved_and_masked_at_first, lambda: nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, padding=1) for _ in "12")
    ),
    "NVIDIA-NeMo/Speech#13827",
    **RIGHT,
    **CONVOLUTION,
)
variant(
    "convolution_mirrored_at_the_padded_end",
    "The convolution mirrors what stands at the last column: tokens alone, and padding in the batch.",
    encoding(lambda layer, x, keep: x + convolved(layer, only(x, keep)), _conv(padding=1, padding_mode="reflect")),
    "NVIDIA-NeMo/Speech#13827",
    **RIGHT,
    **CONVOLUTION,
)
variant(
    "token_shift_reads_left_padding",
    "Each token is mixed with the one before, which is padding for the first.",
    decoding(lambda x, keep: x + F.pad(x, (0, 0, 1, -1))),
    "huggingface/transformers#27210",
    "Joluck/RWKV-PEFT#82",
    **LEFT,
    **MIXER,
)
variant(
    "recurrence_starts_in_left_padding",
    "The state of a recurrent layer runs through the padding in front.",
    decoding(lambda layer, x, keep: x + layer(x)[0], _gru()),
    **LEFT,
    where="mixer.layer",
)
variant(
    "recurrence_over_masked_left_padding",
    "Padding in front is set to 0, and the biases of the recurrent layer move the state all the same.",
    decoding(lambda layer, x, keep: x + layer(only(x, keep))[0], _gru()),
    **LEFT,
    where="mixer.layer",
)
variant(
    "backward_recurrence_over_masked_padding",
    "Backwards, a recurrent layer starts in the padding, whose zeros move the state by the biases.",
    encoding(_both_ways, _gru(bidirectional=True)),
    "pytorch/pytorch#517",
    "pytorch/pytorch#3662",
    **RIGHT,
    where="mixer.layer",
)
variant(
    "state_space_polluted_by_left_padding",
    "A state space model reads the padding in front into its state.",
    decoding(lambda x, keep: x + scanned(x, torch.full(x.shape[:2], 0.5).to(x))),
    "huggingface/transformers#31540",
    "state-spaces/mamba#66",
    **LEFT,
    **MIXER,
)
variant(
    "state_decays_in_interior_padding",
    "Padding adds nothing to the state, which decays at padded steps all the same.",
    decoding(_decayed),
    "fla-org/flash-linear-attention#1272",
    **INSIDE,
    **MIXER,
)
variant(
    "padding_mask_skipped_for_a_single_sample",
    "Padding is set to 0 only where several samples are given, and one is.",
    decoding(_masked_if_several, _gru(bias=False)),
    "huggingface/transformers#46773",
    **LEFT | {"inputs": sized(left, 4)},
    where="mixer.layer",
)
