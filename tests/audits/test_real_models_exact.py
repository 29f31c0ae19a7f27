"""Hugging Face models asked both ways, layer by layer, and alone without their padding; and with one key changed."""

import re
from typing import Any, NamedTuple

import pytest
import torch

from attnmask import assert_allowed, assert_padding_invariant, causal, padding, sliding_window
from real_models import IDS, bert, gemma3, gpt2, llama, mamba, mistral, mixtral, modernbert, t5

KEEP = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]])
REAL = padding(KEEP.bool())
PADDED = {"input_ids": IDS, "attention_mask": KEEP}
TRANSLATED = PADDED | {"decoder_input_ids": IDS.clone()}
BOTH = {"input_ids": REAL, "decoder_input_ids": causal()}


class Asked(NamedTuple):
    """A model, what its outputs may depend on and its layers let through; and a key of one layer too few, or too many.

    The changed layer, and (query, key): ``hidden`` is one that it sees, ``opened`` one that it does not see.
    """

    make: Any
    inputs: Any
    allowed: Any
    layers: dict[str, Any]
    changed: str
    hidden: tuple[int, int]
    opened: tuple[int, int]


WINDOW, CAUSAL = sliding_window(2), {"model.layers.*.self_attn": causal()}
ONE = {"input_ids": IDS}
MODELS = {
    "gpt2": Asked(gpt2, ONE, causal(), {"transformer.h.*.attn": causal()}, "transformer.h.1.attn", (3, 1), (1, 3)),
    "llama": Asked(
        llama,
        PADDED,
        causal() & REAL,
        {"model.layers.*.self_attn": causal() & REAL},
        "model.layers.0.self_attn",
        (3, 1),
        (1, 2),
    ),
    "mistral": Asked(
        mistral,
        ONE,
        sliding_window(4),
        {"model.layers.*.self_attn": WINDOW},
        "model.layers.1.self_attn",
        (5, 3),
        (5, 2),
    ),
    "gemma3": Asked(
        gemma3,
        ONE,
        causal(),
        {"model.layers.0.self_attn": WINDOW, "model.layers.1.self_attn": causal()},
        "model.layers.0.self_attn",
        (5, 3),
        (5, 2),
    ),
    "mixtral": Asked(mixtral, ONE, causal(), CAUSAL, "model.layers.1.self_attn", (4, 2), (2, 3)),
    "bert": Asked(
        bert,
        PADDED,
        REAL,
        {"encoder.layer.*.attention.self": REAL},
        "encoder.layer.1.attention.self",
        (0, 3),
        (0, 5),
    ),
    "modernbert": Asked(
        modernbert,
        PADDED,
        REAL,
        {"layers.0.attn": REAL, "layers.1.attn": REAL & sliding_window(2, 2)},
        "layers.1.attn",
        (0, 2),
        (0, 3),
    ),
    "t5 encoder": Asked(
        t5,
        TRANSLATED,
        BOTH,
        {"encoder.block.*.layer.0.SelfAttention": REAL},
        "encoder.block.1.layer.0.SelfAttention",
        (0, 3),
        (0, 5),
    ),
    "t5 decoder": Asked(
        t5,
        TRANSLATED,
        BOTH,
        {"decoder.block.*.layer.0.SelfAttention": causal()},
        "decoder.block.0.layer.0.SelfAttention",
        (3, 1),
        (1, 3),
    ),
    "t5 source": Asked(
        t5,
        TRANSLATED,
        BOTH,
        {"decoder.block.*.layer.1.EncDecAttention": REAL},
        "decoder.block.1.layer.1.EncDecAttention",
        (2, 1),
        (2, 5),
    ),
    "mamba": Asked(
        mamba, ONE, causal(), {"backbone.layers.*.mixer": causal()}, "backbone.layers.1.mixer", (3, 1), (1, 3)
    ),
}


def options(asked):
    return {"allowed": asked.allowed, "layers": asked.layers, "exact": True, "lengths": []}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_right_both_ways_and_in_each_layer(name):
    asked = MODELS[name]
    assert_allowed(asked.make("eager"), asked.inputs, **options(asked))


@pytest.mark.parametrize("change", ["hidden", "opened"])
@pytest.mark.parametrize("name", MODELS)
def test_one_key_of_one_layer_is_told_and_the_layer_named(name, change):
    asked = MODELS[name]
    model = asked.make("eager")
    with_one_key_changed(model.get_submodule(asked.changed), *getattr(asked, change), hide=change == "hidden")
    with pytest.raises(AssertionError) as caught:
        assert_allowed(model, asked.inputs, **options(asked))
    said = str(caught.value)
    query, key = getattr(asked, change)
    if f"In {asked.changed}:" in said:
        pair = f"(output ← input): {query} ← {key}" if change == "hidden" else f"output {query} depends on input {key}"
        assert pair in said.split(f"In {asked.changed}:")[1]
    else:  # the whole model shows it
        assert re.search(rf"(hidden|first seen) in {re.escape(asked.changed)}", said), said


def with_one_key_changed(attention, query, key, *, hide):
    """Block one key for one query in an attention that is given an additive mask, or open it; Mamba is given none."""
    forward = attention.forward

    def changed(*args, **named):
        low = torch.finfo(torch.float32).min if hide else 0.0

        def other(value):
            if isinstance(value, torch.Tensor) and value.dim() == 4:
                value = value.expand(-1, -1, 6, -1).clone()
                value[:, :, query, key] = low
            return value

        return forward(*map(other, args), **{name: other(value) for name, value in named.items()})

    def mixed(states, *args, **named):
        named |= {"cache_params": None}
        output = forward(states, *args, **named).clone()
        without = states.clone()
        without[:, key] = 0
        output[:, query] = forward(without, *args, **named)[:, query] if hide else output[:, query] + states[:, key]
        return output

    attention.forward = mixed if type(attention).__name__ == "MambaMixer" else changed


LEFT = {"input_ids": IDS.flip(1), "attention_mask": KEEP.flip(1)}
PLACED = LEFT | {"position_ids": (KEEP.flip(1).cumsum(1) - 1).clamp(min=0)}
ALONE = {
    "gpt2": (gpt2, PLACED),
    "llama": (llama, LEFT),
    "mistral": (mistral, LEFT),
    "gemma3": (gemma3, LEFT),
    "mixtral": (mixtral, LEFT),
    "mamba": (mamba, LEFT),
    "bert": (bert, PADDED),
    "modernbert": (modernbert, PADDED),
    "t5": (t5, TRANSLATED | {"decoder_attention_mask": KEEP}),
}


@pytest.mark.parametrize("name", ALONE)
def test_a_sample_alone_is_what_it_is_in_its_padded_batch(name):
    make, inputs = ALONE[name]
    keep = inputs["attention_mask"].bool()
    assert_padding_invariant(
        make("eager" if name == "mamba" else "sdpa"),
        inputs,
        {"input_ids": keep, "decoder_input_ids": keep} if name == "t5" else keep,
    )
