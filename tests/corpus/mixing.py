"""Normalisation, convolution, pooling and mixing over the tokens."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpus.case import LENGTH, TRAIN, WIDTH
from corpus.inputs import states
from corpus.parts import Attention, Channels, Decoder, Recurrent, made, mapping, mixing
from corpus.registry import FIRST, fault


class LinearAttention(Attention):
    """Attention without softmax, as running sums; a fault where the sums are not running."""

    def __init__(self, running: bool) -> None:
        super().__init__()
        self.running = running

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        query, key = F.elu(query) + 1, F.elu(key) + 1
        pairs = key[..., None] * value[..., None, :]
        pairs = pairs.cumsum(2) if self.running else pairs.sum(2, keepdim=True)
        return (query[..., None, :] @ pairs)[..., 0, :] / (query * key.cumsum(2)).sum(-1, keepdim=True)


class TokenMixer(nn.Module):
    """A learned matrix from tokens to tokens, of which a triangle is kept."""

    def __init__(self, triangle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.triangle = nn.Parameter(torch.randn(LENGTH, LENGTH) / 3), triangle

    def forward(self, x: Tensor) -> Tensor:
        return x + self.triangle(self.weight) @ x


def _standardised(x: Tensor) -> Tensor:
    return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5)


def _patched(x: Tensor) -> Tensor:
    pooled = F.avg_pool1d(x.mT, 2, ceil_mode=True).mT
    return x + pooled.repeat_interleave(2, 1)[:, : x.shape[1]]


def _share_of_total(x: Tensor) -> Tensor:
    return x.cumsum(1) / x.abs().sum(1, keepdim=True)


fault(
    "batch_norm_in_training",
    "Batch norm takes its mean over all tokens of all samples while training.",
    mixing(lambda: Channels(nn.BatchNorm1d(WIDTH))),
    leaks_in=TRAIN,
    where="mixer",
)
fault(
    "group_norm",
    "Group norm over (batch, channel, token) takes its mean over the tokens.",
    mixing(lambda: Channels(nn.GroupNorm(2, WIDTH))),
    where="mixer",
)
fault(
    "instance_norm",
    "Instance norm takes its mean over the tokens.",
    mixing(lambda: Channels(nn.InstanceNorm1d(WIDTH))),
    where="mixer",
)
fault(
    "layer_norm_over_tokens",
    "Layer norm is given (token, width) in place of (width,).",
    mixing(lambda: nn.LayerNorm((LENGTH, WIDTH))),
    where="mixer",
)
fault(
    "standardised_over_the_sequence",
    "Each feature is standardised over the whole sequence.",
    mapping(_standardised),
    where="mixer",
)
fault(
    "centred_convolution",
    "A convolution with padding on both sides looks one token ahead.",
    mixing(lambda: Channels(nn.Conv1d(WIDTH, WIDTH, 3, padding=1))),
    cells=[(0, 2)],
    where="mixer",
)
fault(
    "dilated_convolution_same_padding",
    "A dilated convolution with 'same' padding looks two tokens ahead.",
    mixing(lambda: Channels(nn.Conv1d(WIDTH, WIDTH, 3, dilation=2, padding="same"))),
    cells=[(0, 3)],
    where="mixer",
)
fault(
    "convolution_padded_on_the_right",
    "A causal convolution is padded on the wrong side.",
    mixing(lambda: Channels(nn.Conv1d(WIDTH, WIDTH, 3), pad=(0, 2))),
    cells=[(0, 3)],
    where="mixer",
)
fault(
    "convolution_trimmed_at_the_start",
    "A convolution padded on both sides is trimmed at the start, not at the end.",
    mixing(lambda: Channels(nn.Conv1d(WIDTH, WIDTH, 3, padding=2), cut=slice(2, None))),
    cells=[(0, 3)],
    where="mixer",
)
fault(
    "patches_not_shifted",
    "Tokens are averaged in pairs and handed back to both, with no shift by a patch.",
    mapping(_patched),
    at=(0, 2),
    cells=[(0, 3)],
    where="mixer",
)
fault(
    "mean_over_all_tokens",
    "The mean over all tokens is added to each.",
    mapping(lambda x: x + x.mean(1, keepdim=True)),
    where="mixer",
)
fault(
    "max_pool_over_all_tokens",
    "The maximum over all tokens is added to each.",
    mapping(lambda x: x + x.amax(1, keepdim=True)),
    search=True,
    where="mixer",
)
fault(
    "last_state_added",
    "The last token's state, a summary of the sequence, is added to each token.",
    mapping(lambda x: x + x[:, -1:]),
    cells=[(0, LENGTH - 1)],
    where="mixer",
)
fault(
    "running_mean_from_the_end",
    "A running sum over the tokens runs from the end.",
    mapping(lambda x: x + x.flip(1).cumsum(1).flip(1)),
    where="mixer",
)
fault(
    "token_shift_by_roll",
    "roll shifts the tokens by one, and hands the last token to the first.",
    mapping(lambda x: x + x.roll(1, 1)),
    at=(0, 0),
    cells=[(0, LENGTH - 1)],
    where="mixer",
)
fault(
    "token_mixer_upper_triangle",
    "A learned token-by-token matrix keeps its upper triangle.",
    mixing(lambda: TokenMixer(torch.triu)),
    where="mixer",
)
fault(
    "fourier_mixing",
    "A Fourier transform over the tokens mixes all of them.",
    mapping(lambda x: x + torch.fft.fft2(x).real),
    where="mixer",
)
fault(
    "linear_attention_sums_everything",
    "Linear attention sums keys times values over all tokens, not up to the query.",
    made(lambda: Decoder(LinearAttention(False), LinearAttention(False))),
    where=FIRST,
)
fault(
    "share_of_total",
    "A function divides a running sum by the sum over the whole sequence.",
    lambda seed: _share_of_total,
    inputs=states,
)
fault(
    "sorted_along_the_sequence",
    "A rank statistic: each token is compared with the median of the sequence.",
    mapping(lambda x: x - x.median(1, keepdim=True).values),
    search=True,
    where="mixer",
)
fault(
    "bidirectional_recurrence",
    "A recurrent layer in a decoder reads in both directions.",
    mixing(lambda: Recurrent(nn.GRU(WIDTH, WIDTH, batch_first=True, bidirectional=True))),
    where="mixer.layer",
)
fault(
    "recurrence_starts_from_the_mean",
    "A recurrent layer starts from the mean of the whole sequence.",
    mixing(lambda: Recurrent(nn.GRU(WIDTH, WIDTH, batch_first=True), lambda x: x.mean(1)[None].contiguous())),
    where="mixer.layer",
)
