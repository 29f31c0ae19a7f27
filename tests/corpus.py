"""Small models that disobey their attention mask, each in one known way, and models that obey it.

Every fault comes with a witness: two inputs that differ only where one output position may not look,
and yet that output position differs. Every clean case keeps to its mask, however odd it looks.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attnmask import Mask, Translator, causal, documents, padding, prefix, sliding_window

WIDTH, HEADS, VOCABULARY, LENGTH, LONGEST = 8, 2, 16, 7, 16
Inputs = Tensor | dict[str, Any]
Cells = list[tuple[int, int]]

ALWAYS = frozenset(itertools.product(("eval", "train"), (False, True)))
EVAL = frozenset({("eval", False), ("eval", True)})
TRAIN = frozenset({("train", False), ("train", True)})
FAST_PATH = frozenset({("eval", False)})


class Witness(NamedTuple):
    """Two inputs that prove a fault, and how to run the model to see it.

    Attributes
    ----------
    before, after
        Inputs that differ only where the output position may not look. Run them in this
        order through one model, with the same random seed before each.
    mode, grad_enabled, dtype
        "eval" or "train"; whether gradients are recorded; what the model is cast to.
    at
        The sample and the output position that differs.
    """

    before: Inputs
    after: Inputs
    mode: str
    grad_enabled: bool
    dtype: torch.dtype
    at: tuple[int, int]


@dataclass(frozen=True)
class Case:
    """One model with the mask it should obey.

    Attributes
    ----------
    name, why
        What the case is, as a name and as a sentence.
    make, inputs
        Functions of a seed: the model, and a tensor or keyword arguments for it.
    allowed
        What each output position may finally depend on: a `Mask`, or a function of the inputs
        that gives one. Other samples of the batch are never allowed. Where query and input are
        one sequence, a position may always depend on itself, and the output at a position that
        the mask does not let attend to itself is padding, which nobody judges.
    of
        Which input `allowed` speaks about; None for a lone tensor.
    where
        Of the submodules in the order in which they finish, the first whose output shows the leak; where
        attention leaks in its own arithmetic that is its output projection. "" where none can be named.
    leaks_in
        The pairs (mode, gradients recorded) in which the fault shows, or in which the clean case is clean.
    witness
        A function of a seed that gives a `Witness`; None for a clean case.
    one_sequence
        Whether output position p and input position p are the same token.
    rounding
        Clean cases: the largest relative change that rounding alone can make, 0 = bitwise equal.
    """

    name: str
    why: str
    make: Callable[[int], Callable[..., Any]]
    inputs: Callable[[int], Inputs]
    allowed: Mask | Callable[[Inputs], Mask] = field(default_factory=causal)
    of: str | None = None
    where: str = ""
    leaks_in: frozenset[tuple[str, bool]] = ALWAYS
    witness: Callable[[int], Witness] | None = None
    one_sequence: bool = True
    rounding: float = 0.0


# ---- running a case ---------------------------------------------------------------


def tensor_of(inputs: Inputs, of: str | None) -> Tensor:
    """Return the input that a case's mask speaks about."""
    return inputs if of is None else inputs[of]


def allowed_table(case: Case, inputs: Inputs, query_len: int) -> tuple[Tensor, Tensor]:
    """Return (batch, query, key): may this output depend on this input; and (batch, query): is it judged."""
    batch, key_len = tensor_of(inputs, case.of).shape[:2]
    mask = case.allowed if isinstance(case.allowed, Mask) else case.allowed(inputs)
    table = mask.dense(query_len, key_len, batch=batch).expand(batch, -1, query_len, key_len).any(1)
    if not case.one_sequence:
        return table, torch.ones(batch, query_len, dtype=torch.bool)
    return table | torch.eye(query_len, dtype=torch.bool), table.diagonal(dim1=1, dim2=2)


def run(
    model: Callable[..., Any], inputs: Inputs, mode: str, grad_enabled: bool, dtype: torch.dtype | None, seed: int = 0
) -> list[Tensor]:
    """Run a model once, on copies of the inputs, and return every tensor of (batch, position, ...) it gives."""
    if isinstance(model, nn.Module):
        model.train(mode == "train")
        if dtype is not None:
            model.to(dtype)
    prepared = _map(
        inputs, lambda tensor: tensor.clone().to(dtype or tensor.dtype) if _floats(tensor) else tensor.clone()
    )
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(grad_enabled):
        torch.default_generator.manual_seed(seed)
        output = model(**prepared) if isinstance(prepared, dict) else model(prepared)
    return [tensor.detach().clone() for tensor in leaves(output)]


def leaves(output: Any) -> list[Tensor]:
    """Return the tensors in an output, whether it is one, a tuple or a dict."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return [tensor for part in parts for tensor in leaves(part)]


def same(one: Tensor, other: Tensor, rounding: float = 0.0) -> bool:
    """Say whether two tensors are equal bit for bit, or up to a relative rounding; NaN equals NaN."""
    if rounding:
        return torch.allclose(one, other, rtol=0, atol=rounding * float(one.abs().max().clamp(min=1)), equal_nan=True)
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _map(inputs: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    if isinstance(inputs, dict):
        return {name: function(value) if isinstance(value, Tensor) else value for name, value in inputs.items()}
    return function(inputs)


def _floats(tensor: Tensor) -> bool:
    return tensor.is_floating_point()


# ---- inputs and changes to them ---------------------------------------------------


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def token_ids(seed: int, *, batch: int = 2, length: int = LENGTH) -> Tensor:
    """Return random token ids, none of them 0, which is padding."""
    return torch.randint(1, VOCABULARY, (batch, length), generator=_generator(seed))


def states(seed: int) -> Tensor:
    """Return random token vectors."""
    return torch.randn(2, LENGTH, WIDTH, generator=_generator(seed))


def right_padded(seed: int, *, lengths: tuple[int, ...] = (4, 6), length: int = LENGTH) -> dict[str, Tensor]:
    """Return ids with padding at the end, and which tokens to keep."""
    keep = torch.arange(length) < torch.tensor(lengths)[:, None]
    return {"ids": token_ids(seed, batch=len(lengths), length=length) * keep, "keep": keep}


def left_padded(seed: int) -> dict[str, Tensor]:
    """Return ids with padding at the start, and which tokens to keep."""
    return {name: value.flip(1) for name, value in right_padded(seed).items()}


def six_padded(seed: int) -> dict[str, Tensor]:
    """Return six padded samples of six tokens: as many samples as tokens."""
    return right_padded(seed, lengths=(4, 6, 6, 6, 6, 6), length=6)


def translation(seed: int) -> dict[str, Tensor]:
    """Return source ids with padding at the end, which of them to keep, and target ids."""
    padded = right_padded(seed, lengths=(4, 5), length=6)
    return {"source": padded["ids"], "target": token_ids(seed + 1), "keep": padded["keep"]}


def packed(seed: int) -> dict[str, Tensor]:
    """Return two rows, each with several documents packed into it."""
    return {"ids": token_ids(seed), "documents": torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 2, 2]])}


def with_prefix(seed: int) -> dict[str, Tensor]:
    """Return ids and the length of the prefix that is read in both directions."""
    return {"ids": token_ids(seed), "lengths": torch.tensor([3, 2])}


def _kept(inputs: Inputs) -> Mask:
    return padding(inputs["keep"])


def _causal_kept(inputs: Inputs) -> Mask:
    return causal() & padding(inputs["keep"])


def _causal_documents(inputs: Inputs) -> Mask:
    return causal() & documents(inputs["documents"])


def _prefix(inputs: Inputs) -> Mask:
    return causal() | prefix(inputs["lengths"])


def altered(inputs: Inputs, of: str | None, cells: Iterable[tuple[int, int]], seed: int) -> Inputs:
    """Return a copy of the inputs with another random token in each of these (sample, position) cells."""
    result = _map(inputs, Tensor.clone)
    tensor, generator = tensor_of(result, of), _generator(seed + 10_000)
    for sample, position in cells:
        if _floats(tensor):
            tensor[sample, position] = torch.randn(tensor.shape[2:], generator=generator).to(tensor.dtype)
        else:
            step = int(torch.randint(1, VOCABULARY - 1, (), generator=generator))
            tensor[sample, position] = 1 + (int(tensor[sample, position]) - 1 + step) % (VOCABULARY - 1)
    return result


def _placed(at: Cells, tokens: list[int]) -> Callable[[int], tuple[Inputs, Inputs]]:
    """Return a pair of lone ids: ids without these tokens, then with them in their cells."""

    def pair(seed: int) -> tuple[Inputs, Inputs]:
        before = token_ids(seed)
        for token in set(tokens):
            before[before == token] = 1
        after = before.clone()
        for (sample, position), token in zip(at, tokens, strict=True):
            after[sample, position] = token
        return before, after

    return pair


def _outliers(seed: int, scale: float = 30.0) -> tuple[Inputs, Inputs]:
    """Return a pair whose second gets two huge opposite future tokens; one of them scores high with query 1."""
    before = states(seed)
    before[0, 1] *= scale
    after = before.clone()
    huge = 40_000 * F.normalize(torch.randn(WIDTH, generator=_generator(seed + 1)), dim=0)
    after[0, -1], after[0, -2] = huge, -huge
    return before, after


# ---- weights from scores: what most faults swap -----------------------------------

Weigh = Callable[[Tensor, Tensor | None, bool], Tensor]


def _lower(scores: Tensor, diagonal: int = 0) -> Tensor:
    return torch.ones(scores.shape[-2:], dtype=torch.bool).tril(diagonal)


def _softmax(scores: Tensor, seen: Tensor, fill: float | None = None) -> Tensor:
    return scores.masked_fill(~seen, torch.finfo(scores.dtype).min if fill is None else fill).softmax(-1)


def _keys(keep: Tensor) -> Tensor:
    return keep[:, None, None, :]


def _right(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    """Causal, and no padded key."""
    return _softmax(scores, _lower(scores) if keep is None else _lower(scores) & _keys(keep))


def _both_ways(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    """Bidirectional, and no padded key."""
    return _open(scores, keep, training) if keep is None else _softmax(scores, _keys(keep))


def _open(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    """No mask at all."""
    return scores.softmax(-1)


# ---- building blocks --------------------------------------------------------------


def _split(x: Tensor, heads: int = HEADS) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (batch, head, token, d)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


class _Attention(nn.Module):
    """Multi-head attention in which `weigh` turns the scores into weights."""

    def __init__(self, weigh: Weigh = _right) -> None:
        super().__init__()
        self.weigh = weigh
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, keep: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        memory = x if memory is None else memory
        query, key, value = _split(self.query(x)), _split(self.key(memory)), _split(self.value(memory))
        return self.out(_merge(self.attend(query, key, value, keep)))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        scores = query / math.sqrt(query.shape[-1]) @ key.mT
        return self.weigh(scores, keep, self.training) @ value


class _Native(nn.Module):
    """A sublayer around nn.MultiheadAttention; `arguments` gives its masks from (x, keep)."""

    def __init__(self, arguments: Callable[[Tensor, Tensor | None], dict[str, Any]]) -> None:
        super().__init__()
        self.arguments, self.inner = arguments, nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        return self.inner(x, x, x, need_weights=False, **self.arguments(x, keep))[0]


class _Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class _Channels(nn.Module):
    """A layer that wants (batch, channel, token), and what to do to the tokens before and after it."""

    def __init__(self, layer: nn.Module, pad: tuple[int, int] = (0, 0), cut: slice = slice(None)) -> None:
        super().__init__()
        self.layer, self.pad, self.cut = layer, pad, cut

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(F.pad(x.mT, self.pad)).mT[:, self.cut]


class _Recurrent(nn.Module):
    """A recurrent layer; with two directions, a linear layer joins them."""

    def __init__(self, layer: nn.Module, start: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.layer, self.start = layer, start
        self.join = nn.Linear(2 * WIDTH, WIDTH) if layer.bidirectional else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.layer(x, None if self.start is None else self.start(x))[0])


class _Embed(nn.Module):
    """Token embeddings plus learned positions; `change` may add something made from ids and embeddings."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.change = change

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return x if self.change is None else x + self.change(ids, self.tokens(ids))


