"""Hugging Face models under `audit`: passed as they are, and caught where one layer forgets its mask."""

import re

import pytest
import torch

from attnmask import assert_allowed, audit, causal, everything, padding, sliding_window
from real_models import IDS, bart, bert, gpt2, llama, mistral, mixtral, t5, whisper

KEEP = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]])
REAL = padding(KEEP.bool())
every_attention = pytest.mark.parametrize("attention", ["eager", "sdpa"])


SOUND = torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(0))  # (batch, mel bin, time)
TRANSLATED = {"input_ids": IDS, "attention_mask": KEEP, "decoder_input_ids": IDS.clone()}
BOTH = {"input_ids": REAL, "decoder_input_ids": causal()}
AUDITED = {
    "gpt2": (gpt2, IDS, causal(), "transformer.h.1.attn"),
    "llama": (llama, {"input_ids": IDS, "attention_mask": KEEP}, causal() & REAL, "model.layers.1.self_attn"),
    "mistral": (mistral, {"input_ids": IDS}, sliding_window(4), "model.layers.1.self_attn"),
    "mixtral": (mixtral, {"input_ids": IDS}, causal(), "model.layers.1.self_attn"),
    "bert": (bert, {"input_ids": IDS, "attention_mask": KEEP}, REAL, "encoder.layer.1.attention.self"),
    "t5": (t5, TRANSLATED, BOTH, "decoder.block.1.layer.0.SelfAttention"),
    "t5 source": (t5, TRANSLATED, BOTH, "decoder.block.1.layer.1.EncDecAttention"),
    "bart": (bart, TRANSLATED, BOTH, "model.encoder.layers.1.self_attn"),
    "whisper": (
        whisper,
        {"input_features": SOUND, "decoder_input_ids": IDS},
        {"decoder_input_ids": causal()},
        "model.decoder.layers.1.self_attn",
    ),
}


@every_attention
@pytest.mark.parametrize("name", [name for name in AUDITED if name != "t5 source"])  # as it is, the same as "t5"
def test_audit_passes_a_model_as_it_is(name, attention):
    make, inputs, allowed, _ = AUDITED[name]
    report = audit(make(attention), inputs, allowed)
    assert report.ok, report
    assert not report.suspects, report


@every_attention
@pytest.mark.parametrize("name", AUDITED)
def test_audit_finds_the_layer_that_forgets_its_mask(name, attention):
    make, inputs, allowed, path = AUDITED[name]
    model = make(attention)
    forget_the_mask(model.get_submodule(path))
    with pytest.raises(AssertionError) as caught:
        assert_allowed(model, inputs, allowed, lengths=[])
    named = re.findall(r"first seen in (\S+)", str(caught.value))
    assert named
    assert all(each.startswith(path) for each in named), named


def forget_the_mask(attention):
    """Take the mask away from one attention module, however it is called."""
    forward = attention.forward
    attention.is_causal = False

    def forgetful(*args, **kwargs):
        args = [None if isinstance(each, torch.Tensor) and each.dim() == 4 else each for each in args]
        return forward(*args, **{name: None if name in ("mask", "attention_mask") else kwargs[name] for name in kwargs})

    attention.forward = forgetful


@every_attention
def test_audit_of_sound_names_its_axis(attention):
    given = {"input_features": SOUND, "decoder_input_ids": IDS}
    allowed = {"decoder_input_ids": causal(), "input_features": everything()}
    assert audit(whisper(attention), given, allowed, position_axis={"input_features": 2}).ok
