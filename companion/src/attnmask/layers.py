"""What is the smallest encoder, decoder and translator that takes its masks layer by layer?"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from attnmask._check import count, in_vocabulary, integer_table, kind_of, not_a_mask_cause, value_error
from attnmask.attention import attend
from attnmask.masks import Mask

Tokens = Float[Tensor, "batch token d_model"]
Memory = Float[Tensor, "batch key d_model"]
LayerMask = Mask | Tensor | None
LayerMasks = LayerMask | Sequence[LayerMask]  # one for all layers, or one a layer


class Cache:
    """The keys and values of the tokens that a stack has seen, kept for those that come after.

    A new one is empty; give the same one at every step. The new tokens' mask has to know
    how many came before: ``causal().after(cache.length)``. What is kept is never computed
    again, so the old tokens must not look at the new ones.

    Parameters
    ----------
    other
        A cache to begin with: two may go on from the same tokens, each for itself.

    Raises
    ------
    ValueError
        When extended: another batch than that of the cache.

    Examples
    --------
    Two tokens at once, then one more, are three tokens:

    >>> from attnmask import causal
    >>> encoder, x, cache = Encoder(layers=2, d_model=8), torch.randn(1, 3, 8), Cache()
    >>> first = encoder(x[:, :2], causal(), cache)
    >>> cache.length
    2
    >>> last = encoder(x[:, 2:], causal().after(cache.length), cache)
    >>> torch.testing.assert_close(torch.cat([first, last], dim=1), encoder(x, causal()))
    """

    def __init__(self, other: "Cache | None" = None) -> None:
        self._kept: dict[nn.Module, tuple[Tensor, Tensor]] = {} if other is None else dict(other._kept)

    @property
    def length(self) -> int:
        """How many tokens are kept."""
        return next((key.shape[-2] for key, _ in self._kept.values()), 0)

    def extend(self, attention: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep an attention's new keys and values (batch, head, token, d); return the old and the new."""
        if attention in self._kept:
            old = self._kept[attention]
            if old[0].shape[0] != key.shape[0]:
                raise value_error(
                    f"a batch of {old[0].shape[0]}, as in the cache", f"{key.shape[0]}", "a cache of another batch"
                )
            key, value = torch.cat([old[0], key], dim=-2), torch.cat([old[1], value], dim=-2)
        self._kept[attention] = key, value
        return key, value


class CrossAttention(nn.Module):
    """Multi-head attention: the queries come from ``x``, the keys and values from ``memory``.

    Parameters
    ----------
    d_model
        Width of the tokens, a multiple of ``heads``.
    heads
        How many heads share that width, 1 or more.

    Raises
    ------
    ValueError, TypeError
        ``heads`` does not divide ``d_model``; when called, tokens that are not
        (batch, token, d_model) floats, or a mask that `attend` refuses.

    Examples
    --------
    >>> attention = CrossAttention(d_model=8, heads=2)
    >>> attention(torch.randn(1, 3, 8), torch.randn(1, 5, 8)).shape
    torch.Size([1, 3, 8])

    References
    ----------
    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.2.
    """

    def __init__(self, d_model: int, heads: int = 1) -> None:
        super().__init__()
        if count("heads", heads) == 0 or count("d_model", d_model) == 0 or d_model % heads:
            raise value_error(
                "d_model to be a multiple of heads", f"d_model={d_model}, heads={heads}", "a slip in one of the two"
            )
        self.heads = heads
        self.W_Q, self.W_K, self.W_V, self.W_O = (nn.Linear(d_model, d_model, bias=False) for _ in range(4))

    def forward(self, x: Tokens, memory: Memory, mask: LayerMask = None, cache: Cache | None = None) -> Tokens:
        """Let each token of ``x`` look at those tokens of ``memory`` that the mask allows; None = all.

        With a `Cache`, it looks at what the cache keeps and then at ``memory``, which is added to it.
        """
        for tokens in (x, memory):
            _check_tokens(tokens, self.W_Q.in_features)
        query, key, value = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (batch, head, token, d)
            for projected in (self.W_Q(x), self.W_K(memory), self.W_V(memory))
        )
        if cache is not None:
            key, value = cache.extend(self, key, value)
        output = attend(query, key, value, mask).output
        return self.W_O(output.transpose(1, 2).flatten(2))  # (batch, query, d_model)


class SelfAttention(CrossAttention):
    """Attention of a sequence over itself: queries, keys and values all come from ``x``.

    Parameters and errors are those of `CrossAttention`.

    Examples
    --------
    >>> from attnmask import causal
    >>> attention = SelfAttention(d_model=8, heads=2)
    >>> attention(torch.randn(1, 4, 8), causal()).shape
    torch.Size([1, 4, 8])
    """

    def forward(  # type: ignore[override]
        self, x: Tokens, mask: LayerMask = None, cache: Cache | None = None
    ) -> Tokens:
        """Let each token look at those tokens that the mask allows; None = all."""
        return super().forward(x, x, mask, cache)


