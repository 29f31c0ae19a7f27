"""The same ideas again, as plain Python loops: slow, obvious, and written without the package."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from attnmask import (
    Mask,
    causal,
    chunked,
    documents,
    everything,
    from_dense,
    graph,
    padding,
    per_head,
    prefix,
    sliding_window,
)

Rule = Callable[[int, int, int, int], bool]


@dataclass(frozen=True)
class Sizes:
    batch: int
    heads: int
    query_len: int
    key_len: int


@dataclass(frozen=True)
class Case:
    """A mask, the plain rule it should follow, and the sizes it is asked at."""

    mask: Mask
    rule: Rule
    sizes: Sizes

    def __repr__(self) -> str:
        return f"{self.mask!r} at {self.sizes}"


def table(rule: Rule, sizes: Sizes) -> torch.Tensor:
    """Ask a plain rule for every pair, one by one: (batch, head, query, key)."""
    return torch.tensor(
        [
            [
                [[rule(b, h, q, k) for k in range(sizes.key_len)] for q in range(sizes.query_len)]
                for h in range(sizes.heads)
            ]
            for b in range(sizes.batch)
        ],
        dtype=torch.bool,
    )


def dense(mask: Mask, sizes: Sizes) -> torch.Tensor:
    """Write a mask out in full, as `table` writes a plain rule."""
    small = mask.dense(sizes.query_len, sizes.key_len, batch=sizes.batch, heads=sizes.heads)
    return small.expand(sizes.batch, sizes.heads, sizes.query_len, sizes.key_len)


def attention_loop(query, key, value, allowed, empty=0.0):
    """Masked attention of one (query, d), (key, d), (key, d_value) in float64, number by number."""
    weights, output = [], []
    for q, row in enumerate(query.double().tolist()):
        scores = [sum(x * y for x, y in zip(row, k, strict=True)) / math.sqrt(len(row)) for k in key.double().tolist()]
        seen = [k for k in range(len(scores)) if allowed[q][k]]
        top = max((scores[k] for k in seen), default=0.0)
        total = sum(math.exp(scores[k] - top) for k in seen)
        share = [math.exp(scores[k] - top) / total if k in seen else 0.0 for k in range(len(scores))]
        weights.append(share if seen else [empty] * len(scores))
        columns = zip(*value.double().tolist(), strict=True)
        output.append([sum(w * v for w, v in zip(share, column, strict=True)) if seen else empty for column in columns])
    return torch.tensor(weights, dtype=torch.float64), torch.tensor(output, dtype=torch.float64)


# ---- random masks, each with its plain rule ---------------------------------------


def some_sizes(longest: int = 6) -> st.SearchStrategy[Sizes]:
    small, length = st.integers(1, 3), st.integers(1, longest)
    return st.builds(Sizes, small, small, length, length)


def rows(batch: int, length: int, element: st.SearchStrategy) -> st.SearchStrategy[list[list]]:
    return st.lists(st.lists(element, min_size=length, max_size=length), min_size=batch, max_size=batch)


def everything_cases(sizes):
    return st.just(Case(everything(), lambda b, h, q, k: True, sizes))


@st.composite
def causal_cases(draw, sizes):
    offset = draw(st.integers(0, 4))
    return Case(causal(offset=offset), lambda b, h, q, k: k <= q + offset, sizes)


@st.composite
def window_cases(draw, sizes):
    left, right, apart = draw(st.integers(0, 4)), draw(st.integers(0, 4)), draw(st.integers(1, 3))
    mask = sliding_window(left, right, dilation=apart)
    return Case(mask, lambda b, h, q, k: any(k == q + i * apart for i in range(-left, right + 1)), sizes)


@st.composite
def chunk_cases(draw, sizes):
    size = draw(st.integers(1, 4))

    def rule(b, h, q, k):
        return any(start <= q < start + size and start <= k < start + size for start in range(0, 99, size))

    return Case(chunked(size), rule, sizes)


@st.composite
def padding_cases(draw, sizes):
    keep = draw(rows(sizes.batch, sizes.key_len, st.booleans()))
    return Case(padding(torch.tensor(keep)), lambda b, h, q, k: keep[b][k], sizes)


@st.composite
def prefix_cases(draw, sizes):
    lengths = draw(st.lists(st.integers(0, sizes.key_len + 1), min_size=sizes.batch, max_size=sizes.batch))
    return Case(prefix(torch.tensor(lengths)), lambda b, h, q, k: k < lengths[b], sizes)


@st.composite
def document_cases(draw, sizes):
    sizes = Sizes(sizes.batch, sizes.heads, sizes.key_len, sizes.key_len)
    ids = draw(rows(sizes.batch, sizes.key_len, st.integers(-2, 2)))
    return Case(documents(torch.tensor(ids)), lambda b, h, q, k: ids[b][q] == ids[b][k], sizes)


@st.composite
def position_cases(draw, sizes):
    sizes = Sizes(sizes.batch, sizes.heads, sizes.key_len, sizes.key_len)
    at = draw(rows(sizes.batch, sizes.key_len, st.integers(-3, 3)))
    ids = torch.tensor(at)
    if draw(st.booleans()):
        return Case(causal(position_ids=ids), lambda b, h, q, k: at[b][k] <= at[b][q], sizes)
    left, right, apart = draw(st.integers(0, 3)), draw(st.integers(0, 3)), draw(st.integers(1, 2))
    mask = sliding_window(left, right, dilation=apart, position_ids=ids)
    return Case(mask, lambda b, h, q, k: at[b][k] - at[b][q] in range(-left * apart, right * apart + 1, apart), sizes)


@st.composite
def graph_cases(draw, sizes):
    allowed = draw(
        st.lists(rows(sizes.query_len, sizes.key_len, st.booleans()), min_size=sizes.batch, max_size=sizes.batch)
    )
    if draw(st.booleans()):
        return Case(graph(torch.tensor(allowed[0])), lambda b, h, q, k: allowed[0][q][k], sizes)
    return Case(graph(torch.tensor(allowed)), lambda b, h, q, k: allowed[b][q][k], sizes)


@st.composite
def dense_cases(draw, sizes):
    full = (sizes.batch, sizes.heads, sizes.query_len, sizes.key_len)
    shape = [draw(st.sampled_from([1, size])) for size in full]
    bits = draw(st.lists(st.booleans(), min_size=math.prod(shape), max_size=math.prod(shape)))
    strides = [math.prod(shape[axis + 1 :]) for axis in range(4)]

    def rule(*indices):
        return bits[sum(i * step for i, step, size in zip(indices, strides, shape, strict=True) if size > 1)]

    return Case(from_dense(torch.tensor(bits).reshape(shape)), rule, sizes)


@st.composite
def per_head_cases(draw, sizes):
    lefts = draw(st.lists(st.integers(0, 3), min_size=sizes.heads, max_size=sizes.heads))
    mask = per_head([sliding_window(left) for left in lefts])
    return Case(mask, lambda b, h, q, k: q - lefts[h] <= k <= q, sizes)


@st.composite
def own_rule_cases(draw, sizes):
    step = draw(st.integers(1, 3))
    mask = Mask(lambda batch, head, query, key: (batch + head + query + key) % step == 0)
    return Case(mask, lambda b, h, q, k: (b + h + q + k) % step == 0, sizes)


LEAVES = {
    "everything": everything_cases,
    "causal": causal_cases,
    "sliding_window": window_cases,
    "chunked": chunk_cases,
    "padding": padding_cases,
    "prefix": prefix_cases,
    "documents": document_cases,
    "position_ids": position_cases,
    "graph": graph_cases,
    "from_dense": dense_cases,
    "per_head": per_head_cases,
    "own_rule": own_rule_cases,
}
ANY_LENGTHS = [leaf for name, leaf in LEAVES.items() if name not in ("documents", "position_ids")]


def positions(batch: int, length: int, below: int) -> st.SearchStrategy[torch.Tensor]:
    """Draw places to ask at: (token,), or (batch, token)."""
    place = st.integers(0, below - 1)
    one = st.lists(place, min_size=length, max_size=length)
    return st.one_of(one, rows(batch, length, place)).map(torch.tensor)


@st.composite
def at_cases(draw, sizes, depth):
    """A composition asked at other places: of its queries, of its keys, or both."""
    which = draw(st.sampled_from(["queries", "keys", "both"]))
    inner_queries = sizes.query_len if which == "keys" else draw(st.integers(1, 6))
    inner_keys = sizes.key_len if which == "queries" else draw(st.integers(1, 6))
    inner = draw(cases(Sizes(sizes.batch, sizes.heads, inner_queries, inner_keys), depth))
    query_at = None if which == "keys" else draw(positions(sizes.batch, sizes.query_len, inner_queries))
    key_at = None if which == "queries" else draw(positions(sizes.batch, sizes.key_len, inner_keys))

    def place(at, b, token):
        return token if at is None else int(at[token] if at.dim() == 1 else at[b, token])

    return Case(
        inner.mask.at(query_at, key_at),
        lambda b, h, q, k: inner.rule(b, h, place(query_at, b, q), place(key_at, b, k)),
        sizes,
    )


@st.composite
def cases(draw, sizes=None, depth=3):
    """A random composition of leaves under & | ~ T after at, with the rule that loops follow."""
    sizes = draw(some_sizes()) if sizes is None else sizes
    kind = draw(st.sampled_from(["leaf", "and", "or", "not", "T", "after", "at"])) if depth else "leaf"
    if kind == "leaf":
        square = sizes.query_len == sizes.key_len
        return draw(draw(st.sampled_from(list(LEAVES.values()) if square else ANY_LENGTHS))(sizes))
    if kind in ("and", "or"):
        one, other = draw(cases(sizes, depth - 1)), draw(cases(sizes, depth - 1))
        if kind == "and":
            return Case(one.mask & other.mask, lambda *at: one.rule(*at) and other.rule(*at), sizes)
        return Case(one.mask | other.mask, lambda *at: one.rule(*at) or other.rule(*at), sizes)
    if kind == "not":
        inner = draw(cases(sizes, depth - 1))
        return Case(~inner.mask, lambda *at: not inner.rule(*at), sizes)
    if kind == "T":
        inner = draw(cases(Sizes(sizes.batch, sizes.heads, sizes.key_len, sizes.query_len), depth - 1))
        return Case(inner.mask.T, lambda b, h, q, k: inner.rule(b, h, k, q), sizes)
    if kind == "at":
        return draw(at_cases(sizes, depth - 1))
    cached = draw(st.integers(0, 3))
    inner = draw(cases(Sizes(sizes.batch, sizes.heads, sizes.query_len + cached, sizes.key_len), depth - 1))
    return Case(inner.mask.after(cached), lambda b, h, q, k: inner.rule(b, h, q + cached, k), sizes)


# ---- what a stack of self-attentions lets through ---------------------------------


def reach_loop(layers: list[Rule], sizes: Sizes, residual: bool) -> tuple[list[list[list[bool]]], bool]:
    """Follow every token through a stack: which inputs each output depends on, and whether rows ever coincide.

    A row's content is a name for the function that computes it: two rows of one name
    are equal, and a query whose keys are all equal has nothing to weigh.
    """
    reached, coincide = [], False
    for b in range(sizes.batch):
        names: dict[object, int] = {}
        content = [names.setdefault(("token", i), len(names)) for i in range(sizes.query_len)]
        depends = [{i} for i in range(sizes.query_len)]
        for rule in layers:
            new_content, new_depends = [], []
            for q in range(sizes.query_len):
                seen = [[k for k in range(sizes.query_len) if rule(b, h, q, k)] for h in range(sizes.heads)]
                mixed = [sorted(content[k] for k in keys) for keys in seen]
                weighs = any(len(set(each)) > 1 for each in mixed)
                what = tuple(tuple(each) if len(set(each)) > 1 else tuple(set(each)) for each in mixed)
                own = residual or weighs
                new_content.append(names.setdefault((what, content[q] if own else None, rule), len(names)))
                new_depends.append(set().union(*(depends[k] for keys in seen for k in keys), depends[q] if own else ()))
            content, depends = new_content, new_depends
            coincide |= len(set(content)) < len(content)
        reached.append([[i in row for i in range(sizes.query_len)] for row in depends])
    return reached, coincide


@st.composite
def stacks(draw, everyone_sees_itself=False):
    """One to three masks of one square size, with their rules."""
    length = draw(st.integers(1, 5))
    sizes = Sizes(draw(st.integers(1, 2)), draw(st.integers(1, 2)), length, length)
    layers = draw(st.lists(cases(sizes, depth=2), min_size=1, max_size=3))
    if everyone_sees_itself:
        layers = [Case(each.mask | sliding_window(0), _or_itself(each.rule), sizes) for each in layers]
    return layers


def _or_itself(rule: Rule) -> Rule:
    return lambda b, h, q, k: q == k or rule(b, h, q, k)
