"""Building blocks of models that are given which tokens to keep, in all their parts."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from corpus.case import HEADS, LONGEST, VOCABULARY, WIDTH
from corpus.parts import Attention, Block, Decoder, Weigh, both_ways, made, right, softmax

Place = Callable[[Tensor, Tensor], Tensor]  # (ids, keep) -> positions
Mix = Callable[..., Tensor]  # ([layer,] x, keep) -> x


def columns(ids: Tensor, keep: Tensor) -> Tensor:
    """Positions as the columns of the padded tensor."""
    return torch.arange(ids.shape[1])


def counted(ids: Tensor, keep: Tensor) -> Tensor:
    """Positions as the number of real tokens before."""
    return (keep.long().cumsum(1) - 1).clamp(min=0)


def waves(ids: Tensor, unit: float = 1.0) -> Tensor:
    """Return sines and cosines of the column, as the first Transformer has them."""
    angle = torch.arange(ids.shape[1])[:, None] * unit / 100 ** (torch.arange(0, WIDTH, 2) / WIDTH)
    return torch.cat([angle.sin(), angle.cos()], -1)


class Placed(nn.Module):
    """Token embeddings plus learned positions, at places made from ids and keep; with no place, words alone."""

    def __init__(self, place: Place | None = counted) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.place = place

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        x = self.tokens(ids)
        return x if self.place is None else x + self.positions(self.place(ids, keep))


class Changed(Placed):
    """Words to which a function of (tokens, ids, keep) adds something."""

    def __init__(self, change: Callable[[Tensor, Tensor, Tensor], Tensor], place: Place | None = counted) -> None:
        super().__init__(place)
        self.change = change

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        return super().forward(ids, keep) + self.change(self.tokens(ids), ids, keep)


class Keeping(nn.Module):
    """A function of token vectors and which of them to keep, with a layer before those if it has one."""

    def __init__(self, mix: Mix, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.mix, self.layer = mix, layer

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        return self.mix(x, keep) if self.layer is None else self.mix(self.layer, x, keep)


class Padded(Decoder):
    """Layers, by default two, whose embedding, attention and mixer are all told which tokens to keep."""

    def __init__(self, *attentions: nn.Module, embed: nn.Module | None = None, mixer: nn.Module | None = None) -> None:
        super().__init__(*attentions, embed=embed or Placed(), mixer=mixer or Keeping(lambda x, keep: x))

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        return self.after_embedding(self.embed(ids, keep), keep, keep)

    def after_embedding(self, x: Tensor, seen: Tensor, keep: Tensor) -> Tensor:
        """Return the logits of embedded tokens; `seen` is what attention is told in the place of `keep`."""
        *first, last = self.layers
        for layer in first:
            x = layer(x, seen)
        return self.head(self.norm(last(self.mixer(x, keep), seen)))


def attending(*weighs: Weigh, place: Place | None = counted) -> Callable[[int], nn.Module]:
    """Return the maker of a model whose layers weigh so; one alone is used twice."""
    weighs = weighs * 2 if len(weighs) == 1 else weighs
    return made(lambda: Padded(*(Attention(weigh) for weigh in weighs), embed=Placed(place)))


def placing(place: Place | None, weigh: Weigh = right) -> Callable[[int], nn.Module]:
    """Return the maker of a model with these positions."""
    return attending(weigh, place=place)


def embedding(
    change: Callable[[Tensor, Tensor, Tensor], Tensor], weigh: Weigh = both_ways, place: Place | None = counted
) -> Callable[[int], nn.Module]:
    """Return the maker of a model that adds this to its words."""
    return made(lambda: Padded(Attention(weigh), Attention(weigh), embed=Changed(change, place)))


def encoding(mix: Mix, layer: Callable[[], nn.Module] | None = None) -> Callable[[int], nn.Module]:
    """Return the maker of a right encoder with this mixer between its layers."""
    return _mixing(mix, layer, both_ways)


def decoding(mix: Mix, layer: Callable[[], nn.Module] | None = None) -> Callable[[int], nn.Module]:
    """Return the maker of a right decoder with this mixer between its layers."""
    return _mixing(mix, layer, right)


def _mixing(mix: Mix, layer: Callable[[], nn.Module] | None, weigh: Weigh) -> Callable[[int], nn.Module]:
    return made(
        lambda: Padded(Attention(weigh), Attention(weigh), mixer=Keeping(mix, None if layer is None else layer()))
    )


def special(build: Callable[[], nn.Module], place: Place | None = None) -> Callable[[int], nn.Module]:
    """Return the maker of a model with two attentions made so, by default without other positions."""
    return made(lambda: Padded(build(), build(), embed=Placed(place)))


# ---- attention that counts ------------------------------------------------------------


def turned(x: Tensor, positions: Tensor, base: Tensor | float = 100.0) -> Tensor:
    """Turn pairs of features by angles that grow with the position, given as (token) or (batch, token)."""
    angle = positions[..., None].to(x) * base ** -torch.tensor([0.0, 0.5]).to(x)
    angle = angle[:, None] if angle.ndim == 3 else angle  # (batch, head, token, pair)
    one, other = x.chunk(2, -1)
    return torch.cat([one * angle.cos() - other * angle.sin(), one * angle.sin() + other * angle.cos()], -1)


class Rotary(Attention):
    """Rotary positions, counted by one rule for the queries and by one for the keys."""

    def __init__(self, query_place: Place, key_place: Place | None = None, weigh: Weigh = right) -> None:
        super().__init__(weigh)
        self.query_place, self.key_place = query_place, key_place or query_place

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor) -> Tensor:
        query_at, key_at = self.query_place(keep, keep), self.key_place(keep, keep)
        return super().attend(turned(query, query_at), turned(key, key_at), value, keep)


class RelativeBias(Attention):
    """A learned bias for each distance of query and key, counted like `Rotary`."""

    def __init__(self, query_place: Place, key_place: Place | None = None, weigh: Weigh = right) -> None:
        super().__init__(weigh)
        self.query_place, self.key_place = query_place, key_place or query_place
        self.bias = nn.Parameter(torch.randn(2 * LONGEST, HEADS))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor) -> Tensor:
        distance = self.query_place(keep, keep)[..., :, None] - self.key_place(keep, keep)[..., None, :]
        scores = query @ key.mT + self.bias[distance + LONGEST].movedim(-1, -3)
        return self.weigh(scores, keep, self.training) @ value


SLOPES = torch.tensor([0.5, 0.25])[:, None, None]


def biased(bias: Callable[[Tensor, Tensor], Tensor], weigh: Weigh = right) -> Weigh:
    """Return a way of weighing in which (scores, keep) first give a bias."""
    return lambda scores, keep, training: weigh(scores + bias(scores, keep).to(scores), keep, training)


def seeing(seen: Callable[[Tensor, Tensor], Tensor]) -> Weigh:
    """Return a way of weighing in which (scores, keep) give what is seen."""
    return lambda scores, keep, training: softmax(scores, seen(scores, keep))


# ---- encoder and decoder ---------------------------------------------------------------


class Translation(nn.Module):
    """One encoder layer and one decoder layer with cross-attention, both told which tokens to keep."""

    def __init__(self, *, memory: Weigh = both_ways, target: Weigh = right, place: Place = counted) -> None:
        super().__init__()
        self.source_embed, self.target_embed = Placed(), Placed(place)
        self.encoder, self.decoder = Block(Attention(both_ways)), Block(Attention(target))
        self.cross, self.head = Attention(memory), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor, source_keep: Tensor, target_keep: Tensor) -> Tensor:
        memory = self.remember(self.encoder(self.source_embed(source, source_keep), source_keep), source_keep)
        x = self.decoder(self.target_embed(target, target_keep), target_keep)
        return self.head(x + self.cross(x, source_keep, memory))

    def remember(self, memory: Tensor, keep: Tensor) -> Tensor:
        """Return what cross-attention reads."""
        return memory


# ---- what mixers share ------------------------------------------------------------------


def only(x: Tensor, keep: Tensor) -> Tensor:
    """Set padding to 0."""
    return x * keep[..., None]


def convolved(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x.mT).mT


def at(x: Tensor, position: Tensor) -> Tensor:
    """Return (batch, 1, width): the token at one position of each sample."""
    return x[torch.arange(len(x)), position][:, None]


def scanned(x: Tensor, keep_state: Tensor) -> Tensor:
    """Add up tokens in a state that keeps, at each step, this share of itself."""
    state, states = torch.zeros_like(x[:, 0]), []
    for token, share in zip(x.unbind(1), keep_state.unbind(1), strict=True):
        state = share[:, None] * state + token
        states.append(state)
    return torch.stack(states, 1)
