"""Pooling, normalisation, convolution, recurrence and routing that leave the padding out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from corpus.batch import Experts, first_come, token_choice
from corpus.case import WIDTH
from corpus.padded_case import invariant
from corpus.padded_inputs import INSIDE, LEFT, RIGHT
from corpus.padded_parts import (
    Padded,
    at,
    convolved,
    counted,
    decoding,
    embedding,
    encoding,
    only,
    scanned,
    special,
)
from corpus.parts import Attention, made, softmax


def _mean(x: Tensor, keep: Tensor) -> Tensor:
    return only(x, keep).sum(1, keepdim=True) / keep.sum(1)[:, None, None]


def _maximum(x: Tensor, keep: Tensor) -> Tensor:
    return x.masked_fill(~keep[..., None], -torch.inf).amax(1, keepdim=True)


def _last(x: Tensor, keep: Tensor) -> Tensor:
    return at(x, (torch.arange(x.shape[1]) * keep).argmax(1))


def _instance_norm(x: Tensor, keep: Tensor) -> Tensor:
    centred = x - _mean(x, keep)
    return centred / (_mean(centred.square(), keep) + 1e-5).sqrt()


def _packed(layer: nn.Module, x: Tensor, keep: Tensor) -> Tensor:
    rows = pack_padded_sequence(x, keep.sum(1), batch_first=True, enforce_sorted=False)
    both = pad_packed_sequence(layer(rows)[0], batch_first=True, total_length=x.shape[1])[0]
    return x + sum(both.chunk(2, -1))


def _held(layer: nn.Module, x: Tensor, keep: Tensor) -> Tensor:
    """Run a cell that keeps its state where there is padding."""
    state, states = torch.zeros_like(x[:, 0]), []
    for token, real in zip(x.unbind(1), keep.unbind(1), strict=True):
        state = torch.where(real[:, None], layer(token, state), state)
        states.append(state)
    return x + torch.stack(states, 1)


def _state_space(x: Tensor, keep: Tensor) -> Tensor:
    return x + scanned(only(x, keep), torch.where(keep, 0.5, 1.0).to(x))


def _twice_convolved(layers: nn.Module, x: Tensor, keep: Tensor) -> Tensor:
    for layer in layers:
        x = x + convolved(layer, only(x, keep))
    return x


def _routed_real(layer: Experts, x: Tensor, keep: Tensor) -> Tensor:
    """Route each sample's real tokens for themselves."""
    x = x.clone()
    for row, real in zip(x, keep, strict=True):
        row[real] = layer(row[real][None])[0]
    return x


def _quantised(x: Tensor, keep: Tensor) -> Tensor:
    step = x.abs().amax(-1, keepdim=True) / 15
    return (x / step).round() * step


def _one_by_one(x: Tensor, keep: Tensor) -> Tensor:
    """Transform each sample's real tokens for themselves."""
    x = x.clone()
    for row, real in zip(x, keep, strict=True):
        row[real] += torch.fft.fft2(row[real]).real
    return x


class _LinearAttention(Attention):
    """Linear attention in both directions, whose padded keys are set to 0 after the feature map."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor) -> Tensor:
        query, key = F.elu(query) + 1, (F.elu(key) + 1) * keep[:, None, :, None]
        return query @ (key.mT @ value) / (query * key.sum(2, keepdim=True)).sum(-1, keepdim=True)


class _Windows(Attention):
    """Each window of four sees itself; what is missing to a multiple of four is masked."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor) -> Tensor:
        length, missing = query.shape[2], -query.shape[2] % 4
        query, key, value = (F.pad(tokens, (0, 0, 0, missing)).unflatten(2, (-1, 4)) for tokens in (query, key, value))
        seen = F.pad(keep, (0, missing)).unflatten(1, (-1, 4))[:, None, :, None]
        return (softmax(query @ key.mT, seen) @ value).flatten(2, 3)[:, :, :length]


