"""Building blocks: a right decoder, whose parts the cases swap for wrong ones."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpus.case import HEADS, LONGEST, VOCABULARY, WIDTH

Weigh = Callable[[Tensor, Tensor | None, bool], Tensor]


def lower(scores: Tensor, diagonal: int = 0) -> Tensor:
    return torch.ones(scores.shape[-2:], dtype=torch.bool).tril(diagonal)


def softmax(scores: Tensor, seen: Tensor, fill: float | None = None) -> Tensor:
    return scores.masked_fill(~seen, torch.finfo(scores.dtype).min if fill is None else fill).softmax(-1)


def by_key(keep: Tensor) -> Tensor:
    return keep[:, None, None, :]


def right(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    """Causal, and no padded key."""
    return softmax(scores, lower(scores) if keep is None else lower(scores) & by_key(keep))


def both_ways(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    """Bidirectional, and no padded key."""
    return unmasked(scores, keep, training) if keep is None else softmax(scores, by_key(keep))


def unmasked(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    """No mask at all."""
    return scores.softmax(-1)


# ---- building blocks --------------------------------------------------------------


def split_heads(x: Tensor, heads: int = HEADS) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (batch, head, token, d)


def merge_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention in which `weigh` turns the scores into weights."""

    def __init__(self, weigh: Weigh = right) -> None:
        super().__init__()
        self.weigh = weigh
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, keep: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        memory = x if memory is None else memory
        query, key, value = split_heads(self.query(x)), split_heads(self.key(memory)), split_heads(self.value(memory))
        return self.out(merge_heads(self.attend(query, key, value, keep)))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        scores = query / math.sqrt(query.shape[-1]) @ key.mT
        return self.weigh(scores, keep, self.training) @ value


class Native(nn.Module):
    """A sublayer around nn.MultiheadAttention; `arguments` gives its masks from (x, keep)."""

    def __init__(self, arguments: Callable[[Tensor, Tensor | None], dict[str, Any]]) -> None:
        super().__init__()
        self.arguments, self.inner = arguments, nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        return self.inner(x, x, x, need_weights=False, **self.arguments(x, keep))[0]


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Aware(Apply):
    """A function of the module itself, whose mode and attributes it may read, and of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Channels(nn.Module):
    """A layer that wants (batch, channel, token), and what to do to the tokens before and after it."""

    def __init__(self, layer: nn.Module, pad: tuple[int, int] = (0, 0), cut: slice = slice(None)) -> None:
        super().__init__()
        self.layer, self.pad, self.cut = layer, pad, cut

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(F.pad(x.mT, self.pad)).mT[:, self.cut]


class Recurrent(nn.Module):
    """A recurrent layer; with two directions, a linear layer joins them."""

    def __init__(self, layer: nn.Module, start: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.layer, self.start = layer, start
        self.join = nn.Linear(2 * WIDTH, WIDTH) if layer.bidirectional else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.layer(x, None if self.start is None else self.start(x))[0])


class Embed(nn.Module):
    """Token embeddings plus learned positions; `change` may add something made from ids and embeddings."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.change = change

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return x if self.change is None else x + self.change(ids, self.tokens(ids))


class Block(nn.Module):
    """One pre-norm layer: attention, then an MLP, each added to what came in."""

    def __init__(self, attention: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_norm, self.attention, self.mlp_norm = nn.LayerNorm(WIDTH), attention, nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), keep))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class Decoder(nn.Module):
    """Embedding, layers with an optional mixer before the last, norm, head, and an optional tail."""

    def __init__(
        self,
        *attentions: nn.Module,
        embed: nn.Module | None = None,
        mixer: nn.Module | None = None,
        tail: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        attentions = attentions or (Attention(), Attention())
        self.embed = embed or Embed()
        self.layers = nn.ModuleList(Block(attention, dropout) for attention in attentions)
        self.mixer, self.tail = mixer or nn.Identity(), tail or nn.Identity()
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: Tensor, keep: Tensor | None = None, **other: Tensor) -> Tensor:
        keep = next(iter(other.values()), keep)  # "lengths" or "documents" where "keep" would be
        x = self.embed(ids)
        for number, layer in enumerate(self.layers):
            if number == len(self.layers) - 1:
                x = self.mixer(x)
            x = self.layer(layer, x, keep)
        return self.tail(self.head(self.norm(x)))

    def layer(self, layer: nn.Module, x: Tensor, keep: Tensor | None) -> Tensor:
        return layer(x, keep)


def made(build: Callable[[], Any]) -> Callable[[int], Any]:
    """Return a function of a seed that builds a model under that seed."""

    def make(seed: int) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return build()

    return make


def weighing(*weighs: Weigh) -> Callable[[int], nn.Module]:
    """Return the maker of a decoder with one layer for each way of weighing; one alone is used twice."""
    weighs = weighs * 2 if len(weighs) == 1 else weighs
    return made(lambda: Decoder(*(Attention(weigh) for weigh in weighs)))


def mixing(build: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """Return the maker of a right decoder with this mixer between its layers."""
    return made(lambda: Decoder(mixer=build()))


def mapping(function: Callable[[Tensor], Tensor]) -> Callable[[int], nn.Module]:
    return mixing(lambda: Apply(function))


def aware(function: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[int], nn.Module]:
    return mixing(lambda: Aware(function))


def on_states(build: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """Return the maker of this over token vectors, and right attention after it."""
    return made(lambda: nn.Sequential(build(), Attention()))


def told(tokens: Tensor, sign: Tensor, position: int = 1) -> Tensor:
    """Return zeros like the tokens, but for one position, which is told a number for each sample."""
    news = torch.zeros_like(tokens)
    news[:, position] = sign.to(tokens)[:, None] * torch.linspace(-1, 1, WIDTH).to(tokens)
    return news


def neighbour(x: Tensor, query: int = 3) -> Tensor:
    """Return zeros like x, but for one token, which gets the next one, detached; short inputs have none."""
    news = torch.zeros_like(x)
    news[:, query : query + 1] = x.detach()[:, query + 1 : query + 2] if x.shape[1] > query + 1 else 0
    return news


def embedding(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[int], nn.Module]:
    return made(lambda: Decoder(embed=Embed(change)))