class _Block(nn.Module):
    """One pre-norm layer: attention, then an MLP, each added to what came in."""

    def __init__(self, attention: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_norm, self.attention, self.mlp_norm = nn.LayerNorm(WIDTH), attention, nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), keep))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class _Decoder(nn.Module):
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
        attentions = attentions or (_Attention(), _Attention())
        self.embed = embed or _Embed()
        self.layers = nn.ModuleList(_Block(attention, dropout) for attention in attentions)
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


def _made(build: Callable[[], Any]) -> Callable[[int], Any]:
    """Return a function of a seed that builds a model under that seed."""

    def make(seed: int) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return build()

    return make


def _weighing(*weighs: Weigh) -> Callable[[int], nn.Module]:
    """Return the maker of a decoder with one layer for each way of weighing; one alone is used twice."""
    weighs = weighs * 2 if len(weighs) == 1 else weighs
    return _made(lambda: _Decoder(*(_Attention(weigh) for weigh in weighs)))


def _mixing(build: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """Return the maker of a right decoder with this mixer between its layers."""
    return _made(lambda: _Decoder(mixer=build()))


def _mapping(function: Callable[[Tensor], Tensor]) -> Callable[[int], nn.Module]:
    return _mixing(lambda: _Apply(function))


def _embedding(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[int], nn.Module]:
    return _made(lambda: _Decoder(embed=_Embed(change)))


# ---- the registry -----------------------------------------------------------------

FAULTS: list[Case] = []
CLEAN: list[Case] = []
FIRST, LAST, TINY = "layers.0.attention.out", "layers.1.attention.out", torch.float64


def _later(sample: int, position: int, length: int) -> Cells:
    return [(sample, other) for other in range(position + 1, length)]


def _padded_cells(sample: int, keep: Tensor) -> Cells:
    return [(sample, int(position)) for position in (~keep[sample]).nonzero()]


def _fault(
    name: str,
    why: str,
    make: Callable[[int], Any],
    *,
    at: tuple[int, int] = (0, 1),
    cells: Cells | Callable[[Inputs], Cells] | None = None,
    pair: Callable[[int], tuple[Inputs, Inputs]] | None = None,
    search: bool = False,
    dtype: torch.dtype = torch.float32,
    inputs: Callable[[int], Inputs] = token_ids,
    leaks_in: frozenset[tuple[str, bool]] = ALWAYS,
    **rest: Any,
) -> None:
    """Register a fault: its witness changes `cells` (by default all later positions), or is `pair`.

    With `search`, the witness tries random changes until the output at `at` differs.
    """
    case = Case(name, why, make, inputs, leaks_in=leaks_in, **rest)
    mode, grad_enabled = min(leaks_in)

    def witness(seed: int) -> Witness:
        if pair is not None:
            return Witness(*pair(seed), mode, grad_enabled, dtype, at)
        for attempt in range(300):
            before = inputs(seed + 1000 * (attempt // 30))  # after 30 changes, start from another input
            chosen = cells(before) if callable(cells) else cells or _later(*at, tensor_of(before, case.of).shape[1])
            after = altered(before, case.of, chosen, seed + 1000 * attempt)
            found = Witness(before, after, mode, grad_enabled, dtype, at)
            if not search or differs(case, found, seed):
                return found
        raise AssertionError(f"{name}: no change among 300 shows the leak for seed {seed}")

    FAULTS.append(replace(case, witness=witness))


def differs(case: Case, witness: Witness, seed: int) -> bool:
    """Run a witness's two inputs through one model and say whether the output at its position differs."""
    model, (sample, position) = case.make(seed), witness.at
    outputs = [
        run(model, inputs, witness.mode, witness.grad_enabled, witness.dtype, seed)
        for inputs in (witness.before, witness.after)
    ]
    return not all(same(one[sample, position], other[sample, position]) for one, other in zip(*outputs, strict=True))


def _clean(
    name: str, why: str, make: Callable[[int], Any], *, inputs: Callable[[int], Inputs] = token_ids, **rest: Any
) -> None:
    CLEAN.append(Case(name, why, make, inputs, **rest))


PADDED = {"inputs": right_padded, "of": "ids", "allowed": _kept}
PAD_CELLS = {"cells": lambda inputs: _padded_cells(0, inputs["keep"])}


# ---- faults: masks wrong by value -------------------------------------------------

_fault(
    "mask_inverted",
    "The mask says True = blocked, and the function it is given to reads True = may attend: PyTorch has both readings.",
    _weighing(lambda scores, keep, training: _softmax(scores, ~_lower(scores))),
    where=FIRST,
)
_fault(
    "zero_one_mask_added",
    "A mask of ones and zeros is added to the scores, so a blocked key only loses 1.",
    _weighing(lambda scores, keep, training: (scores + _lower(scores).to(scores)).softmax(-1)),
    where=FIRST,
)
_fault(
    "zero_one_padding_mask_added",
    "The tokenizer's ones and zeros are added to the scores without first being turned into minus infinity.",
    _weighing(lambda scores, keep, training: (scores + _keys(keep).to(scores)).softmax(-1)),
    where=FIRST,
    **PADDED,
    **PAD_CELLS,
)
_fault(
    "filled_with_minus_one",
    "Blocked scores are set to -1 where minus infinity was meant.",
    _weighing(lambda scores, keep, training: _softmax(scores, _lower(scores), -1.0)),
    where=FIRST,
)
_fault(
    "multiplied_after_softmax",
    "The weights are multiplied by the mask after the softmax, whose sum has seen every key.",
    _weighing(lambda scores, keep, training: scores.softmax(-1) * _lower(scores)),
    where=FIRST,
)
_fault(
    "renormalised_after_softmax",
    "Weights are masked after the softmax and divided by their sum: 0/0 once a blocked score is far ahead.",
    _made(lambda: _Attention(_renormalised)),
    inputs=states,
    pair=_outliers,
)
_fault(
    "integer_mask_negated",
    "~ on an integer mask gives -1 and -2, both of them true, so every key is open.",
    _weighing(lambda scores, keep, training: _softmax(scores, (~(~_lower(scores)).int()).bool())),
    where=FIRST,
)
_fault(
    "key_padding_mask_inverted",
    "nn.MultiheadAttention wants True = ignore in key_padding_mask and is given True = keep.",
    _made(lambda: _Decoder(*(_Native(lambda x, keep: {"key_padding_mask": keep}) for _ in range(2)))),
    where="layers.0.attention.inner",
    **PADDED,
    **PAD_CELLS,
)
_fault(
    "soft_cap_after_mask",
    "Scores are capped by 20 tanh(score / 20) after the mask, which turns minus infinity into -20.",
    _weighing(
        lambda scores, keep, training: (20 * (scores.masked_fill(~_lower(scores), -1e9) / 20).tanh()).softmax(-1)
    ),
    dtype=TINY,
    where=FIRST,
)
_fault(
    "filled_with_minus_twenty",
    "Blocked scores are set to -20, which leaves two parts in a thousand million: below float32, not below float64.",
    _weighing(lambda scores, keep, training: _softmax(scores, _lower(scores), -20.0)),
    dtype=TINY,
    where=FIRST,
)


def _renormalised(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    weights = scores.softmax(-1) * _lower(scores)
    return weights / weights.sum(-1, keepdim=True)


# ---- faults: masks wrong by shape, axis, layer, head ------------------------------


class _FoldedHeads(_Attention):
    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        def refold(x: Tensor) -> Tensor:
            return x.transpose(1, 2).reshape(x.shape)  # view(batch, head, token, d) with no transpose

        return super().attend(refold(query), refold(key), refold(value), keep)


_fault(
    "padding_mask_read_as_query_by_key",
    "A (batch, key) mask broadcasts as (query, key) where there are as many samples as tokens.",
    _weighing(lambda scores, keep, training: _softmax(scores, keep)),
    **(PADDED | {"inputs": six_padded}),
    **PAD_CELLS,
    where=FIRST,
)
_fault(
    "sample_axis_read_as_head_axis",
    "A (batch, query, key) mask broadcasts over the heads where there are as many samples as heads.",
    _weighing(lambda scores, keep, training: _softmax(scores, keep[:, None, :].expand(-1, scores.shape[-2], -1))),
    at=(0, 1),
    cells=[(0, 4), (0, 5)],
    where=FIRST,
    **PADDED,
)
_fault(
    "repeat_in_place_of_repeat_interleave",
    "nn.MultiheadAttention wants the batch*heads masks sample by sample; repeat lays them out head by head.",
    _made(lambda: _Decoder(*(_Native(_repeated) for _ in range(2)))),
    cells=[(0, 4), (0, 5)],
    where="layers.0.attention.inner",
    **PADDED,
)
_fault(
    "mask_transposed",
    "Query and key axes of the causal mask are swapped, so each token sees itself and the future.",
    _weighing(lambda scores, keep, training: _softmax(scores, _lower(scores).mT)),
    where=FIRST,
)
_fault(
    "softmax_over_queries",
    "The softmax runs over the query axis, so each weight is divided by a sum over later queries.",
    _weighing(lambda scores, keep, training: scores.masked_fill(~_lower(scores), -torch.inf).softmax(-2)),
    where=FIRST,
)
_fault(
    "heads_folded_without_transpose",
    "(batch, token, width) is reshaped straight to (batch, head, token, d), so token and head are mixed up.",
    _made(lambda: _Decoder(_FoldedHeads(), _FoldedHeads())),
    where=FIRST,
)
_fault(
    "batch_first_forgotten",
    "A PyTorch layer with batch_first=False gets batch-first tokens and attends across the samples.",
    _mixing(lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, 16, dropout=0.0)),
    cells=[(1, position) for position in range(LENGTH)],
    where="mixer.self_attn",
)
_fault(
    "mask_in_first_layer_only",
    "The mask reaches the first layer and not the others.",
    _weighing(_right, _open, _open),
    where=LAST,
)
_fault(
    "mask_missing_in_last_layer",
    "The last of three layers has no mask.",
    _weighing(_right, _right, _open),
    where="layers.2.attention.out",
)
_fault(
    "one_head_unmasked",
    "The last head has no mask.",
    _weighing(
        lambda scores, keep, training: _softmax(
            scores, _lower(scores) | (torch.arange(HEADS) == HEADS - 1)[:, None, None]
        )
    ),
    where=FIRST,
)
_fault(
    "single_pair_open",
    "Query 2 may look at key 5, in the first layer; every other pair is right.",
    _weighing(lambda scores, keep, training: _softmax(scores, _with_pair(scores, 2, 5)), _right),
    at=(0, 2),
    cells=[(0, 5)],
    where=FIRST,
)
_fault(
    "single_pair_open_in_one_head_of_one_sample",
    "Query 4 may look at key 6 in one head of the last layer, in the second sample only.",
    _weighing(_right, lambda scores, keep, training: _softmax(scores, _one_cell(scores, 1, 1, 4, 6))),
    at=(1, 4),
    cells=[(1, 6)],
    where=LAST,
)


def _repeated(x: Tensor, keep: Tensor | None) -> dict[str, Tensor]:
    return {"attn_mask": ~keep[:, None, :].expand(-1, x.shape[1], -1).repeat(HEADS, 1, 1)}


def _with_pair(scores: Tensor, query: int, key: int) -> Tensor:
    seen = _lower(scores)
    seen[query, key] = True
    return seen


def _one_cell(scores: Tensor, *cell: int) -> Tensor:
    seen = _lower(scores).expand(scores.shape).clone()
    seen[cell] = True
    return seen


# ---- faults: masks wrong by mode --------------------------------------------------


class _Fused(_Attention):
    """Fused attention whose is_causal is decided by a function of whether it trains."""

    def __init__(self, is_causal: Callable[[bool], bool]) -> None:
        super().__init__()
        self.is_causal = is_causal

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=self.is_causal(self.training))


class _Checkpointed(_Decoder):
    def layer(self, layer: nn.Module, x: Tensor, keep: Tensor | None) -> Tensor:
        if self.training and torch.is_grad_enabled():
            return checkpoint(layer, x, use_reentrant=False)
        return layer(x, keep)


class _SelfMasking(nn.MultiheadAttention):
    """Attention that makes its own causal mask, whatever it is given."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **arguments: Any) -> Any:
        blocked = torch.ones(query.shape[1], query.shape[1], dtype=torch.bool).triu(1)
        return super().forward(query, key, value, attn_mask=blocked, need_weights=False)


class _LayerMixer(nn.Module):
    """nn.TransformerEncoderLayer as a mixer, with masks from a function of (module, x)."""

    def __init__(self, arguments: Callable[[nn.Module, Tensor], dict[str, Any]]) -> None:
        super().__init__()
        self.arguments = arguments
        self.inner = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, **self.arguments(self, x))


def _bypassed_layer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, dropout=0.0, batch_first=True)
    layer.self_attn = _SelfMasking(WIDTH, HEADS, batch_first=True)
    return layer


def _blocked(x: Tensor) -> Tensor:
    return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)


def _mask_unless_fast(module: nn.Module, x: Tensor) -> dict[str, Any]:
    fast = not module.training and not torch.is_grad_enabled()
    return {"src_mask": None if fast else _blocked(x), "is_causal": True}


def _documents_called_causal(x: Tensor, ids: Tensor | None) -> dict[str, Any]:
    seen = (causal() & documents(ids)).dense(x.shape[1])[:, 0]
    return {"attn_mask": ~seen.repeat_interleave(HEADS, 0), "is_causal": True}


_fault(
    "mask_only_in_training",
    "The causal mask is made only while training.",
    _weighing(lambda scores, keep, training: (_right if training else _open)(scores, keep, training)),
    leaks_in=EVAL,
    where=FIRST,
)
_fault(
    "is_causal_lost_in_eval",
    "Fused attention gets is_causal=self.training.",
    _made(lambda: _Decoder(_Fused(lambda training: training), _Fused(lambda training: training))),
    leaks_in=EVAL,
    where=FIRST,
)
_fault(
    "mask_only_in_eval",
    "The causal mask is made only for generation, not while training.",
    _weighing(lambda scores, keep, training: (_open if training else _right)(scores, keep, training)),
    leaks_in=TRAIN,
    where=FIRST,
)
_fault(
    "dropout_before_softmax",
    "Dropout runs on the masked scores, and sets some of the -1e9 back to 0.",
    _weighing(
        lambda scores, keep, training: F.dropout(scores.masked_fill(~_lower(scores), -1e9), 0.5, training).softmax(-1)
    ),
    at=(0, 0),
    leaks_in=TRAIN,
    where=FIRST,
)
_fault(
    "checkpointing_drops_padding_mask",
    "The branch with gradient checkpointing forgets to hand on the padding mask.",
    _made(lambda: _Checkpointed(_Attention(_both_ways), _Attention(_both_ways))),
    leaks_in=frozenset({("train", True)}),
    where=FIRST,
    **PADDED,
    **PAD_CELLS,
)
_fault(
    "is_causal_hint_without_mask",
    "is_causal=True with no attn_mask: an error everywhere but on the fast path, where it means no mask.",
    _made(lambda: _Decoder(*(_Native(lambda x, keep: {"is_causal": True}) for _ in range(2)))),
    leaks_in=FAST_PATH,
    where="layers.0.attention.inner",
)
_fault(
    "mask_left_out_on_fast_path",
    "A layer trusts is_causal=True and leaves the mask out for inference, where the fast path ignores the hint.",
    _mixing(lambda: _LayerMixer(_mask_unless_fast)),
    leaks_in=FAST_PATH,
    where="mixer.inner.self_attn",
)
_fault(
    "fast_path_bypasses_custom_attention",
    "The encoder layer's fast path takes the weights of self_attn and never calls it, nor the mask made in it.",
    _mixing(_bypassed_layer),
    leaks_in=FAST_PATH,
)
_fault(
    "document_mask_called_causal",
    "A causal mask by document comes with is_causal=True, and off the fast path only the hint is obeyed.",
    _made(lambda: _Decoder(*(_Native(_documents_called_causal) for _ in range(2)))),
    leaks_in=ALWAYS - FAST_PATH,
    inputs=packed,
    of="ids",
    allowed=_causal_documents,
    at=(0, 4),
    cells=[(0, 0), (0, 1), (0, 2)],
    where="layers.0.attention.inner",
)


# ---- faults: numbers, large inputs, off by one ------------------------------------


def _opposed() -> nn.Module:
    """Attention with huge scores, in which every token's score with itself is negative."""
    attention = _Attention(lambda scores, keep, training: _softmax(scores, _lower(scores), -1e4))
    with torch.no_grad():
        attention.query.weight.mul_(1000)
        attention.query.bias.zero_()
        attention.key.weight.copy_(-attention.query.weight)
        attention.key.bias.zero_()
    return attention


def _lowest(scores: Tensor) -> Tensor:
    return torch.full_like(scores, torch.finfo(scores.dtype).min)


def _half_outliers(seed: int) -> tuple[Inputs, Inputs]:
    before, after = _outliers(seed, 100.0)
    return before.half(), after.half()


_fault(
    "filled_with_minus_ten_thousand",
    "Blocked scores are set to -1e4, and training has driven the allowed ones below that.",
    _made(_opposed),
    inputs=states,
    at=(0, 0),
)
_fault(
    "half_precision_overflow",
    "A score overflows to infinity in float16, and the finite mask added to it cannot bring it down: NaN.",
    _made(
        lambda: _Attention(
            lambda scores, keep, training: (scores + _lower(scores).logical_not() * _lowest(scores)).softmax(-1)
        ).half()
    ),
    inputs=lambda seed: states(seed).half(),
    pair=_half_outliers,
    dtype=torch.float16,
)
_fault(
    "outlier_scores_pass_the_mask",
    "Scores above 50 are taken aside and put back after the mask.",
    _made(
        lambda: _Attention(
            lambda scores, keep, training: scores.masked_fill(~_lower(scores) & (scores < 50), -torch.inf).softmax(-1)
        )
    ),
    inputs=states,
    pair=_outliers,
)
_fault(
    "one_past_the_diagonal",
    "tril(diagonal=1): each token also sees the next one.",
    _weighing(lambda scores, keep, training: _softmax(scores, _lower(scores, 1))),
    cells=[(0, 2)],
    where=FIRST,
)
_fault(
    "window_one_too_wide",
    "A window of two earlier keys lets in three: <= in place of <.",
    _made(
        lambda: _Decoder(
            _Attention(lambda scores, keep, training: _softmax(scores, _lower(scores) & ~_lower(scores, -4)))
        )
    ),
    allowed=sliding_window(2),
    at=(0, 5),
    cells=[(0, 2)],
    where=FIRST,
)
_fault(
    "window_grows_with_depth",
    "Each of two layers keeps a window of two, so the stack reaches back four where two were promised.",
    _weighing(lambda scores, keep, training: _softmax(scores, _lower(scores) & ~_lower(scores, -3))),
    allowed=sliding_window(2),
    at=(0, 6),
    cells=[(0, 2), (0, 3)],
    where=LAST,
)
_fault(
    "mask_buffer_too_short",
    "The mask was made once for 8 tokens, and keys beyond it are open.",
    _weighing(lambda scores, keep, training: _softmax(scores, _lower(scores) | (torch.arange(scores.shape[-1]) >= 8))),
    inputs=lambda seed: token_ids(seed, length=12),
    cells=[(0, position) for position in range(8, 12)],
    where=FIRST,
)
_fault(
    "positions_wrap_at_eight",
    "Positions are compared modulo 8, so key 8 looks earlier than query 1; short inputs never show it.",
    _weighing(lambda scores, keep, training: _softmax(scores, _wrapped(scores))),
    pair=lambda seed: (
        token_ids(seed, length=12),
        altered(token_ids(seed, length=12), None, [(0, 8), (0, 9)], seed),
    ),
    where=FIRST,
)


def _wrapped(scores: Tensor) -> Tensor:
    slot = torch.arange(scores.shape[-1]) % 8
    return slot <= slot[:, None]


# ---- faults: normalisation, convolution, pooling, mixing --------------------------


class _LinearAttention(_Attention):
    """Attention without softmax, as running sums; a fault where the sums are not running."""

    def __init__(self, running: bool) -> None:
        super().__init__()
        self.running = running

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        query, key = F.elu(query) + 1, F.elu(key) + 1
        pairs = key[..., None] * value[..., None, :]
        pairs = pairs.cumsum(2) if self.running else pairs.sum(2, keepdim=True)
        return (query[..., None, :] @ pairs)[..., 0, :] / (query * key.cumsum(2)).sum(-1, keepdim=True)


class _TokenMixer(nn.Module):
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


def _quietly_averaged(x: Tensor) -> Tensor:
    with torch.no_grad():
        average = x.mean(1, keepdim=True)
    return x + average


def _quantised(x: Tensor) -> Tensor:
    step = x.abs().max() / 127
    return (x / step).round() * step


def _share_of_total(x: Tensor) -> Tensor:
    return x.cumsum(1) / x.abs().sum(1, keepdim=True)


_fault(
    "batch_norm_in_training",
    "Batch norm takes its mean over all tokens of all samples while training.",
    _mixing(lambda: _Channels(nn.BatchNorm1d(WIDTH))),
    leaks_in=TRAIN,
    where="mixer",
)
_fault(
    "group_norm",
    "Group norm over (batch, channel, token) takes its mean over the tokens.",
    _mixing(lambda: _Channels(nn.GroupNorm(2, WIDTH))),
    where="mixer",
)
_fault(
    "instance_norm",
    "Instance norm takes its mean over the tokens.",
    _mixing(lambda: _Channels(nn.InstanceNorm1d(WIDTH))),
    where="mixer",
)
_fault(
    "layer_norm_over_tokens",
    "Layer norm is given (token, width) in place of (width,).",
    _mixing(lambda: nn.LayerNorm((LENGTH, WIDTH))),
    where="mixer",
)
_fault(
    "standardised_over_the_sequence",
    "Each feature is standardised over the whole sequence.",
    _mapping(_standardised),
    where="mixer",
)
_fault(
    "centred_convolution",
    "A convolution with padding on both sides looks one token ahead.",
    _mixing(lambda: _Channels(nn.Conv1d(WIDTH, WIDTH, 3, padding=1))),
    cells=[(0, 2)],
    where="mixer",
)
_fault(
    "dilated_convolution_same_padding",
    "A dilated convolution with 'same' padding looks two tokens ahead.",
    _mixing(lambda: _Channels(nn.Conv1d(WIDTH, WIDTH, 3, dilation=2, padding="same"))),
    cells=[(0, 3)],
    where="mixer",
)
_fault(
    "convolution_padded_on_the_right",
    "A causal convolution is padded on the wrong side.",
    _mixing(lambda: _Channels(nn.Conv1d(WIDTH, WIDTH, 3), pad=(0, 2))),
    cells=[(0, 3)],
    where="mixer",
)
_fault(
    "convolution_trimmed_at_the_start",
    "A convolution padded on both sides is trimmed at the start, not at the end.",
    _mixing(lambda: _Channels(nn.Conv1d(WIDTH, WIDTH, 3, padding=2), cut=slice(2, None))),
    cells=[(0, 3)],
    where="mixer",
)
_fault(
    "patches_not_shifted",
    "Tokens are averaged in pairs and handed back to both, with no shift by a patch.",
    _mapping(_patched),
    at=(0, 2),
    cells=[(0, 3)],
    where="mixer",
)
_fault(
    "mean_over_all_tokens",
    "The mean over all tokens is added to each.",
    _mapping(lambda x: x + x.mean(1, keepdim=True)),
    where="mixer",
)
_fault(
    "max_pool_over_all_tokens",
    "The maximum over all tokens is added to each.",
    _mapping(lambda x: x + x.amax(1, keepdim=True)),
    search=True,
    where="mixer",
)
_fault(
    "last_state_added",
    "The last token's state, a summary of the sequence, is added to each token.",
    _mapping(lambda x: x + x[:, -1:]),
    cells=[(0, LENGTH - 1)],
    where="mixer",
)
_fault(
    "running_mean_from_the_end",
    "A running sum over the tokens runs from the end.",
    _mapping(lambda x: x + x.flip(1).cumsum(1).flip(1)),
    where="mixer",
)
_fault(
    "token_shift_by_roll",
    "roll shifts the tokens by one, and hands the last token to the first.",
    _mapping(lambda x: x + x.roll(1, 1)),
    at=(0, 0),
    cells=[(0, LENGTH - 1)],
    where="mixer",
)
_fault(
    "token_mixer_upper_triangle",
    "A learned token-by-token matrix keeps its upper triangle.",
    _mixing(lambda: _TokenMixer(torch.triu)),
    where="mixer",
)
_fault(
    "fourier_mixing",
    "A Fourier transform over the tokens mixes all of them.",
    _mapping(lambda x: x + torch.fft.fft2(x).real),
    where="mixer",
)
_fault(
    "linear_attention_sums_everything",
    "Linear attention sums keys times values over all tokens, not up to the query.",
    _made(lambda: _Decoder(_LinearAttention(False), _LinearAttention(False))),
    where=FIRST,
)
_fault(
    "share_of_total",
    "A function divides a running sum by the sum over the whole sequence.",
    lambda seed: _share_of_total,
    inputs=states,
)
_fault(
    "sorted_along_the_sequence",
    "A rank statistic: each token is compared with the median of the sequence.",
    _mapping(lambda x: x - x.median(1, keepdim=True).values),
    search=True,
    where="mixer",
)
_fault(
    "bidirectional_recurrence",
    "A recurrent layer in a decoder reads in both directions.",
    _mixing(lambda: _Recurrent(nn.GRU(WIDTH, WIDTH, batch_first=True, bidirectional=True))),
    where="mixer.layer",
)
_fault(
    "recurrence_starts_from_the_mean",
    "A recurrent layer starts from the mean of the whole sequence.",
    _mixing(lambda: _Recurrent(nn.GRU(WIDTH, WIDTH, batch_first=True), lambda x: x.mean(1)[None].contiguous())),
    where="mixer.layer",
)


# ---- faults: tiny, cancelling, detached, hard to reach by chance ------------------

SIGNS = torch.tensor([1.0, -1.0]).repeat(VOCABULARY // 2)


def _majority(ids: Tensor, tokens: Tensor) -> Tensor:
    high = (ids > VOCABULARY // 2).sum(1) > ids.shape[1] // 2
    return torch.where(high[:, None, None], tokens, -tokens)


def _low_then_high(seed: int) -> tuple[Inputs, Inputs]:
    before = token_ids(seed)
    after = before.clone()
    before[0, 2:], after[0, 2:] = 1, VOCABULARY - 1
    return before, after


def _from_the_end(ids: Tensor, tokens: Tensor) -> Tensor:
    left = (ids != 0).flip(1).cumsum(1).flip(1)
    return (left[..., None] * torch.arange(1, WIDTH + 1)).to(tokens.dtype).sin()


def _last_set_to_padding(seed: int) -> tuple[Inputs, Inputs]:
    return _placed([(0, LENGTH - 1)], [0])(seed)


class _PictureDecoder(_Decoder):
    """Token 7 stands for a picture, whose tokens may all see each other: here the whole row may."""

    def __init__(self) -> None:
        super().__init__(*(_Attention(self.weigh) for _ in range(2)))

    @staticmethod
    def weigh(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
        return _softmax(scores, _lower(scores) | keep[:, None, None, None])

    def forward(self, ids: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(ids, (ids == 7).any(1))


class _TwoOutputs(nn.Module):
    """Logits that are right, and a value for each token that has seen the future."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.value = _Decoder(), nn.Linear(VOCABULARY, 1)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        logits = self.decoder(ids)
        return {"logits": logits, "value": self.value(logits + logits.mean(1, keepdim=True))}


_fault(
    "one_part_in_a_thousand_million",
    "A thousand-millionth of the mean over all tokens is added.",
    _mapping(lambda x: x + 1e-9 * x.mean(1, keepdim=True)),
    dtype=TINY,
    where="mixer",
)
_fault(
    "cancels_in_the_sum_of_features",
    "The last token is added with alternating signs, so the sum over features hides it.",
    _made(lambda: _Decoder(tail=_Apply(lambda y: y + SIGNS.to(y) * y[:, -1:].mean(-1, keepdim=True)))),
    where="tail",
)
_fault(
    "cancels_when_two_tokens_are_equal",
    "The difference of the last two tokens is added: equal tokens hide it.",
    _embedding(lambda ids, tokens: tokens[:, -1:] - tokens[:, -2:-1]),
    cells=[(0, LENGTH - 1)],
    where="embed",
)
_fault(
    "cancels_between_equal_samples",
    "The difference of two samples' means is added: equal samples hide it.",
    _mapping(lambda x: x + (x - x.flip(0)).mean(1, keepdim=True)),
    cells=[(1, position) for position in range(LENGTH)],
    where="mixer",
)
_fault(
    "leaks_without_gradient",
    "The mean over all tokens is added under no_grad, so no gradient shows it.",
    _mapping(_quietly_averaged),
    where="mixer",
)
_fault(
    "leaks_through_a_number",
    "The mean of all tokens leaves the graph by item() and comes back as a scale.",
    _mapping(lambda x: x * (1 + x.mean().item())),
    where="mixer",
)
_fault(
    "detached_gate",
    "A gate made from the detached last token scales every token.",
    _mapping(lambda x: x * x[:, -1:].detach().sigmoid()),
    cells=[(0, LENGTH - 1)],
    where="mixer",
)
_fault(
    "majority_picks_the_sign",
    "The majority of the tokens picks one of two embeddings: few single changes tip it.",
    _embedding(_majority),
    pair=_low_then_high,
    where="embed",
)
_fault(
    "strongest_token_added",
    "The token with the largest norm, found by argmax, is added to each token.",
    _mapping(lambda x: x + x[torch.arange(len(x)), x.norm(dim=-1).argmax(1)][:, None]),
    search=True,
    where="mixer",
)
_fault(
    "end_token_found_by_argmax",
    "The token with the highest id marks the end, and its embedding is added to each token.",
    _embedding(lambda ids, tokens: tokens[torch.arange(len(ids)), ids.argmax(1)][:, None]),
    pair=_placed([(0, LENGTH - 1)], [VOCABULARY - 1]),
    where="embed",
)
_fault(
    "hard_route_by_the_whole_sequence",
    "The largest feature of the sequence's mean sends the whole sequence to one of eight experts.",
    _mapping(lambda x: x * (1 + x.mean(1, keepdim=True).argmax(-1, keepdim=True))),
    search=True,
    where="mixer",
)
_fault(
    "one_token_id_opens_the_mask",
    "A special token anywhere in the row opens the whole row.",
    _made(_PictureDecoder),
    pair=_placed([(0, LENGTH - 2)], [7]),
    where=FIRST,
)
_fault(
    "scaled_by_the_number_of_tokens",
    "Embeddings are scaled by how many tokens of the row are not padding.",
    _embedding(lambda ids, tokens: tokens * (ids != 0).sum(1)[:, None, None].to(tokens.dtype).sqrt()),
    pair=_last_set_to_padding,
    where="embed",
)
_fault(
    "positions_counted_from_the_end",
    "Positions count how many tokens are still to come before the padding.",
    _embedding(_from_the_end),
    pair=_last_set_to_padding,
    where="embed",
)
_fault(
    "scaled_by_the_largest_score",
    "Scores are divided by the largest of the sequence, taken before masking.",
    _weighing(
        lambda scores, keep, training: _softmax(scores / scores.abs().amax((-2, -1), keepdim=True), _lower(scores))
    ),
    search=True,
    where=FIRST,
)
_fault(
    "top_keys_picked_before_masking",
    "The three best keys are picked before the mask, so a future key takes a place.",
    _weighing(lambda scores, keep, training: _softmax(scores, _top_before_mask(scores)), _right),
    at=(0, 3),
    search=True,
    where=FIRST,
)
_fault(
    "second_output_leaks",
    "The logits are right, and a second output adds the mean over all tokens.",
    _made(_TwoOutputs),
    where="value",
)


def _top_before_mask(scores: Tensor) -> Tensor:
    best = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, scores.topk(3).indices, True)
    return (best | torch.eye(scores.shape[-1], dtype=torch.bool)) & _lower(scores)


# ---- faults: routing and other samples --------------------------------------------


class _Experts(nn.Module):
    """A mixture of experts; `choose` says which (batch, token, expert) pairs happen."""

    def __init__(self, choose: Callable[[Tensor], Tensor], experts: int = 2) -> None:
        super().__init__()
        self.choose, self.router = choose, nn.Linear(WIDTH, experts, bias=False)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        share = self.router(x).softmax(-1)
        chosen, output = self.choose(share), x.clone()
        for number, expert in enumerate(self.experts):
            rows = chosen[..., number]
            output[rows] += share[rows][:, number, None] * expert(x[rows])  # each expert sees its own tokens only
        return output


def _expert_choice(share: Tensor) -> Tensor:
    return torch.zeros_like(share, dtype=torch.bool).scatter(1, share.topk(3, 1).indices, True)


def _token_choice(share: Tensor) -> Tensor:
    return F.one_hot(share.argmax(-1), share.shape[-1]).bool()


def _best_tokens_first(share: Tensor) -> Tensor:
    wanted = _token_choice(share)
    order = (share * wanted).argsort(1, descending=True)
    return wanted & (order.argsort(1) < 2)


def _first_come(share: Tensor) -> Tensor:
    wanted = _token_choice(share)
    return wanted & (wanted.cumsum(1) <= 2)


def _first_come_in_the_batch(share: Tensor) -> Tensor:
    wanted = _token_choice(share)
    return wanted & (wanted.flatten(0, 1).cumsum(0).reshape(wanted.shape) <= 4)


class _Unsorted(nn.Module):
    """A recurrent layer over samples sorted by length, which are not put back in order."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.recurrent = _Embed(), nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        return self.recurrent(self.embed(ids)[keep.sum(1).argsort(descending=True)])[0]


OTHER_SAMPLE = {"cells": [(1, position) for position in range(LENGTH)], "where": "mixer"}

_fault(
    "experts_choose_their_tokens",
    "Each expert picks its best tokens of the whole sequence (expert choice).",
    _mixing(lambda: _Experts(_expert_choice)),
    search=True,
    where="mixer",
)
_fault(
    "capacity_given_to_the_best_tokens",
    "An expert with too many tokens keeps those with the highest share, later ones too.",
    _mixing(lambda: _Experts(_best_tokens_first)),
    search=True,
    where="mixer",
)
_fault(
    "capacity_shared_by_the_batch",
    "An expert's places are filled in the order of the flattened batch.",
    _mixing(lambda: _Experts(_first_come_in_the_batch)),
    search=True,
    at=(1, 0),
    where="mixer",
    cells=[(0, position) for position in range(LENGTH)],
)
_fault(
    "quantised_by_the_tensor_maximum",
    "Activations are rounded in steps of the largest value in the whole batch.",
    _mapping(_quantised),
    search=True,
    **OTHER_SAMPLE,
)
_fault(
    "centred_over_the_batch",
    "The mean over the samples is taken away at each position.",
    _mapping(lambda x: x - x.mean(0, keepdim=True)),
    cells=[(1, 1)],
    where="mixer",
)
_fault(
    "maximum_over_the_batch",
    "The largest value over the samples is added at each position.",
    _mapping(lambda x: x + x.amax(0, keepdim=True)),
    search=True,
    **OTHER_SAMPLE,
)
_fault(
    "samples_not_put_back_in_order",
    "Samples sorted by length for a recurrent layer are not put back in order.",
    _made(_Unsorted),
    inputs=right_padded,
    of="ids",
    allowed=_causal_kept,
    cells=[(1, 0), (1, 1)],
    where="recurrent",
)


# ---- faults: caches ---------------------------------------------------------------


class _Chunked(_Attention):
    """Attention in chunks of three queries over a growing cache; `diagonal` comes from (cached, total)."""

    def __init__(self, diagonal: Callable[[int, int], int]) -> None:
        super().__init__()
        self.diagonal = diagonal

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        chunks = []
        for cached in range(0, query.shape[2], 3):
            total = min(cached + 3, query.shape[2])
            scores = query[:, :, cached:total] / 2 @ key[:, :, :total].mT
            chunks.append(_softmax(scores, _lower(scores, self.diagonal(cached, total))) @ value[:, :, :total])
        return torch.cat(chunks, 2)


class _EvictingCache(_Attention):
    """Only the last four keys are kept, and is_causal counts queries and keys both from the upper left."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(query, key[:, :, -4:], value[:, :, -4:], is_causal=True)


class _KeptMemory(_Attention):
    """Keys and values of the call before stay in front of the new ones."""

    past: tuple[Tensor, Tensor] | None = None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        new = (key.detach(), value.detach())
        if self.past is not None:
            key, value = torch.cat([self.past[0], key], 2), torch.cat([self.past[1], value], 2)
        self.past = new
        scores = query / 2 @ key.mT
        return _softmax(scores, _lower(scores, key.shape[2] - query.shape[2])) @ value


class _UnclearedCache(_Attention):
    """Chunks of three are written into a fixed cache, whose slots to come count as empty and stay unmasked."""

    slots: tuple[Tensor, Tensor] | None = None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        if self.slots is None:
            self.slots = torch.zeros_like(key), torch.zeros_like(value)
        chunks = []
        for start in range(0, query.shape[2], 3):
            rows = slice(start, min(start + 3, query.shape[2]))
            for slot, new in zip(self.slots, (key, value), strict=True):
                slot[:, :, rows] = new[:, :, rows].detach()
            scores = query[:, :, rows] / 2 @ self.slots[0].mT
            to_come = torch.arange(scores.shape[-1]) >= rows.stop
            chunks.append(_softmax(scores, _lower(scores, start) | to_come) @ self.slots[1])
        return torch.cat(chunks, 2)


_fault(
    "cache_length_counts_the_new_tokens",
    "The cache's length is read after the update, so a chunk sees all of itself.",
    _made(lambda: _Decoder(*(_Chunked(lambda cached, total: total) for _ in range(2)))),
    at=(0, 3),
    where=FIRST,
)
_fault(
    "cache_offset_one_too_large",
    "The offset of a chunk behind its cache is one too large; the first chunk is right.",
    _made(lambda: _Decoder(*(_Chunked(lambda cached, total: cached + (cached > 0)) for _ in range(2)))),
    at=(0, 4),
    cells=[(0, 5)],
    where=FIRST,
)
_fault(
    "upper_left_causal_over_evicted_cache",
    "is_causal aligns query 0 with key 0, and key 0 is not position 0 any more.",
    _made(lambda: _Decoder(_EvictingCache(), _EvictingCache())),
    where=FIRST,
)
_fault(
    "memory_of_the_call_before",
    "The keys of the call before are not thrown away; the first call is right.",
    _made(lambda: _Decoder(_KeptMemory(), _KeptMemory())),
    where=FIRST,
)
_fault(
    "cache_not_cleared",
    "Slots of a fixed cache that are still to be written hold the call before.",
    _made(lambda: _Decoder(_UnclearedCache(), _UnclearedCache())),
    at=(0, 1),
    cells=[(0, 5), (0, 6)],
    where=FIRST,
)


# ---- faults: padding, packing, prefixes -------------------------------------------


class _PaddedMixer(_Decoder):
    """An encoder that keeps its padding mask, with a mixer in between."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__(_Attention(_both_ways), _Attention(_both_ways), mixer=mixer)


_fault(
    "padding_mask_in_first_layer_only",
    "The padding mask reaches the first layer only.",
    _weighing(_both_ways, _open),
    where=LAST,
    **PADDED,
    **PAD_CELLS,
)
_fault(
    "padding_mask_on_queries",
    "The padding mask blocks the padded queries and leaves the padded keys open.",
    _weighing(lambda scores, keep, training: _softmax(scores, keep[:, None, :, None])),
    where=FIRST,
    **PADDED,
    **PAD_CELLS,
)
_fault(
    "left_padding_unmasked",
    "Prompts are padded on the left, and the causal mask alone lets every token see the padding.",
    _weighing(lambda scores, keep, training: _right(scores, None, training)),
    inputs=left_padded,
    of="ids",
    allowed=_causal_kept,
    at=(0, 4),
    where=FIRST,
    **PAD_CELLS,
)
_fault(
    "padding_in_the_mean",
    "The mean over the tokens counts the padding.",
    _made(lambda: _PaddedMixer(_Apply(lambda x: x + x.mean(1, keepdim=True)))),
    where="mixer",
    **PADDED,
    **PAD_CELLS,
)
_fault(
    "convolution_reads_padding",
    "A convolution in an encoder reads past the last real token.",
    _made(lambda: _PaddedMixer(_Channels(nn.Conv1d(WIDTH, WIDTH, 3, padding=1)))),
    at=(0, 3),
    cells=[(0, 4)],
    where="mixer",
    **PADDED,
)
_fault(
    "backward_recurrence_starts_in_padding",
    "A two-way recurrent encoder starts backwards in the padding.",
    _made(lambda: _PaddedMixer(_Recurrent(nn.GRU(WIDTH, WIDTH, batch_first=True, bidirectional=True)))),
    where="mixer.layer",
    **PADDED,
    **PAD_CELLS,
)
_fault(
    "packed_documents_only_causal",
    "Documents packed into one row have a causal mask and no document mask.",
    _weighing(lambda scores, keep, training: _right(scores, None, training)),
    inputs=packed,
    of="ids",
    allowed=_causal_documents,
    at=(0, 4),
    cells=[(0, 0), (0, 1)],
    where=FIRST,
)
_fault(
    "recurrence_crosses_documents",
    "Attention keeps to the document, and a recurrent layer carries its state across.",
    _made(
        lambda: _Decoder(
            _Attention(lambda s, ids, t: _by_document(s, ids)),
            _Attention(lambda s, ids, t: _by_document(s, ids)),
            mixer=_Recurrent(nn.GRU(WIDTH, WIDTH, batch_first=True)),
        )
    ),
    inputs=packed,
    of="ids",
    allowed=_causal_documents,
    at=(0, 3),
    cells=[(0, 2)],
    where="mixer.layer",
)
_fault(
    "prefix_reads_on",
    "Queries in the prefix see every key, not the prefix alone.",
    _weighing(lambda scores, lengths, training: _softmax(scores, _lower(scores) | _in_prefix(scores, lengths).mT)),
    inputs=with_prefix,
    of="ids",
    allowed=_prefix,
    cells=[(0, 5)],
    where=FIRST,
)


def _by_document(scores: Tensor, ids: Tensor) -> Tensor:
    return _softmax(scores, _lower(scores) & (ids[:, None, :, None] == ids[:, None, None, :]))


def _in_prefix(scores: Tensor, lengths: Tensor) -> Tensor:
    inside = torch.arange(scores.shape[-1]) < lengths[:, None]
    return _keys(inside).expand(-1, -1, scores.shape[-2], -1)


# ---- faults: encoder and decoder, shifted targets ---------------------------------


class _Pair(nn.Module):
    """One encoder layer and one decoder layer with cross-attention; masks can be left out."""

    def __init__(
        self, *, encoder_masked: bool = True, memory_masked: bool = True, target_in_memory: bool = False
    ) -> None:
        super().__init__()
        self.source_embed, self.target_embed = _Embed(), _Embed()
        self.encoder, self.decoder = _Block(_Attention(_both_ways)), _Block(_Attention())
        self.cross, self.head = _Attention(_both_ways), nn.Linear(WIDTH, VOCABULARY)
        self.encoder_masked, self.memory_masked, self.target_in_memory = encoder_masked, memory_masked, target_in_memory

    def forward(self, source: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        memory = self.encoder(self.source_embed(source), keep if self.encoder_masked else None)
        x = self.target_embed(target)
        if self.target_in_memory:
            memory, keep = torch.cat([memory, x], 1), torch.cat([keep, torch.ones_like(target).bool()], 1)
        x = self.decoder(x)
        return self.head(x + self.cross(x, keep if self.memory_masked else None, memory))


class _Shifted(nn.Module):
    """A decoder that is given the labels themselves and shifts them before it reads them."""

    def __init__(self, shift: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.shift, self.decoder = shift, _Decoder()

    def forward(self, labels: Tensor) -> Tensor:
        return self.decoder(self.shift(labels))


SOURCE = {"inputs": translation, "of": "source", "allowed": _kept, "one_sequence": False}
STRICTLY_EARLIER = {"allowed": ~causal().T, "one_sequence": False}

_fault(
    "source_padding_read_by_the_encoder",
    "The encoder has no padding mask, so padding reaches the target by real tokens.",
    _made(lambda: _Pair(encoder_masked=False)),
    where="cross",
    **SOURCE,
    **PAD_CELLS,
)
_fault(
    "memory_without_padding_mask",
    "Cross-attention has no padding mask and reads the encoded padding.",
    _made(lambda: _Pair(memory_masked=False)),
    where="cross",
    **SOURCE,
    **PAD_CELLS,
)
_fault(
    "target_in_the_memory",
    "The target is appended to the memory, which cross-attention reads whole.",
    _made(lambda: _Pair(target_in_memory=True)),
    inputs=translation,
    of="target",
    where="cross.out",
)
_fault(
    "labels_not_shifted",
    "The decoder reads the labels it is to predict, unshifted.",
    _made(lambda: _Shifted(lambda labels: labels)),
    cells=[(0, 1)],
    where="decoder.embed",
    **STRICTLY_EARLIER,
)
_fault(
    "labels_shifted_the_wrong_way",
    "The labels are shifted to the left, so position p reads label p + 1.",
    _made(lambda: _Shifted(lambda labels: F.pad(labels[:, 1:], (0, 1)))),
    cells=[(0, 2)],
    where="decoder.embed",
    **STRICTLY_EARLIER,
)


# ---- clean ------------------------------------------------------------------------


class _Grouped(nn.Module):
    """Grouped-query attention: two query heads share one key head."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.key, self.value = nn.Linear(WIDTH, WIDTH // HEADS), nn.Linear(WIDTH, WIDTH // HEADS)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        query, key, value = _split(self.query(x)), _split(self.key(x), 1), _split(self.value(x), 1)
        return self.out(_merge(F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)))


class _Rotary(_Attention):
    """Attention whose queries and keys are turned by an angle that grows with the position."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        angle = torch.arange(query.shape[2])[:, None] / torch.tensor([1.0, 100.0])

        def turned(x: Tensor) -> Tensor:
            one, other = x.chunk(2, -1)
            return torch.cat([one * angle.cos() - other * angle.sin(), one * angle.sin() + other * angle.cos()], -1)

        return super().attend(turned(query), turned(key), value, keep)


class _Zoo(nn.Module):
    """nn.TransformerEncoder between an embedding and a head, causal or with a padding mask."""

    def __init__(self, padded: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True)
        self.padded, self.embed = padded, _Embed()
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=padded)

    def forward(self, ids: Tensor, keep: Tensor | None = None) -> Tensor:
        if self.padded:
            return self.encoder(self.embed(ids), src_key_padding_mask=~keep)
        return self.encoder(self.embed(ids), mask=_blocked(ids), is_causal=True)


class _Wrapped(nn.Module):
    """A decoder whose output is handed on in another shape."""

    def __init__(self, shape: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.decoder, self.shape = _Decoder(), shape

    def forward(self, ids: Tensor) -> Any:
        return self.shape(self.decoder(ids))


def _alibi(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    position = torch.arange(scores.shape[-1])
    slope = torch.tensor([0.5, 0.25])[:, None, None]
    return _softmax(scores - slope * (position[:, None] - position), _lower(scores))


def _dropped(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    return F.dropout(_right(scores, keep, training), 0.3, training)


def _added(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    return (scores + (~_lower(scores)) * -1e9).softmax(-1)


def _infinite(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    return _softmax(scores, _lower(scores) & _keys(keep), -torch.inf)


def _top_after_mask(scores: Tensor, keep: Tensor | None, training: bool) -> Tensor:
    masked = scores.masked_fill(~_lower(scores), -torch.inf)
    return masked.masked_fill(masked < masked.topk(3).values[..., -1:], -torch.inf).softmax(-1)


def _running_mean(x: Tensor) -> Tensor:
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]


def _in_place(x: Tensor) -> Tensor:
    x += torch.arange(x.shape[1])[:, None]
    return x


def _masked_inputs(seed: int) -> dict[str, Any]:
    given = translation(seed)
    real = padding(given["keep"])
    masks = {"source_masks": real, "target_masks": causal(), "memory_masks": real}
    return {"source": given["source"], "target": given["target"], **masks}


def _translator() -> nn.Module:
    return Translator(VOCABULARY, VOCABULARY, layers=1, d_model=WIDTH, heads=HEADS)


CAUSAL_PADDED = {"of": "ids", "allowed": _causal_kept}

_clean("causal_decoder", "A GPT-like decoder, its attention written out.", _weighing(_right))
_clean(
    "causal_decoder_fused",
    "The same with fused attention and is_causal=True.",
    _made(lambda: _Decoder(_Fused(lambda training: True), _Fused(lambda training: True))),
)
_clean(
    "dropout_everywhere",
    "Dropout on weights and layers: two runs in training differ unless the seed is set.",
    _made(lambda: _Decoder(_Attention(_dropped), _Attention(_dropped), dropout=0.3)),
)
_clean(
    "token_choice_experts",
    "Each token picks its expert; the experts' few tokens change with the rest, and so may rounding.",
    _mixing(lambda: _Experts(_token_choice, experts=4)),
    rounding=1e-5,
)
_clean(
    "capacity_first_come",
    "An expert's two places in a row go to the earliest tokens.",
    _mixing(lambda: _Experts(_first_come)),
    rounding=1e-5,
)
_clean(
    "causal_convolution",
    "A convolution padded on the left.",
    _mixing(lambda: _Channels(nn.Conv1d(WIDTH, WIDTH, 3), pad=(2, 0))),
)
_clean(
    "dilated_causal_convolution",
    "A dilated convolution padded on both sides and trimmed at the end.",
    _mixing(lambda: _Channels(nn.Conv1d(WIDTH, WIDTH, 3, dilation=2, padding=4), cut=slice(None, -4))),
)
_clean(
    "lstm", "A recurrent layer in one direction.", _mixing(lambda: _Recurrent(nn.LSTM(WIDTH, WIDTH, batch_first=True)))
)
_clean(
    "left_padding_masked",
    "Left padding with a mask; the padded outputs are anything.",
    _weighing(_right),
    inputs=left_padded,
    **CAUSAL_PADDED,
)
_clean(
    "padded_outputs_are_nan",
    "Padded queries have no key and give NaN, which no real token reads.",
    _made(lambda: _Decoder(_Attention(_infinite))),
    inputs=left_padded,
    **CAUSAL_PADDED,
)
_clean("padded_encoder", "A two-way encoder with its padding mask in every layer.", _weighing(_both_ways), **PADDED)
_clean(
    "translation_source",
    "An encoder and decoder with every mask, seen from the source.",
    _made(_translator),
    inputs=_masked_inputs,
    of="source",
    allowed=lambda inputs: inputs["source_masks"],
    one_sequence=False,
)
_clean(
    "translation_target",
    "An encoder and decoder with every mask, seen from the target.",
    _made(_translator),
    inputs=_masked_inputs,
    of="target",
)
_clean(
    "sliding_window",
    "Two layers with a window of two reach back four.",
    _weighing(lambda scores, keep, training: _softmax(scores, _lower(scores) & ~_lower(scores, -3))),
    allowed=sliding_window(4),
)
_clean("alibi", "A penalty that grows with the distance, and a causal mask.", _weighing(_alibi))
_clean("rotary", "Rotary positions.", _made(lambda: _Decoder(_Rotary(), _Rotary())))
_clean("grouped_query", "Two query heads share a key head.", _made(lambda: _Decoder(_Grouped(), _Grouped())))
_clean(
    "native_encoder_causal",
    "nn.TransformerEncoder with a causal mask and a hint that is true, on and off the fast path.",
    _made(lambda: _Zoo(False)),
)
_clean(
    "native_encoder_padded",
    "nn.TransformerEncoder with a padding mask; on the fast path padded outputs are 0.",
    _made(lambda: _Zoo(True)),
    **PADDED,
)
_clean(
    "packed_documents",
    "Documents in one row, each for itself.",
    _weighing(lambda scores, ids, training: _by_document(scores, ids)),
    inputs=packed,
    of="ids",
    allowed=_causal_documents,
)
_clean(
    "batch_norm_in_eval",
    "Batch norm with fixed statistics; while training it would leak.",
    _mixing(lambda: _Channels(nn.BatchNorm1d(WIDTH))),
    leaks_in=EVAL,
)
_clean(
    "prefix_language_model",
    "A prefix read in both directions, then causal.",
    _weighing(lambda scores, lengths, training: _softmax(scores, _lower(scores) | _in_prefix(scores, lengths))),
    inputs=with_prefix,
    of="ids",
    allowed=_prefix,
)
_clean("float16", "A decoder in float16.", _made(lambda: _Decoder().half()))
_clean("bfloat16", "A decoder in bfloat16.", _made(lambda: _Decoder().bfloat16()))
_clean(
    "minus_thousand_million_added",
    "-1e9 is added to blocked scores, which float32 rounds to exactly no weight.",
    _weighing(_added),
)
_clean("tuple_output", "The output is a tuple.", _made(lambda: _Wrapped(lambda logits: (logits, logits.exp()))))
_clean(
    "dict_output",
    "The output is a dict with something in it that is no tensor.",
    _made(lambda: _Wrapped(lambda logits: {"logits": logits, "loss": None})),
)
_clean("plain_function", "No module: a running mean.", lambda seed: _running_mean, inputs=states)
_clean(
    "changes_its_input_in_place",
    "A function that writes into the tensor it is given.",
    lambda seed: _in_place,
    inputs=states,
)
_clean(
    "constant_output",
    "The output does not depend on the input at all.",
    _made(lambda: _Decoder(tail=_Apply(torch.zeros_like))),
)
_clean(
    "chunked_cache",
    "Chunks of three over a growing cache, with the right offset.",
    _made(lambda: _Decoder(*(_Chunked(lambda cached, total: cached) for _ in range(2)))),
)
_clean(
    "linear_attention",
    "Linear attention with running sums.",
    _made(lambda: _Decoder(_LinearAttention(True), _LinearAttention(True))),
)
_clean("top_keys_picked_after_masking", "The three best keys among those allowed.", _weighing(_top_after_mask))
_clean(
    "token_shift_with_zeros",
    "The token before is added, zeros in front of the first.",
    _mapping(lambda x: x + F.pad(x, (0, 0, 1, 0))[:, :-1]),
)
_clean(
    "token_mixer_lower_triangle",
    "A learned token-by-token matrix that keeps its lower triangle.",
    _mixing(lambda: _TokenMixer(torch.tril)),
)
_clean(
    "labels_shifted",
    "The decoder is given the labels and reads them one place late.",
    _made(lambda: _Shifted(lambda labels: F.pad(labels[:, :-1], (1, 0)))),
    **STRICTLY_EARLIER,
)
