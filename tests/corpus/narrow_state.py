"""Caches, states, convolutions and modes that hide what the rule allows; links as in narrow.py."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmask import causal, chunked, everything, prefix, sliding_window
from corpus.case import EVAL, FAST_PATH, LENGTH, LONGEST, RECORDED, TRAIN, WIDTH
from corpus.exact_case import (
    CAUSAL,
    TOP,
    PositionQueries,
    by_table,
    chain,
    cut,
    narrow,
    one_layer,
    same_group,
    through,
    window,
)
from corpus.inputs import samples
from corpus.mixing import LinearAttention
from corpus.parts import Apply, Attention, Channels, Decoder, Recurrent, lower, made, right, softmax, weighing
from corpus.state import Chunked

FIRST_SLOT_LOST = CAUSAL & (torch.arange(LONGEST) > 0) | torch.eye(LONGEST, dtype=torch.bool)


class _InChunks(nn.Module):
    """A layer that is run on chunks of three tokens, each time from its start."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        return torch.cat([self.layer(chunk) for chunk in x.split(3, 1)], 1)


class _SoftPrompt(Attention):
    """Two learned keys stand in front, and is_causal counts queries and keys both from the upper left."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.randn(1, 2, WIDTH))

    def forward(self, x: Tensor, keep: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        return super().forward(x, keep, torch.cat([self.prompt.expand(len(x), -1, -1), x], 1))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)


def _restarted() -> Tensor:
    row = torch.arange(LENGTH) % 3
    return torch.arange(LENGTH) <= row[:, None]


def _blocks_if_long(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    length = scores.shape[-1]
    return softmax(scores, lower(scores) & same_group(torch.arange(length) // (4 if length > 8 else length)))


# https://github.com/pytorch/executorch/pull/21749, https://github.com/hyprstream/hyprstream/pull/1521,
# https://github.com/gittensor-ai-lab/sparkinfer/issues/3
narrow(
    "causal_counted_from_the_chunk",
    "Queries come in chunks of three over a growing cache, and the causal mask counts them from 0 in each chunk.",
    made(lambda: Decoder(*(Chunked(lambda cached, total: 0) for _ in range(2)))),
    sees=through(_restarted(), _restarted()),
    where=TOP,
)
narrow(
    "offset_of_a_chunk_one_too_small",
    "The offset of a chunk behind its cache is one too small, so each query misses the last of its keys.",
    made(lambda: PositionQueries(Chunked(lambda cached, total: cached - (cached > 0)))),
    sees=cut(CAUSAL.tril(-1) | CAUSAL & (torch.arange(LONGEST) < 3)[:, None]),
    one_sequence=False,
    where="attention",
)
narrow(
    "soft_prompt_with_upper_left_causal",
    "Two learned prompt keys stand in front of the tokens' keys, and is_causal does not count them as earlier.",
    made(lambda: Decoder(_SoftPrompt(), _SoftPrompt())),
    sees=through(*[CAUSAL[:LENGTH, :LENGTH].tril(-2)] * 2),
    where=TOP,
)
narrow(
    "cache_dropped_between_chunks",
    "The prompt comes in chunks of three, and each chunk is read with an empty cache.",
    made(lambda: Decoder(*(_InChunks(Attention()) for _ in range(2)))),
    sees=causal() & chunked(3),
    where=TOP,
)
narrow(
    "first_cache_slot_overwritten",
    "The second token is written into the first slot of a static cache, so nobody after it sees the first token.",
    weighing(by_table(FIRST_SLOT_LOST)),
    sees=cut(FIRST_SLOT_LOST),
    where=TOP,
)
narrow(
    "ring_buffer_shorter_than_the_prompt",
    "A cache of five slots starts again at its first slot, and the tokens from before are gone.",
    one_layer(window(4)),
    sees=sliding_window(4),
    where=TOP,
)
# https://github.com/lablup/mlxcel/issues/1749
narrow(
    "recurrent_state_reset_at_each_chunk",
    "A long prompt comes in chunks of three, and the recurrent state starts at zero in each.",
    chain(lambda: _InChunks(Recurrent(nn.GRU(WIDTH, WIDTH, batch_first=True)))),
    sees=causal() & chunked(3),
    where="1",
)
narrow(
    "linear_attention_sums_reset_at_each_chunk",
    "Chunked linear attention adds up keys inside a chunk and does not carry the sum on.",
    chain(lambda: _InChunks(LinearAttention(True))),
    sees=causal() & chunked(3),
    where="1",
)
narrow(
    "lstm_in_one_direction",
    "An encoder's recurrent layer should run in both directions and runs forward only.",
    chain(lambda: Recurrent(nn.LSTM(WIDTH, WIDTH, batch_first=True))),
    allowed=everything(),
    sees=causal(),
    where="1",
)
narrow(
    "kernel_one_short",
    "A causal convolution over three tokens has a kernel of two.",
    chain(lambda: Channels(nn.Conv1d(WIDTH, WIDTH, 2), pad=(1, 0))),
    allowed=sliding_window(2),
    sees=sliding_window(1),
    where="1",
)
narrow(
    "convolutions_without_dilation",
    "The second of two convolutions should skip every other token, and its dilation was not passed on.",
    chain(
        lambda: nn.Sequential(
            Channels(nn.Conv1d(WIDTH, WIDTH, 2), pad=(1, 0)),
            nn.Tanh(),
            Channels(nn.Conv1d(WIDTH, WIDTH, 2), pad=(1, 0)),
        )
    ),
    allowed=sliding_window(3),
    sees=sliding_window(2),
    where="1.2",
)
narrow(
    "pooling_leaves_out_the_last_token",
    "Mean pooling cuts off a separator at the end that this tokenizer does not add.",
    chain(lambda: Apply(lambda x: x[:, :-1].mean(1, keepdim=True).expand_as(x))),
    allowed=everything(),
    sees=prefix(LENGTH - 1),
    where="1",
)
narrow(
    "local_attention_in_training",
    "Training uses a window to save memory, and in eval all is seen.",
    weighing(lambda scores, keep, training: (window(1) if training else right)(scores, keep, training)),
    sees=sliding_window(2),
    hides_in=TRAIN,
    where=TOP,
)
narrow(
    "cache_evicts_in_eval",
    "Training sees all, and in eval each layer's cache keeps two tokens.",
    weighing(lambda scores, keep, training: (right if training else window(1))(scores, keep, training)),
    sees=sliding_window(2),
    hides_in=EVAL,
    where=TOP,
)
narrow(
    "window_on_the_fast_path",
    "Only where it does not train and records no gradients, a faster kernel with a window of its own takes over.",
    weighing(
        lambda scores, keep, training: (right if training or torch.is_grad_enabled() else window(2))(
            scores, keep, training
        )
    ),
    sees=sliding_window(4),
    hides_in=FAST_PATH,
    where=TOP,
)
narrow(
    "window_where_gradients_are_recorded",
    "The kernel that has a backward pass gets a window from the config, the one without has none.",
    weighing(lambda scores, keep, training: (window(1) if torch.is_grad_enabled() else right)(scores, keep, training)),
    sees=sliding_window(2),
    hides_in=RECORDED,
    where=TOP,
)
narrow(
    "window_left_on_in_the_config",
    "A window from the config that the model was trained without applies to texts longer than it.",
    weighing(window(4)),
    inputs=samples(2, 12),
    sees=sliding_window(8),
    where=TOP,
)
narrow(
    "window_shows_on_longer_texts",
    "The same, and the inputs at hand are too short to show it.",
    weighing(window(4)),
    shown_on=samples(2, 12),
    sees=sliding_window(8),
    where=TOP,
)
narrow(
    "blocks_for_long_texts_do_not_look_back",
    "Texts of more than eight tokens are attended to in blocks of four, with no look at the blocks before.",
    weighing(_blocks_if_long),
    shown_on=samples(2, 10),
    sees=causal() & chunked(4),
    where=TOP,
)