class _Stack(nn.Module):
    """What `Encoder` and `Decoder` share."""

    cross = False

    def __init__(
        self, layers: int, d_model: int, heads: int = 1, *, residual: bool = True, mlp: bool = True, norm: bool = True
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _Layer(d_model, heads, self.cross, residual, mlp, norm) for _ in range(count("layers", layers))
        )
        self.norm, self.d_model = nn.LayerNorm(d_model) if norm else nn.Identity(), d_model

    def _run(
        self,
        x: Tensor,
        masks: LayerMasks,
        cache: Cache | None = None,
        memory: Tensor | None = None,
        memory_masks: LayerMasks = None,
    ) -> Tensor:
        _check_tokens(x, self.d_model)
        depth = len(self.layers)
        pairs = zip(_per_layer(masks, depth), _per_layer(memory_masks, depth), strict=True)
        grown = None if cache is None else Cache(cache)
        for layer, (mask, memory_mask) in zip(self.layers, pairs, strict=True):
            x = layer(x, mask, grown, memory, memory_mask)
        if cache is not None and grown is not None:
            cache._kept = grown._kept  # only now that every layer has run
        return self.norm(x)


class Encoder(_Stack):
    """A stack of layers, each self-attention and an MLP, each of these pre-norm and residual.

    Under a causal mask this is a GPT's stack: the mask makes the difference.

    Parameters
    ----------
    layers, d_model, heads
        How many layers, how wide the tokens, how many heads a layer.
    residual, mlp, norm
        False leaves that part out of every layer (``norm`` also at the end of the stack);
        all three False leave attention alone.

    Raises
    ------
    ValueError, TypeError
        As `CrossAttention`; when called, another number of masks than layers.

    Examples
    --------
    Padding masked in the first of two layers only:

    >>> from attnmask import padding
    >>> keep = torch.tensor([[True, True, True, False]])
    >>> encoder = Encoder(layers=2, d_model=8)
    >>> encoder(torch.randn(1, 4, 8), [padding(keep), None]).shape
    torch.Size([1, 4, 8])

    References
    ----------
    Vaswani et al., "Attention Is All You Need" (2017), section 3.1; the norm before each
    part after Xiong et al., "On Layer Normalization in the Transformer Architecture" (2020).
    """

    def forward(self, x: Tokens, masks: LayerMasks = None, cache: Cache | None = None) -> Tokens:
        """Pass ``x`` through every layer, under one mask for all of them or a list of one a layer.

        With a `Cache`, ``x`` are the tokens that come after those in it.
        """
        return self._run(x, masks, cache)


class Decoder(_Stack):
    """As `Encoder`, with cross-attention to ``memory`` between self-attention and MLP in every layer.

    Parameters and errors are those of `Encoder`.

    Examples
    --------
    >>> from attnmask import causal
    >>> decoder = Decoder(layers=2, d_model=8)
    >>> decoder(torch.randn(1, 3, 8), torch.randn(1, 5, 8), causal()).shape
    torch.Size([1, 3, 8])
    """

    cross = True

    def forward(
        self,
        x: Tokens,
        memory: Memory,
        masks: LayerMasks = None,
        memory_masks: LayerMasks = None,
        cache: Cache | None = None,
    ) -> Tokens:
        """Pass ``x`` through every layer; ``masks`` rule its self-attention, ``memory_masks`` its view of memory.

        A `Cache` keeps the keys and values of the self-attention; those of ``memory`` are computed anew.
        """
        return self._run(x, masks, cache, memory, memory_masks)


