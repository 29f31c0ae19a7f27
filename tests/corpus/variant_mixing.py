"""Pooling, normalisation, convolution, recurrence and routing that take padding for tokens."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpus.batch import Experts, first_come, token_choice
from corpus.case import WIDTH
from corpus.padded_case import variant
from corpus.padded_inputs import INSIDE, LEFT, RIGHT, left, sized
from corpus.padded_inputs import right as right_side
from corpus.padded_parts import (
    at,
    convolved,
    decoding,
    encoding,
    only,
    scanned,
)

STATISTICS = {"where": "mixer", "cause": "statistics"}
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


def _shared_capacity(share: Tensor) -> Tensor:
    wanted = token_choice(share)
    return wanted & (wanted.cumsum(1) <= share.shape[1] // 2)


def _excited(layer: nn.Module, x: Tensor, keep: Tensor) -> Tensor:
    return x * layer(x.mean(1, keepdim=True)).sigmoid()


def _quantised(x: Tensor, keep: Tensor) -> Tensor:
    step = x.abs().max() / 15
    return (x / step).round() * step


variant(
    "mean_pooling_over_padding",
    "The mean over all columns, padding included, is added to each token.",
    encoding(lambda x, keep: x + x.mean(1, keepdim=True)),
    "huggingface/sentence-transformers#2569",
    "huggingface/transformers#17463",
    "HKUDS/LightRAG#3675",
    **RIGHT,
    **STATISTICS,
)
variant(
    "max_pooling_over_padding",
    "The maximum over the tokens, with 0 at padding, is added to each token.",
    encoding(lambda x, keep: x + only(x, keep).amax(1, keepdim=True)),
    **LEFT | {"inputs": sized(left, 1, 2)},
    **STATISTICS,
)
variant(
    "class_token_in_the_first_column",
    "The token in the first column is added to each, and the padding is on the left.",
    encoding(lambda x, keep: x + x[:, :1]),
    "huggingface/sentence-transformers#3208",
    "StarlightSearch/EmbedAnything#213",
    **LEFT,
    **MIXER,
)
variant(
    "last_token_in_the_last_column",
    "The token in the last column is added to each, and the padding is on the right.",
    encoding(lambda x, keep: x + x[:, -1:]),
    "vgel/repeng#38",
    **RIGHT,
    **MIXER,
)
variant(
    "last_token_by_the_number_of_real_tokens",
    "The last token is looked up by the number of real tokens, and the padding is on the left.",
    encoding(lambda x, keep: x + at(x, keep.sum(1) - 1)),
    "huggingface/transformers#46782",
    "huggingface/peft#3629",
    **LEFT,
    **MIXER,
)
variant(
    "squeeze_and_excite_over_padding",
    "Channels are weighted by their mean over the padded length.",
    encoding(_excited, lambda: nn.Linear(WIDTH, WIDTH)),
    "NVIDIA-NeMo/Speech#3216",
    **RIGHT,
    **STATISTICS,
)
variant(
    "batch_norm_over_padding",
    "While training, batch norm takes its mean over padding too; one sample is given.",
    encoding(lambda layer, x, keep: convolved(layer, x), lambda: nn.BatchNorm1d(WIDTH)),
    "pytorch/pytorch#70529",
    "SeanNaren/deepspeech.pytorch#312",
    "Tomiinek/Multilingual_Text_to_Speech#81",
    **RIGHT | {"inputs": sized(right_side, 4)},
    mode="train",
    **STATISTICS,
)
variant(
    "group_norm_over_time",
    "Group norm takes its mean over the padded length.",
    encoding(lambda layer, x, keep: convolved(layer, only(x, keep)), lambda: nn.GroupNorm(WIDTH, WIDTH)),
    "huggingface/transformers#21534",
    "pytorch/audio#2242",
    **RIGHT,
    **STATISTICS,
)
variant(
    "instance_norm_over_padding",
    "Instance norm takes its mean over the padded length.",
    encoding(lambda layer, x, keep: x + convolved(layer, x), lambda: nn.InstanceNorm1d(WIDTH, affine=True)),
    "pytorch/pytorch#81985",
    **RIGHT,
    **STATISTICS,
)
variant(
    "layer_norm_over_tokens_and_features",
    "Layer norm runs over tokens and features together.",
    encoding(lambda x, keep: F.layer_norm(x, x.shape[1:])),
    **RIGHT,
    **STATISTICS,
)
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
    "The convolution mirrors the last column, which is a token alone and 0 in the batch.",
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
variant(
    "expert_places_taken_by_padding",
    "Padding in front takes the two places that an expert has for each sample.",
    decoding(lambda layer, x, keep: layer(x), lambda: Experts(first_come)),
    "NVIDIA/Megatron-LM#5542",
    "marin-community/marin#8953",
    **LEFT | {"inputs": sized(left, 2, 7)},
    where="mixer.layer",
)
variant(
    "expert_places_by_the_padded_length",
    "An expert has half as many places as there are columns.",
    decoding(lambda layer, x, keep: layer(x), lambda: Experts(_shared_capacity)),
    **RIGHT | {"inputs": sized(right_side, 2, 3, 4)},
    where="mixer.layer",
)
variant(
    "dynamic_quantisation_over_padding",
    "Numbers are rounded in steps of the largest of the whole batch, padding included.",
    encoding(_quantised),
    "microsoft/onnxruntime#8625",
    "Anush008/fastembed-rs#107",
    **RIGHT,
    **MIXER,
)
variant(
    "fourier_over_padding",
    "A Fourier transform runs over the padded length, whose padding is 0.",
    encoding(lambda x, keep: x + torch.fft.fft2(only(x, keep)).real),
    "huggingface/transformers#14359",
    "google-research/google-research#1270",
    **RIGHT,
    **MIXER,
)
