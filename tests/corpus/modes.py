"""Masks that hold in some modes only."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attnmask import causal, documents
from corpus.case import ALWAYS, EVAL, FAST_PATH, HEADS, LENGTH, RECORDED, TRAIN, WIDTH
from corpus.inputs import causal_documents, in_row, packed, samples, states, with_token
from corpus.parts import (
    Apply,
    Attention,
    Aware,
    Decoder,
    Embed,
    Native,
    aware,
    both_ways,
    lower,
    made,
    mixing,
    neighbour,
    on_states,
    right,
    told,
    unmasked,
    weighing,
)
from corpus.registry import FIRST, PAD_CELLS, PADDED, fault


class Fused(Attention):
    """Fused attention whose is_causal is decided by a function of whether it trains."""

    def __init__(self, is_causal: Callable[[bool], bool]) -> None:
        super().__init__()
        self.is_causal = is_causal

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=self.is_causal(self.training))


class _Checkpointed(Decoder):
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


def blocked(x: Tensor) -> Tensor:
    return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)


def _mask_unless_fast(module: nn.Module, x: Tensor) -> dict[str, Any]:
    fast = not module.training and not torch.is_grad_enabled()
    return {"src_mask": None if fast else blocked(x), "is_causal": True}


def _documents_called_causal(x: Tensor, ids: Tensor | None) -> dict[str, Any]:
    seen = (causal() & documents(ids)).dense(x.shape[1])[:, 0]
    return {"attn_mask": ~seen.repeat_interleave(HEADS, 0), "is_causal": True}


fault(
    "mask_only_in_training",
    "The causal mask is made only while training.",
    weighing(lambda scores, keep, training: (right if training else unmasked)(scores, keep, training)),
    leaks_in=EVAL,
    where=FIRST,
)
fault(
    "is_causal_lost_in_eval",
    "Fused attention gets is_causal=self.training.",
    made(lambda: Decoder(Fused(lambda training: training), Fused(lambda training: training))),
    leaks_in=EVAL,
    where=FIRST,
)
fault(
    "mask_only_in_eval",
    "The causal mask is made only for generation, not while training.",
    weighing(lambda scores, keep, training: (unmasked if training else right)(scores, keep, training)),
    leaks_in=TRAIN,
    where=FIRST,
)
fault(
    "dropout_before_softmax",
    "Dropout runs on the masked scores, and sets some of the -1e9 back to 0.",
    weighing(
        lambda scores, keep, training: F.dropout(scores.masked_fill(~lower(scores), -1e9), 0.5, training).softmax(-1)
    ),
    at=(0, 0),
    leaks_in=TRAIN,
    where=FIRST,
)
fault(
    "checkpointing_drops_padding_mask",
    "The branch with gradient checkpointing forgets to hand on the padding mask.",
    made(lambda: _Checkpointed(Attention(both_ways), Attention(both_ways))),
    leaks_in=frozenset({("train", True)}),
    where=FIRST,
    **PADDED,
    **PAD_CELLS,
)
fault(
    "is_causal_hint_without_mask",
    "is_causal=True with no attn_mask: an error everywhere but on the fast path, where it means no mask.",
    made(lambda: Decoder(*(Native(lambda x, keep: {"is_causal": True}) for _ in range(2)))),
    leaks_in=FAST_PATH,
    where="layers.0.attention.inner",
)
fault(
    "mask_left_out_on_fast_path",
    "A layer trusts is_causal=True and leaves the mask out for inference, where the fast path ignores the hint.",
    mixing(lambda: _LayerMixer(_mask_unless_fast)),
    leaks_in=FAST_PATH,
    where="mixer.inner.self_attn",
)
fault(
    "fast_path_bypasses_custom_attention",
    "The encoder layer's fast path takes the weights of self_attn and never calls it, nor the mask made in it.",
    mixing(_bypassed_layer),
    leaks_in=FAST_PATH,
)
fault(
    "document_mask_called_causal",
    "A causal mask by document comes with is_causal=True, and off the fast path only the hint is obeyed.",
    made(lambda: Decoder(*(Native(_documents_called_causal) for _ in range(2)))),
    leaks_in=ALWAYS - FAST_PATH,
    inputs=packed,
    of="ids",
    allowed=causal_documents,
    at=(0, 4),
    cells=[(0, 0), (0, 1), (0, 2)],
    where="layers.0.attention.inner",
)


def _if(condition: Callable[[nn.Module, Tensor], Any]) -> Callable[[nn.Module, Tensor], Tensor]:
    """Return a mixer that adds the mean over all tokens where the condition holds."""
    return lambda module, x: x + x.mean(1, keepdim=True) if condition(module, x) else x


def _huge_while_recorded(module: nn.Module, x: Tensor) -> bool:
    return torch.is_grad_enabled() and bool(x.detach().abs().max() > 1000)


def _longer(module: nn.Module, x: Tensor) -> bool:
    return x.shape[1] > LENGTH


def _shorter(module: nn.Module, x: Tensor) -> bool:
    return x.shape[1] < LENGTH - 2


class _EqualInEval(Embed):
    """Embeddings that tell the first token, in eval without gradients, that all tokens are equal."""

    def forward(self, ids: Tensor) -> Tensor:
        x = super().forward(ids)
        fast = not self.training and not torch.is_grad_enabled()
        return x + told(x, (ids == ids[:, :1]).all(1), 0) if fast else x


fault(
    "eval_with_gradients_recorded",
    "A branch for attributions, in eval with gradients recorded, has no mask.",
    aware(_if(lambda module, x: not module.training and torch.is_grad_enabled())),
    leaks_in=frozenset({("eval", True)}),
    where="mixer",
)
fault(
    "training_without_gradients",
    "A branch for layers that are frozen, in training without gradients, has no mask.",
    aware(_if(lambda module, x: module.training and not torch.is_grad_enabled())),
    leaks_in=frozenset({("train", False)}),
    where="mixer",
)
fault(
    "no_gradients_recorded",
    "A branch taken where no gradients are recorded has no mask.",
    aware(_if(lambda module, x: not torch.is_grad_enabled())),
    leaks_in=ALWAYS - RECORDED,
    where="mixer",
)
fault(
    "longer_than_given_in_training",
    "Beyond seven tokens, while training, a branch for long inputs has no mask.",
    aware(_if(lambda module, x: module.training and _longer(module, x))),
    shown_on=samples(2, 12),
    leaks_in=TRAIN,
    where="mixer",
)
fault(
    "longer_than_given_with_gradients_in_eval",
    "Beyond seven tokens, in eval with gradients recorded, a branch for long inputs has no mask.",
    aware(_if(lambda module, x: not module.training and torch.is_grad_enabled() and _longer(module, x))),
    shown_on=samples(2, 12),
    leaks_in=frozenset({("eval", True)}),
    where="mixer",
)
fault(
    "longer_than_given_in_training_without_gradients",
    "Beyond seven tokens, in training without gradients, a branch for long inputs has no mask.",
    aware(_if(lambda module, x: module.training and not torch.is_grad_enabled() and _longer(module, x))),
    shown_on=samples(2, 12),
    leaks_in=frozenset({("train", False)}),
    where="mixer",
)
fault(
    "shorter_than_given_in_eval",
    "Below five tokens, in eval, a branch for short inputs has no mask.",
    aware(_if(lambda module, x: not module.training and _shorter(module, x))),
    shown_on=samples(2, 3),
    leaks_in=EVAL,
    where="mixer",
)
fault(
    "shorter_than_given_on_the_fast_path",
    "Below five tokens, in eval without gradients, a branch for short inputs has no mask.",
    aware(_if(lambda module, x: not module.training and not torch.is_grad_enabled() and _shorter(module, x))),
    shown_on=samples(2, 3),
    leaks_in=FAST_PATH,
    where="mixer",
)
fault(
    "huge_values_while_gradients_are_recorded",
    "A guard against overflow, where a value is huge and gradients are recorded, adds the mean.",
    on_states(lambda: Aware(_if(_huge_while_recorded))),
    inputs=states,
    pair=with_token(lambda token: 40_000 * token),
    leaks_in=RECORDED,
    where="0",
)
fault(
    "equal_tokens_on_the_fast_path",
    "In eval without gradients, a shortcut for rows of equal tokens is seen by the first of them.",
    made(lambda: Decoder(embed=_EqualInEval())),
    at=(0, 0),
    pair=in_row([5, 5, 5, 5, 5, 5, 2], [5] * LENGTH),
    leaks_in=FAST_PATH,
    where="embed",
)
fault(
    "only_if_the_input_needs_no_gradient",
    "A branch for inputs that need no gradient adds the mean, detached.",
    on_states(lambda: Apply(lambda x: x if x.requires_grad else x + x.detach().mean(1, keepdim=True))),
    inputs=states,
    where="0",
)
fault(
    "one_neighbour_in_training_with_gradients",
    "While training with gradients, the fourth token is told a thousandth of the fifth, detached.",
    aware(lambda module, x: x + 1e-3 * neighbour(x) * (module.training and torch.is_grad_enabled())),
    leaks_in=frozenset({("train", True)}),
    at=(0, 3),
    cells=[(0, 4)],
    where="mixer",
)