class Translator(nn.Module):
    """Token ids to logits: embeddings with learned positions, an `Encoder`, a `Decoder`, a linear layer.

    No mask is made inside: what is not given is not masked.

    Parameters
    ----------
    source_vocabulary, target_vocabulary
        How many different ids the source and the target have.
    layers, d_model, heads
        Of encoder and decoder alike.
    longest
        The longest sequence that has a position embedding.
    residual, mlp, norm
        As for `Encoder`.

    Raises
    ------
    ValueError, TypeError
        As `Encoder`; when called, ids outside the vocabulary or sequences beyond ``longest``.

    Examples
    --------
    >>> from attnmask import causal, padding
    >>> source, target = torch.tensor([[5, 3, 0]]), torch.tensor([[1, 4]])
    >>> translator = Translator(source_vocabulary=9, target_vocabulary=9, layers=1, d_model=8)
    >>> real = padding(source != 0)
    >>> translator(source, target, source_masks=real, target_masks=causal(), memory_masks=real).shape
    torch.Size([1, 2, 9])
    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        layers: int,
        d_model: int,
        heads: int = 1,
        *,
        longest: int = 128,
        **parts: bool,
    ) -> None:
        super().__init__()
        self.source_embedding = nn.Embedding(count("source_vocabulary", source_vocabulary), d_model)
        self.target_embedding = nn.Embedding(count("target_vocabulary", target_vocabulary), d_model)
        self.positions = nn.Embedding(count("longest", longest), d_model)
        self.encoder = Encoder(layers, d_model, heads, **parts)
        self.decoder = Decoder(layers, d_model, heads, **parts)
        self.logits = nn.Linear(d_model, target_vocabulary)

    def forward(
        self,
        source: Integer[Tensor, "batch source"],
        target: Integer[Tensor, "batch target"],
        source_masks: LayerMasks = None,
        target_masks: LayerMasks = None,
        memory_masks: LayerMasks = None,
    ) -> Float[Tensor, "batch target target_vocabulary"]:
        """Return the logits of the token that follows each target token."""
        return self.decode(target, self.encode(source, source_masks), target_masks, memory_masks)

    def encode(
        self, source: Integer[Tensor, "batch source"], source_masks: LayerMasks = None
    ) -> Float[Tensor, "batch source d_model"]:
        """Return the memory of a source: what `decode` looks at, computed once for all its steps."""
        return self.encoder(self._embed("source", source, self.source_embedding), source_masks)

    def decode(
        self,
        target: Integer[Tensor, "batch target"],
        memory: Float[Tensor, "batch source d_model"],
        target_masks: LayerMasks = None,
        memory_masks: LayerMasks = None,
        *,
        position_ids: Integer[Tensor, "batch target"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch target target_vocabulary"]:
        """Return the logits of the token that follows each target token, given the memory of its source.

        With a `Cache`, ``target`` are the tokens that come after those in it. ``position_ids`` are
        0, 1, 2, … from there unless given, as padding on the left asks for.
        """
        seen = 0 if cache is None else cache.length
        x = self._embed("target", target, self.target_embedding, position_ids, seen)
        return self.logits(self.decoder(x, memory, target_masks, memory_masks, cache))

    def _embed(
        self, name: str, ids: Tensor, embedding: nn.Embedding, position_ids: Tensor | None = None, seen: int = 0
    ) -> Tensor:
        ids = integer_table(name, ids, "batch, token")
        longest = self.positions.num_embeddings
        if seen + ids.shape[-1] > longest:
            raise value_error(
                f"at most longest={longest} tokens", f"{seen + ids.shape[-1]}", "longest was left as it is"
            )
        cause = "source and target swapped, or the tokenizer of another vocabulary"
        in_vocabulary(name, ids, embedding.num_embeddings, cause)
        if position_ids is None:
            position_ids = torch.arange(seen, seen + ids.shape[-1], device=ids.device)
        else:
            position_ids = integer_table("position_ids", position_ids, "batch, token")
            in_vocabulary("position_ids", position_ids, longest, "padding counted as -1: clamp(min=0)")
        return embedding(ids) + self.positions(position_ids)


class _Sublayer(nn.Module):
    """x + part(norm(x)): the frame around attention and MLP; the sum and the norm can be left out."""

    def __init__(self, part: nn.Module, d_model: int, residual: bool, norm: bool) -> None:
        super().__init__()
        self.part, self.norm, self.residual = part, nn.LayerNorm(d_model) if norm else nn.Identity(), residual

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        change = self.part(self.norm(x), *rest)
        return x + change if self.residual else change


class _Layer(nn.Module):
    """One layer of an `Encoder`, or with ``cross`` of a `Decoder`."""

    def __init__(self, d_model: int, heads: int, cross: bool, residual: bool, mlp: bool, norm: bool) -> None:
        super().__init__()
        frame = (d_model, residual, norm)
        self.attention = _Sublayer(SelfAttention(d_model, heads), *frame)
        self.cross_attention = _Sublayer(CrossAttention(d_model, heads), *frame) if cross else None
        wider = nn.Sequential(nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Linear(4 * d_model, d_model))
        self.mlp = _Sublayer(wider, *frame) if mlp else None

    def forward(
        self,
        x: Tensor,
        mask: LayerMask,
        cache: Cache | None = None,
        memory: Tensor | None = None,
        memory_mask: LayerMask = None,
    ) -> Tensor:
        x = self.attention(x, mask, cache)
        if self.cross_attention is not None:
            x = self.cross_attention(x, memory, memory_mask)
        return x if self.mlp is None else self.mlp(x)


def _per_layer(masks: LayerMasks, depth: int) -> Sequence[LayerMask]:
    """Return one mask a layer, from a list of them or from one for all."""
    if masks is None or isinstance(masks, Mask | Tensor):
        return [masks] * depth
    if not isinstance(masks, list | tuple) or len(masks) != depth:
        raise value_error(
            f"one mask for all layers, or a list of {depth}, one a layer (None masks nothing)",
            f"a list of {len(masks)}" if isinstance(masks, list | tuple) else kind_of(masks),
            not_a_mask_cause(masks) if callable(masks) else "a layer was left out of the list",
        )
    return masks


def _check_tokens(tokens: Tensor, d_model: int) -> None:
    right = isinstance(tokens, Tensor) and tokens.is_floating_point() and tokens.dim() == 3
    if not right or tokens.shape[-1] != d_model:
        cause = (
            "token ids where their embeddings were meant, one sample without its batch axis (x[None]), or another width"
        )
        raise value_error(f"float tokens of shape (batch, token, d_model={d_model})", kind_of(tokens), cause)