class _Unpadded(Attention):
    """All real tokens are put into one row, each sample sees itself, and padding is put back."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor) -> Tensor:
        query, key, value = (tokens.transpose(1, 2)[keep].transpose(0, 1) for tokens in (query, key, value))
        sample, place = keep.nonzero().unbind(1)
        seen = (sample[:, None] == sample) & (place[:, None] >= place)
        output = query.new_zeros(*keep.shape, query.shape[0], query.shape[-1])
        output[keep] = (softmax(query @ key.mT, seen) @ value).transpose(0, 1)
        return output.transpose(1, 2)


invariant(
    "mean_pooling_of_real_tokens",
    "The mean over the real tokens is added to each.",
    encoding(lambda x, keep: x + _mean(x, keep)),
    **RIGHT,
)
invariant(
    "max_pooling_of_real_tokens",
    "The maximum over the real tokens is added to each.",
    encoding(lambda x, keep: x + _maximum(x, keep)),
    **LEFT,
)
invariant(
    "class_token_by_the_mask",
    "The first real token is added to each, with padding on the left.",
    encoding(lambda x, keep: x + at(x, keep.int().argmax(1))),
    **LEFT,
)
invariant(
    "last_token_by_the_mask",
    "The last real token is added to each, wherever the padding is.",
    encoding(lambda x, keep: x + _last(x, keep)),
    **INSIDE,
)
invariant(
    "words_summed_without_padding",
    "The sum of the real words is added to each.",
    embedding(lambda tokens, ids, keep: only(tokens, keep).sum(1, keepdim=True)),
    **RIGHT,
)
invariant(
    "batch_norm_with_fixed_statistics",
    "Batch norm in eval, with the statistics that it has.",
    encoding(lambda layer, x, keep: convolved(layer, x), lambda: nn.BatchNorm1d(WIDTH)),
    **RIGHT,
)
invariant(
    "instance_norm_of_real_tokens",
    "Each feature gets mean 0 and variance 1 over the real tokens.",
    encoding(_instance_norm),
    **RIGHT,
)
invariant(
    "convolutions_over_masked_tokens",
    "Padding is set to 0 before each convolution, as what stands outside is.",
    encoding(_twice_convolved, lambda: nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, padding=1) for _ in "12")),
    **RIGHT,
)
invariant(
    "causal_convolution_over_masked_left_padding",
    "Padding in front is set to 0, as what stands before the first token is.",
    decoding(
        lambda layer, x, keep: x + convolved(layer, F.pad(only(x, keep), (0, 0, 2, 0))),
        lambda: nn.Conv1d(WIDTH, WIDTH, 3),
    ),
    **LEFT,
)
invariant(
    "causal_convolution_padded_on_the_right",
    "A causal convolution never looks at the padding after the tokens.",
    decoding(lambda layer, x, keep: x + convolved(layer, F.pad(x, (0, 0, 2, 0))), lambda: nn.Conv1d(WIDTH, WIDTH, 3)),
    **RIGHT,
)
invariant(
    "token_shift_over_masked_left_padding",
    "Each token is mixed with the one before, and padding is 0.",
    decoding(lambda x, keep: x + F.pad(only(x, keep), (0, 0, 1, -1))),
    **LEFT,
)
invariant(
    "recurrence_over_packed_tokens",
    "A recurrent layer in both directions is given packed sequences.",
    encoding(_packed, lambda: nn.GRU(WIDTH, WIDTH, batch_first=True, bidirectional=True)),
    **RIGHT,
)
invariant(
    "recurrence_padded_on_the_right",
    "A recurrent layer in one direction meets the padding last.",
    decoding(lambda layer, x, keep: x + layer(x)[0], lambda: nn.LSTM(WIDTH, WIDTH, batch_first=True)),
    **RIGHT,
)
invariant(
    "recurrence_that_waits_in_padding",
    "A recurrent layer keeps its state where padding stands in between.",
    decoding(_held, lambda: nn.GRUCell(WIDTH, WIDTH)),
    **INSIDE,
)
invariant(
    "recurrence_without_bias_over_masked_left_padding",
    "A recurrent layer without biases stays at 0 as long as it is given 0.",
    decoding(lambda layer, x, keep: x + layer(only(x, keep))[0], lambda: nn.GRU(WIDTH, WIDTH, 1, False, True)),
    **LEFT,
)
invariant(
    "state_space_that_waits_in_padding",
    "The state takes nothing from padding, and does not decay there.",
    decoding(_state_space),
    **INSIDE,
)
invariant(
    "experts_by_token",
    "Each token picks its expert, padding too.",
    decoding(lambda layer, x, keep: layer(x), lambda: Experts(token_choice, experts=4)),
    **LEFT,
)
invariant(
    "expert_places_for_real_tokens",
    "An expert's two places for each sample go to the earliest real tokens.",
    decoding(_routed_real, lambda: Experts(first_come)),
    **LEFT,
)
invariant(
    "quantisation_of_each_token",
    "Numbers are rounded in steps of the largest of each token.",
    encoding(_quantised),
    **RIGHT,
)
invariant(
    "fourier_of_each_sample",
    "A Fourier transform runs over each sample's real tokens.",
    encoding(_one_by_one),
    **RIGHT,
)
invariant(
    "linear_attention_masks_keys",
    "Linear attention sets padded keys to 0.",
    special(_LinearAttention, place=counted),
    **RIGHT,
)
invariant(
    "windows_filled_and_masked",
    "Windows of four are filled up with zeros, which are masked.",
    special(_Windows, place=counted),
    **RIGHT,
)
invariant(
    "unpadded_for_attention",
    "The real tokens of all samples are put into one row for attention, and taken apart again.",
    made(lambda: Padded(_Unpadded(), _Unpadded())),
    **LEFT,
)
