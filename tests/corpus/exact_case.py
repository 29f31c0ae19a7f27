"""Cases about exactness: models that hide what their mask allows, and models that reach all of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attnmask import Mask, graph
from corpus.case import ALWAYS, LENGTH, LONGEST, VOCABULARY, WIDTH, Case, Inputs, tensor_of
from corpus.inputs import token_ids
from corpus.parts import Attention, Decoder, Embed, Weigh, lower, made, softmax

Triples = list[tuple[int, int, int]]
Sees = Mask | Callable[[Inputs], Mask]
TOP, NEXT = "layers.0.attention", "layers.1.attention"
CAUSAL = torch.ones(LONGEST, LONGEST, dtype=torch.bool).tril()


@dataclass(frozen=True)
class ExactCase(Case):
    """One model with the mask of which it should reach every pair.

    Of what `Case` has, `where` is the submodule whose attention or mixer hides the pairs, the first one where several
    do; `leaks_in` are the modes in which a right model is right.

    Attributes
    ----------
    hidden
        A function of the inputs that gives every (sample, output, input) which the mask allows and the model never
        reaches; all other allowed pairs of judged outputs it does reach. None for a right model.
    hides_in
        The pairs (mode, gradients recorded) in which they are hidden; in the others every allowed pair is reached.
    shown_on
        A function of a seed: inputs on which `hidden` holds, where those that an audit is given hide nothing.
    leaks
        Whether the model shows something that the mask forbids as well.
    fits
        An attnmask rule for what the model really does, as its repr; "" where none is obvious.
    dtype
        What the proof casts the model and its inputs to; None = neither is cast.
    """

    hidden: Callable[[Inputs], Triples] | None = None
    hides_in: frozenset[tuple[str, bool]] = ALWAYS
    shown_on: Callable[[int], Inputs] | None = None
    leaks: bool = False
    fits: str = ""
    dtype: torch.dtype | None = torch.float64

    def asked(self, inputs: Inputs) -> dict[str, Any]:
        """Return the arguments with which `audit` is asked about this case, the model aside."""
        modes = ("eval", "train") if self.hidden else sorted({mode for mode, _ in self.leaks_in})
        return super().asked(inputs) | {"modes": modes}

    def wanted(self, inputs: Inputs) -> Tensor:
        """Return (batch, query, key): the pairs that the mask allows, of outputs that are judged."""
        key_len = tensor_of(inputs, self.of).shape[1]
        query_len = key_len if self.one_sequence else LENGTH
        table = _table(self.mask(inputs), inputs, self.of, query_len)
        return table & table.diagonal(dim1=1, dim2=2)[..., None] if self.one_sequence else table


NARROW: list[ExactCase] = []
REACHED: list[ExactCase] = []


def narrow(
    name: str,
    why: str,
    make: Callable[[int], Any],
    *,
    sees: Sees,
    inputs: Callable[[int], Inputs] = token_ids,
    fits: str | None = None,
    **rest: Any,
) -> None:
    """Register a model that hides too much: `sees` is what its outputs depend on through all of its layers."""
    obvious = repr(sees) if isinstance(sees, Mask) and "[" not in repr(sees) else ""

    def hidden(given: Inputs) -> Triples:
        wanted = case.wanted(given)
        seen = sees if isinstance(sees, Mask) else sees(given)
        return [tuple(cell) for cell in (wanted & ~_table(seen, given, case.of, wanted.shape[1])).nonzero().tolist()]

    case = ExactCase(name, why, make, inputs, hidden=hidden, fits=obvious if fits is None else fits, **rest)
    NARROW.append(case)


def reached(
    name: str, why: str, make: Callable[[int], Any], *, inputs: Callable[[int], Inputs] = token_ids, **rest: Any
) -> None:
    """Register a right model in which every allowed pair is reached."""
    REACHED.append(ExactCase(name, why, make, inputs, **rest))


def _table(mask: Mask, inputs: Inputs, of: str | None, query_len: int) -> Tensor:
    batch, key_len = tensor_of(inputs, of).shape[:2]
    return mask.dense(query_len, key_len, batch=batch).expand(batch, -1, query_len, key_len).any(1)


# ---- building blocks --------------------------------------------------------------


def window(left: int, right: int = 0, step: int = 1) -> Weigh:
    """Return attention over a window, of which every step-th key counts."""

    def weigh(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
        position = torch.arange(scores.shape[-1])
        seen = lower(scores, right) & ~lower(scores, -left - 1)
        return softmax(scores, seen & ((position[:, None] - position) % step == 0))

    return weigh


def by_table(table: Tensor) -> Weigh:
    """Return attention whose mask is cut from this (query, key) table."""
    return lambda scores, keep, training: softmax(scores, table[: scores.shape[-2], : scores.shape[-1]])


def cut(table: Tensor) -> Mask:
    """Return the mask that by_table makes of this table for inputs of the usual length."""
    return graph(table[:LENGTH, :LENGTH])


def same_group(groups: Tensor) -> Tensor:
    """Return (..., query, key): are both in one group."""
    return groups[..., :, None] == groups[..., None, :]


def through(*tables: Tensor) -> Mask:
    """Return what layers with these (query, key) tables and residual paths see together."""
    seen = torch.eye(tables[0].shape[-1])
    for table in tables:
        seen = (table.float() + torch.eye(table.shape[-1])) @ seen
    return graph(seen > 0)


def one_layer(weigh: Weigh) -> Callable[[int], nn.Module]:
    """Return the maker of a decoder of one layer, in which no second layer makes up for what the first one hides."""
    return made(lambda: Decoder(Attention(weigh)))


def chain(build: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """Return the maker of an embedding, this mixer with no path around it, and a head."""
    return made(lambda: nn.Sequential(Embed(), build(), nn.Linear(WIDTH, VOCABULARY)))


class Captioner(nn.Module):
    """Cross-attention from target tokens to source tokens that no encoder has mixed; at most `cut` of them are read."""

    def __init__(self, weigh: Weigh, cut: int | None = None) -> None:
        super().__init__()
        self.source_embed, self.target_embed = Embed(), Embed()
        self.cross, self.head, self.cut = Attention(weigh), nn.Linear(WIDTH, VOCABULARY), cut

    def forward(self, source: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        x, memory = self.target_embed(target), self.source_embed(source[:, : self.cut])
        return self.head(x + self.cross(x, keep[:, : self.cut], memory))


class PositionQueries(nn.Module):
    """Attention whose queries are made of positions alone: what a query's own token says comes through its key."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.embed, self.attention, self.head = Embed(), attention, nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        places = self.embed.positions(torch.arange(ids.shape[1])).expand(len(ids), -1, -1)
        return self.head(self.attention(places, None, self.embed(ids)))
