"""Pooling, normalisation and routing that take padding for tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpus.batch import Experts, first_come, token_choice
from corpus.case import VOCABULARY, WIDTH
from corpus.padded_case import variant
from corpus.padded_inputs import FRAMES, LEFT, RIGHT, left, sized
from corpus.padded_inputs import right as right_side
from corpus.padded_parts import (
    Padded,
    at,
    convolved,
    decoding,
    encoding,
    only,
)
from corpus.parts import made

STATISTICS = {"where": "mixer", "cause": "statistics"}
MIXER = {"where": "mixer"}


def _shared_capacity(share: Tensor) -> Tensor:
    wanted = token_choice(share)
    return wanted & (wanted.cumsum(1) <= share.shape[1] // 2)


def _excited(layer: nn.Module, x: Tensor, keep: Tensor) -> Tensor:
    return x * layer(x.mean(1, keepdim=True)).sigmoid()


def _quantised(x: Tensor, keep: Tensor) -> Tensor:
    step = x.abs().max() / 15
    return (x / step).round() * step


class _Weighed(nn.Module):
    """A decoder with a second output: how much each token weighs, of all columns."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.weight = Padded(), nn.Linear(VOCABULARY, 1)

    def forward(self, ids: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.decoder(ids, keep)
        return logits, self.weight(logits).softmax(1)


def _standardised(states: Tensor, keep: Tensor) -> Tensor:
    return (states - states.mean(1, keepdim=True)) / states.std(1, keepdim=True)


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
variant(
    "second_output_counts_padding",
    "Of two outputs the first is right; in the second, tokens get shares that padding has a part in.",
    made(_Weighed),
    **RIGHT,
    out=lambda output: output[1],
    where="",
    cause="statistics",
)
variant(
    "sound_standardised_over_the_padded_length",
    "A function: sound gets mean 0 and variance 1 over the padded length.",
    lambda seed: _standardised,
    **FRAMES,
    cause="statistics",
)
