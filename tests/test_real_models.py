"""Hugging Face models as they are, built from configs with random weights: measured, audited, and broken on purpose."""

import re

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from attnmask import assert_allowed, audit, causal, everything, padding, sliding_window
from attnmask.probe import influence
from attnmask.stacks import reach

VOCABULARY = 64
IDS = torch.tensor([[7, 30, 9, 30, 5, 11], [8, 8, 12, 60, 3, 2]])
LENGTH = IDS.shape[1]
TRIL = torch.ones(LENGTH, LENGTH).tril().bool()
SELF = torch.eye(LENGTH).bool()
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SIDES = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in {"layers": 2, "attention_heads": 4, "ffn_dim": 48}.items()
}
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = {**SMALL, "num_key_value_heads": 2}
every_way = pytest.mark.parametrize("probe", ["gradient", "perturbation"])
every_attention = pytest.mark.parametrize("attention", ["eager", "sdpa"])


def build(model, config, attention, **options):
    torch.manual_seed(0)
    return model(config(**options, attn_implementation=attention)).eval()


def gpt2(attention):
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16}
    return build(GPT2LMHeadModel, GPT2Config, attention, vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, **sizes)


def t5(attention, **options):
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    tokens = {"vocab_size": VOCABULARY, "decoder_start_token_id": 0}
    return build(T5ForConditionalGeneration, T5Config, attention, **sizes, **tokens, **options)


def bart(attention):
    options = {"d_model": 32, "max_position_embeddings": 16, "forced_eos_token_id": 2, "decoder_start_token_id": 2}
    return build(BartForConditionalGeneration, BartConfig, attention, **SIDES, **TOKENS, **options)


def llama(attention):
    return build(LlamaForCausalLM, LlamaConfig, attention, **GROUPED)


@every_way
@every_attention
def test_gpt2_is_causal(attention, probe):
    assert torch.equal(influence(gpt2(attention), IDS, probe=probe), TRIL.expand(2, -1, -1))


@every_way
@every_attention
def test_llama_is_causal_and_keeps_padding_out(attention, probe):
    keep = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]])
    found = influence(llama(attention), {"input_ids": IDS, "attention_mask": keep}, probe=probe)["input_ids"]
    assert torch.equal(found, reach([causal() & padding(keep.bool())] * 2, LENGTH))


@every_way
@every_attention
def test_llama_padded_on_the_left_keeps_padding_out_of_every_real_token(attention, probe):
    keep = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
    found = influence(llama(attention), {"input_ids": IDS, "attention_mask": keep}, probe=probe)["input_ids"]
    real = keep.bool()[..., None]
    assert torch.equal(found & real, (TRIL & keep.bool()[:, None]) & real)


@every_way
@every_attention
def test_mistral_sees_as_far_as_its_windows_reach_together(attention, probe):
    model = build(MistralForCausalLM, MistralConfig, attention, **GROUPED, sliding_window=2)
    found = influence(model, {"input_ids": IDS}, probe=probe)["input_ids"]
    # A window of 2 there is the token itself and one to its left.
    assert torch.equal(found, reach([sliding_window(1)] * 2, LENGTH).expand(2, -1, -1))
    assert found[0].sum(1).tolist() == [1, 2, 3, 3, 3, 3]


@every_way
@every_attention
@pytest.mark.parametrize(("model", "config"), [(BertModel, BertConfig), (RobertaModel, RobertaConfig)])
def test_bert_sees_both_ways_and_keeps_padding_out(model, config, attention, probe):
    keep = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    encoder = build(model, config, attention, **SMALL)
    found = influence(encoder, {"input_ids": IDS, "attention_mask": keep}, probe=probe)["input_ids"]
    assert torch.equal(found, keep.bool()[:, None] | SELF)  # a padded row still holds its own token


@every_way
@every_attention
@pytest.mark.parametrize("make", [t5, bart])
def test_source_and_target_are_measured_apart_also_when_they_are_equal(make, attention, probe):
    keep = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]])
    inputs = {"input_ids": IDS, "attention_mask": keep, "decoder_input_ids": IDS.clone()}
    found = influence(make(attention), inputs, probe=probe)
    assert set(found) == {"input_ids", "decoder_input_ids"}
    assert torch.equal(found["input_ids"], keep.bool()[:, None].expand(2, LENGTH, LENGTH))
    assert torch.equal(found["decoder_input_ids"], TRIL.expand(2, -1, -1))


@every_attention
def test_one_of_two_inputs_can_be_picked_out(attention):
    inputs = {"input_ids": IDS, "decoder_input_ids": IDS[:, :4]}
    found = influence(t5(attention), inputs, of="decoder_input_ids")
    assert torch.equal(found["decoder_input_ids"], TRIL[:4, :4].expand(2, -1, -1))


@every_attention
def test_t5_whose_halves_share_no_weights(attention):
    found = influence(t5(attention, tie_word_embeddings=False), {"input_ids": IDS, "decoder_input_ids": IDS})
    assert found["input_ids"].all()
    assert torch.equal(found["decoder_input_ids"], TRIL.expand(2, -1, -1))


def test_embeddings_can_be_given_in_place_of_ids():
    model = llama("sdpa")
    embedded = model.get_input_embeddings()(IDS)
    assert torch.equal(influence(model, {"inputs_embeds": embedded})["inputs_embeds"], TRIL.expand(2, -1, -1))


@every_way
def test_a_cache_of_earlier_tokens_is_read_and_not_written(probe):
    model = llama("sdpa")
    with torch.no_grad():
        cache = model(IDS[:, :3]).past_key_values
    found = influence(model, {"input_ids": IDS[:, 3:], "past_key_values": cache}, probe=probe)["input_ids"]
    assert torch.equal(found, TRIL[:3, :3].expand(2, -1, -1))
    assert cache.get_seq_length() == 3


def test_real_models_are_left_as_they_were():
    for model in (gpt2("eager"), llama("sdpa"), t5("sdpa")):
        before = {name: each.clone() for name, each in model.state_dict().items()}
        attributes = {name: sorted(vars(part)) for name, part in model.named_modules()}
        inputs = {"input_ids": IDS} | ({"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {})
        influence(model, inputs)
        assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
        assert {name: sorted(vars(part)) for name, part in model.named_modules()} == attributes
        assert all(each.grad is None for each in model.parameters())


# ---- audit ------------------------------------------------------------------------

KEEP = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]])
REAL = padding(KEEP.bool())


def bert(attention):
    return build(BertModel, BertConfig, attention, **SMALL)


def mistral(attention):
    return build(MistralForCausalLM, MistralConfig, attention, **GROUPED, sliding_window=3)


def mixtral(attention, experts="eager"):
    model = build(MixtralForCausalLM, MixtralConfig, attention, **GROUPED, num_local_experts=4)
    model.set_experts_implementation(experts)
    return model


def whisper(attention):
    sizes = {"d_model": 32, "num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 16}
    options = {"decoder_start_token_id": 1, "suppress_tokens": None, "begin_suppress_tokens": None}
    return build(WhisperForConditionalGeneration, WhisperConfig, attention, **SIDES, **TOKENS, **sizes, **options)


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


def test_experts_in_kernels_for_float32_only_make_suspects_of_rounding():
    """Grouped matrix products round otherwise for other neighbours, and refuse float64: audit says so, no more."""
    report = audit(mixtral("sdpa", experts="grouped_mm"), {"input_ids": IDS}, lengths=[])
    assert report.ok
    assert 0 < max(each.size for each in report.suspects) < 1e-6
