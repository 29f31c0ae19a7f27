"""Hugging Face models as they are, built small from configs, with random weights."""

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    ModernBertConfig,
    ModernBertModel,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

VOCABULARY = 64
IDS = torch.tensor([[7, 30, 9, 30, 5, 11], [8, 8, 12, 60, 3, 2]])
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


def gemma3(attention):
    """Return a model whose first layer is local and whose second is global."""
    options = {"head_dim": 8, "sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}
    return build(Gemma3ForCausalLM, Gemma3TextConfig, attention, **GROUPED, **options)


def modernbert(attention):
    """Return a model whose first layer is global and whose second sees two tokens to each side."""
    options = {"local_attention": 4, "global_attn_every_n_layers": 2}
    return build(ModernBertModel, ModernBertConfig, attention, **SMALL, **options)


def mamba(attention):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    return build(MambaForCausalLM, MambaConfig, attention, **TOKENS, **sizes)
