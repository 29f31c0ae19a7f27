"""Do the models of Hugging Face transformers obey their masks, and what does it cost to ask?

    .venv/bin/python companion/benchmarks/models.py

Writes models.md beside this file. Each model is built small from its config, with random weights, and audited
once in this process, on one thread; nothing is downloaded.
"""

import statistics
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn
from tqdm import tqdm

from attnmask import Audit, Mask, audit, causal, chunked, documents, everything, padding, reach, sliding_window

RESULT = Path(__file__).with_suffix(".md")
KEEP = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 0, 0]])
REAL = padding(KEEP.bool())

# ---- inputs --------------------------------------------------------------------------------

_LINE = [[7, 30, 9, 30, 5, 11, 44, 21], [8, 8, 12, 60, 23, 13, 52, 31]]
ONE = {"input_ids": torch.tensor(_LINE[:1])}
LONG = {"input_ids": torch.arange(3, 19)[None]}
PADDED = {"input_ids": torch.tensor(_LINE), "attention_mask": KEEP}
TARGET = {"decoder_input_ids": torch.tensor([[33, 6, 17, 40, 9], [25, 25, 8, 14, 51]])}
TRANSLATED = PADDED | TARGET
BOTH = {"input_ids": REAL, "decoder_input_ids": causal()}

# ---- sizes ---------------------------------------------------------------------------------

TOKENS = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = TOKENS | {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = SMALL | {"num_key_value_heads": 2}
HEADS = GROUPED | {"head_dim": 8}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
GPT = TOKENS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
SIDES = TOKENS | {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in {"layers": 2, "attention_heads": 4, "ffn_dim": 48}.items()
}
TWO_SIDED = SIDES | {"d_model": 32, "max_position_embeddings": 64, "decoder_start_token_id": 2}
UNDROPPED = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "moe_token_dropout": 0.0}
T5 = TOKENS | {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}


class Entry(NamedTuple):
    """A model of transformers, how it is built, what it is given, and what its outputs may finally depend on.

    A list of masks is one a layer: what reaches what through all of them.
    """

    name: str
    model: str
    options: Mapping[str, Any]
    allowed: Any = causal()
    inputs: Mapping[str, Any] = ONE
    asked: Mapping[str, Any] = {}  # other arguments of `audit`
    why: str = ""  # where it is accused, and rightly


def window(size: int, right: int = 0) -> Mask:
    return sliding_window(size - 1, right)


# fmt: off
CAUSAL = [
    Entry("GPT-2", "GPT2LMHeadModel", GPT),
    Entry("GPT-2, eager", "GPT2LMHeadModel", GPT | {"attn_implementation": "eager"}),
    Entry("GPT-Neo, local", "GPTNeoForCausalLM", TOKENS | {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["local"], 2]], "window_size": 3, "max_position_embeddings": 64}, [window(3)] * 2),
    Entry("GPT-NeoX", "GPTNeoXForCausalLM", SMALL),
    Entry("GPT-J", "GPTJForCausalLM", GPT | {"rotary_dim": 4}),
    Entry("GPT-BigCode", "GPTBigCodeForCausalLM", GPT),
    Entry("CodeGen", "CodeGenForCausalLM", GPT | {"rotary_dim": 4}),
    Entry("OPT", "OPTForCausalLM", SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64}),
    Entry("Bloom, ALiBi", "BloomForCausalLM", TOKENS | {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    Entry("Falcon", "FalconForCausalLM", SMALL),
    Entry("Falcon, ALiBi", "FalconForCausalLM", SMALL | {"alibi": True}),
    Entry("MPT, ALiBi", "MptForCausalLM", TOKENS | {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}),
    Entry("Llama", "LlamaForCausalLM", GROUPED),
    Entry("Llama, eager", "LlamaForCausalLM", GROUPED | {"attn_implementation": "eager"}),
    Entry("Llama, padded", "LlamaForCausalLM", GROUPED, causal() & REAL, PADDED),
    Entry("Llama, two documents", "LlamaForCausalLM", GROUPED | {"use_cache": False}, causal() & documents(torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])), ONE | {"position_ids": torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]])}),
    Entry("Mistral, window", "MistralForCausalLM", GROUPED | {"sliding_window": 3}, [window(3)] * 2),
    Entry("Mistral, window, eager", "MistralForCausalLM", GROUPED | {"sliding_window": 3, "attn_implementation": "eager"}, [window(3)] * 2),
    Entry("Mixtral", "MixtralForCausalLM", GROUPED | EXPERTS),
    Entry("Mixtral, eager experts", "MixtralForCausalLM", GROUPED | EXPERTS | {"experts_implementation": "eager"}),
    Entry("Qwen2", "Qwen2ForCausalLM", GROUPED),
    Entry("Qwen2, window", "Qwen2ForCausalLM", GROUPED | {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0}, [window(3)] * 2),
    Entry("Qwen2-MoE", "Qwen2MoeForCausalLM", GROUPED | EXPERTS | {"shared_expert_intermediate_size": 24}),
    Entry("Qwen3", "Qwen3ForCausalLM", HEADS),
    Entry("Qwen3-MoE", "Qwen3MoeForCausalLM", HEADS | EXPERTS),
    Entry("Qwen3-Next", "Qwen3NextForCausalLM", HEADS | EXPERTS | {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "shared_expert_intermediate_size": 24}),
    Entry("Gemma", "GemmaForCausalLM", HEADS),
    Entry("Gemma 2, local and global", "Gemma2ForCausalLM", HEADS | {"sliding_window": 3}),
    Entry("Gemma 2, local", "Gemma2ForCausalLM", HEADS | {"sliding_window": 3, "layer_types": ["sliding_attention"] * 2}, [window(3)] * 2),
    Entry("Gemma 3, local and global", "Gemma3ForCausalLM", HEADS | {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}),
    Entry("Gemma 3, local", "Gemma3ForCausalLM", HEADS | {"sliding_window": 3, "layer_types": ["sliding_attention"] * 2}, [window(3)] * 2),
    Entry("Gemma 3n", "Gemma3nForCausalLM", HEADS | {"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8, "laurel_rank": 4, "sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"], "num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0, 0.0]}),
    Entry("Phi", "PhiForCausalLM", SMALL),
    Entry("Phi-3", "Phi3ForCausalLM", GROUPED),
    Entry("Phi-3, window", "Phi3ForCausalLM", GROUPED | {"sliding_window": 3}, [window(3)] * 2),
    Entry("PhiMoE", "PhimoeForCausalLM", GROUPED | EXPERTS),
    Entry("StarCoder2, window", "Starcoder2ForCausalLM", GROUPED | {"sliding_window": 3}, [window(3)] * 2),
    Entry("StableLM", "StableLmForCausalLM", GROUPED),
    Entry("OLMo", "OlmoForCausalLM", GROUPED),
    Entry("OLMo 2", "Olmo2ForCausalLM", GROUPED),
    Entry("OLMo 3, local and global", "Olmo3ForCausalLM", GROUPED | {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}),
    Entry("OLMoE", "OlmoeForCausalLM", GROUPED | EXPERTS),
    Entry("Cohere", "CohereForCausalLM", GROUPED),
    Entry("Cohere 2, local and global", "Cohere2ForCausalLM", GROUPED | {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}),
    Entry("Granite", "GraniteForCausalLM", GROUPED),
    Entry("GraniteMoE", "GraniteMoeForCausalLM", GROUPED | EXPERTS),
    Entry("DeepSeek-V2", "DeepseekV2ForCausalLM", SMALL | EXPERTS | {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}),
    Entry("DeepSeek-V3", "DeepseekV3ForCausalLM", SMALL | EXPERTS | {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}),
    Entry("GPT-OSS, local and global", "GptOssForCausalLM", HEADS | EXPERTS | {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}),
    Entry("GLM-4", "Glm4ForCausalLM", HEADS),
    Entry("SmolLM3", "SmolLM3ForCausalLM", GROUPED),
    Entry("EXAONE 4", "Exaone4ForCausalLM", GROUPED | {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}),
    Entry("Nemotron", "NemotronForCausalLM", GROUPED),
    Entry("Persimmon", "PersimmonForCausalLM", SMALL),
    Entry("Apertus", "ApertusForCausalLM", GROUPED),
    Entry("DiffLlama", "DiffLlamaForCausalLM", GROUPED),
    Entry("HunYuan", "HunYuanDenseV1ForCausalLM", HEADS),
    Entry("JetMoE", "JetMoeForCausalLM", TOKENS | {"hidden_size": 32, "num_hidden_layers": 2, "num_key_value_heads": 2, "kv_channels": 8, "intermediate_size": 48, "num_local_experts": 4}),
    Entry("Llama 4, chunks", "Llama4ForCausalLM", HEADS | {"attention_chunk_size": 4, "layer_types": ["chunked_attention"] * 2, "no_rope_layers": [1, 1], "moe_layers": [], "intermediate_size_mlp": 48}, causal() & chunked(4)),
    Entry("Llama 4, chunks and global, experts", "Llama4ForCausalLM", HEADS | EXPERTS | {"attention_chunk_size": 4, "layer_types": ["chunked_attention", "full_attention"], "moe_layers": [1], "intermediate_size_mlp": 48}),
    Entry("Doge", "DogeForCausalLM", GROUPED),
    Entry("XGLM", "XGLMForCausalLM", TOKENS | {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": 64}),
    Entry("BioGPT", "BioGptForCausalLM", SMALL | {"max_position_embeddings": 64}),
    Entry("CTRL", "CTRLLMHeadModel", TOKENS | {"n_embd": 32, "dff": 48, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    Entry("GPT (first)", "OpenAIGPTLMHeadModel", GPT),
    Entry("BART, decoder alone", "BartForCausalLM", TWO_SIDED),
    Entry("BERT as a decoder", "BertLMHeadModel", SMALL | {"is_decoder": True}),
    Entry("LFM2", "Lfm2ForCausalLM", GROUPED | {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3}),
    Entry("LFM2, convolutions", "Lfm2ForCausalLM", GROUPED | {"use_cache": False, "layer_types": ["conv", "conv"], "conv_L_cache": 3}, [window(3)] * 2),
    Entry("ModernBERT decoder, local", "ModernBertDecoderForCausalLM", SMALL | {"local_attention": 4, "layer_types": ["sliding_attention"] * 2}, [window(2)] * 2),
]
RECURRENT = [
    Entry("Mamba", "MambaForCausalLM", TOKENS | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    Entry("Mamba 2", "Mamba2ForCausalLM", TOKENS | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 4}),
    Entry("Falcon-Mamba", "FalconMambaForCausalLM", TOKENS | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    Entry("RWKV", "RwkvForCausalLM", TOKENS | {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}),
    Entry("RecurrentGemma", "RecurrentGemmaForCausalLM", GROUPED | {"lru_width": 32, "attention_window_size": 3, "block_types": ["recurrent", "attention"]}),
    Entry("RecurrentGemma, attention", "RecurrentGemmaForCausalLM", GROUPED | {"lru_width": 32, "attention_window_size": 3, "block_types": ["attention"]}, [window(3)] * 2),
    Entry("Falcon-H1", "FalconH1ForCausalLM", HEADS | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_chunk_size": 4}),
    Entry("Bamba", "BambaForCausalLM", HEADS | {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_chunk_size": 4, "attn_layer_indices": [1]}),
    Entry("GraniteMoE hybrid", "GraniteMoeHybridForCausalLM", GROUPED | EXPERTS | {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_chunk_size": 4, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 24}),
    Entry("Jamba", "JambaForCausalLM", GROUPED | EXPERTS | {"use_mamba_kernels": False, "mamba_d_state": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}),
    Entry("Zamba 2", "Zamba2ForCausalLM", SMALL | {"use_mamba_kernels": False, "mamba_d_state": 4, "n_mamba_heads": 4, "mamba_headdim": 16, "mamba_ngroups": 1, "chunk_size": 4, "layers_block_type": ["mamba", "hybrid"], "adapter_rank": 4, "num_mem_blocks": 1}),
    Entry("MiniMax", "MiniMaxForCausalLM", HEADS | EXPERTS | {"block_size": 4, "layer_types": ["linear_attention", "full_attention"]}),
]
ENCODERS = [
    Entry("BERT", "BertModel", SMALL, REAL, PADDED),
    Entry("BERT, eager", "BertModel", SMALL | {"attn_implementation": "eager"}, REAL, PADDED),
    Entry("RoBERTa", "RobertaModel", SMALL | {"max_position_embeddings": 64}, REAL, PADDED),
    Entry("XLM-R", "XLMRobertaModel", SMALL | {"max_position_embeddings": 64}, REAL, PADDED),
    Entry("DistilBERT", "DistilBertModel", TOKENS | {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}, REAL, PADDED),
    Entry("ELECTRA", "ElectraModel", SMALL | {"embedding_size": 16}, REAL, PADDED),
    Entry("MPNet", "MPNetModel", SMALL | {"max_position_embeddings": 64}, REAL, PADDED),
    Entry("ALBERT", "AlbertModel", SMALL | {"embedding_size": 16}, REAL, PADDED),
    Entry("DeBERTa", "DebertaModel", SMALL, REAL, PADDED),
    Entry("DeBERTa v2", "DebertaV2Model", SMALL | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16}, REAL, PADDED),
    Entry("DeBERTa v2, convolution", "DebertaV2Model", SMALL | {"conv_kernel_size": 3, "conv_act": "gelu"}, REAL, PADDED),
    Entry("ModernBERT, global and local", "ModernBertModel", SMALL | {"local_attention": 4, "global_attn_every_n_layers": 2}, REAL, PADDED),
    Entry("ModernBERT, local", "ModernBertModel", SMALL | {"local_attention": 4, "layer_types": ["sliding_attention"] * 2}, [REAL & sliding_window(2, 2)] * 2, PADDED),
    Entry("NomicBERT", "NomicBertModel", SMALL, REAL, PADDED),
    Entry("EuroBERT", "EuroBertModel", GROUPED, REAL, PADDED),
    Entry("XLNet", "XLNetModel", TOKENS | {"d_model": 32, "d_inner": 48, "n_layer": 2, "n_head": 4}, REAL, PADDED),
    Entry("XLM", "XLMModel", TOKENS | {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64}, REAL, PADDED),
    Entry("FlauBERT", "FlaubertModel", TOKENS | {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64}, REAL, PADDED),
    Entry("Longformer, local", "LongformerModel", SMALL | {"attention_window": [4, 4], "max_position_embeddings": 64}, [sliding_window(2, 2)] * 2, LONG, {"without_ids": 0}),
    Entry("BigBird", "BigBirdModel", SMALL | {"attention_type": "original_full"}, REAL, PADDED),
    Entry("ESM", "EsmModel", SMALL | {"max_position_embeddings": 64, "mask_token_id": 3, "position_embedding_type": "rotary"}, REAL, PADDED),
    Entry("Funnel, no pooling", "FunnelModel", TOKENS | {"block_sizes": [2], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 48, "num_decoder_layers": 1}, REAL, PADDED),
    Entry("SqueezeBERT", "SqueezeBertModel", SMALL | {"embedding_size": 32}, REAL, PADDED),
    Entry("RemBERT", "RemBertModel", SMALL | {"input_embedding_size": 16}, REAL, PADDED),
    Entry("RoFormer", "RoFormerModel", SMALL | {"embedding_size": 32}, REAL, PADDED),
    Entry("I-BERT", "IBertModel", SMALL | {"max_position_embeddings": 64}, REAL, PADDED),
    Entry("Megatron-BERT", "MegatronBertModel", SMALL, REAL, PADDED),
    Entry("LayoutLM", "LayoutLMModel", SMALL, REAL, PADDED),
    Entry("Data2Vec text", "Data2VecTextModel", SMALL | {"max_position_embeddings": 64}, REAL, PADDED),
    Entry("CANINE", "CanineModel", SMALL, REAL, PADDED),
    Entry("CLIP text", "CLIPTextModel", SMALL | {"max_position_embeddings": 64}, causal() & REAL, PADDED),
    Entry("SigLIP text", "SiglipTextModel", SMALL | {"max_position_embeddings": 64}, REAL, PADDED),
    Entry("T5 encoder", "T5EncoderModel", T5, REAL, PADDED),
    Entry("LongT5 encoder, local", "LongT5EncoderModel", T5 | {"local_radius": 2}, [sliding_window(2, 2)] * 2),
]
TRANSLATORS = [
    Entry("T5", "T5ForConditionalGeneration", T5, BOTH, TRANSLATED),
    Entry("T5, eager", "T5ForConditionalGeneration", T5 | {"attn_implementation": "eager"}, BOTH, TRANSLATED),
    Entry("UMT5", "UMT5ForConditionalGeneration", T5, BOTH, TRANSLATED),
    Entry("mT5", "MT5ForConditionalGeneration", T5, BOTH, TRANSLATED),
    Entry("Switch", "SwitchTransformersForConditionalGeneration", T5 | {"num_experts": 4, "num_decoder_layers": 2}, BOTH, TRANSLATED),
    Entry("BART", "BartForConditionalGeneration", TWO_SIDED, BOTH, TRANSLATED),
    Entry("mBART", "MBartForConditionalGeneration", TWO_SIDED, BOTH, TRANSLATED),
    Entry("Pegasus", "PegasusForConditionalGeneration", TWO_SIDED, BOTH, TRANSLATED),
    Entry("Marian", "MarianMTModel", TWO_SIDED, BOTH, TRANSLATED),
    Entry("Blenderbot", "BlenderbotForConditionalGeneration", TWO_SIDED, BOTH, TRANSLATED),
    Entry("PLBart", "PLBartForConditionalGeneration", TWO_SIDED, BOTH, TRANSLATED),
    Entry("M2M100", "M2M100ForConditionalGeneration", TWO_SIDED, BOTH, TRANSLATED),
    Entry("NLLB-MoE", "NllbMoeForConditionalGeneration", TWO_SIDED | UNDROPPED | {"num_experts": 4, "encoder_sparse_step": 2, "decoder_sparse_step": 2}, BOTH, TRANSLATED),
    Entry("LED", "LEDForConditionalGeneration", TWO_SIDED | {"attention_window": [4, 4], "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64}, BOTH, TRANSLATED),
    Entry("LongT5", "LongT5ForConditionalGeneration", T5 | {"local_radius": 2}, BOTH, TRANSLATED),
    Entry("T5Gemma", "T5GemmaForConditionalGeneration", {"encoder": HEADS | {"sliding_window": 3}, "decoder": HEADS | {"sliding_window": 3}, "vocab_size": 64}, BOTH, TRANSLATED),
    Entry("Whisper", "WhisperForConditionalGeneration", SIDES | {"d_model": 32, "num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 64, "decoder_start_token_id": 1}, {"input_features": everything(), "decoder_input_ids": causal()}, {"input_features": torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(0))} | TARGET, {"position_axis": {"input_features": 2}}),
    Entry("Moonshine", "MoonshineForConditionalGeneration", TOKENS | {"hidden_size": 32, "intermediate_size": 48, "encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 2, "encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4, "decoder_start_token_id": 1}, {"decoder_input_ids": causal()}, {"input_values": torch.randn(2, 2000, generator=torch.Generator().manual_seed(0))} | TARGET),
]
ACCUSED = [
    Entry("YOSO", "YosoModel", SMALL, REAL, PADDED, why="It does not use its attention_mask: the layers read 1 and 0 as if they were 0 and -10000."),
    Entry("Nyströmformer", "NystromformerModel", SMALL | {"num_landmarks": 8, "segment_means_seq_len": 8}, REAL, PADDED, why="A convolution over the values reads the padding."),
    Entry("ConvBERT", "ConvBertModel", SMALL | {"embedding_size": 32, "head_ratio": 2, "num_groups": 1, "conv_kernel_size": 3}, REAL, PADDED, why="A convolution, as designed, reads the padding."),
    Entry("FNet", "FNetModel", SMALL, REAL, {"input_ids": PADDED["input_ids"]}, why="It takes no mask: its Fourier transform mixes all tokens, as designed."),
    Entry("ESM, token dropout", "EsmModel", SMALL | {"max_position_embeddings": 64, "mask_token_id": 3, "position_embedding_type": "rotary", "token_dropout": True}, REAL, PADDED, why="It scales all tokens by the share of mask ids, and counts those in the padding too."),
    Entry("Funnel", "FunnelModel", TOKENS | {"block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 48, "num_decoder_layers": 1}, REAL, PADDED, why="Its pooling joins the last real token with the first padded one."),
    Entry("MobileBERT", "MobileBertModel", SMALL | {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16, "num_feedforward_networks": 1}, REAL, PADDED, why="Its embedding of a token takes in the next one, padded or not."),
    Entry("ProphetNet", "ProphetNetForConditionalGeneration", TOKENS | {"hidden_size": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_encoder_layers": 2, "num_decoder_layers": 2, "num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4, "max_position_embeddings": 64}, BOTH, TRANSLATED, why="Each output depends on the next token, by 5e-7 here, which a gradient of 2e-5 confirms."),
]
# fmt: on
MODELS = [*CAUSAL, *RECURRENT, *ENCODERS, *TRANSLATORS]


def built(entry: Entry) -> nn.Module:
    """Build a model with random weights, always the same."""
    kind = getattr(transformers, entry.model)
    torch.manual_seed(0)
    return kind(kind.config_class(**entry.options)).eval()


def rule(entry: Entry) -> Any:
    """Return what an output may finally depend on: through layers of different masks, what they let through in all."""
    if not isinstance(entry.allowed, list):
        return entry.allowed
    ids = entry.inputs["input_ids"]
    return {"input_ids": reach(entry.allowed, ids.shape[1], batch=len(ids))}


def examined(entry: Entry) -> tuple[Audit, float, list[str]]:
    """Audit a model as `assert_allowed` does with ``exact=True``; return the report, seconds, and what was warned of."""
    model = built(entry)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        start = time.perf_counter()
        report = audit(model, entry.inputs, rule(entry), exact=True, **entry.asked)
        return report, time.perf_counter() - start, [str(each.message) for each in warned]


def forward(entry: Entry) -> float:
    """Return how many milliseconds one forward pass takes."""
    model, times = built(entry), []
    with torch.no_grad():
        for _ in range(5):
            start = time.perf_counter()
            model(**entry.inputs)
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def asked(allowed: Any) -> str:
    """Write a rule as it was written."""
    if isinstance(allowed, Mapping):
        return ", ".join(f"{name}: {each!r}" for name, each in allowed.items())
    return f"reach([{', '.join(map(repr, allowed))}])" if isinstance(allowed, list) else repr(allowed)


def row(entry: Entry) -> str:
    """Examine a model and write its row."""
    report, seconds, warned = examined(entry)
    verdict = "obeys exactly" if report.ok else f"{len(report.leaks)} leaks" if report.leaks else "hides too much"
    verdict = "; ".join([verdict, *[f"{len(report.suspects)} suspects"] * bool(report.suspects), *warned[:1]])
    unused = f" `{report.unused[0]}` has no effect." if report.unused else ""
    cells = [
        entry.name,
        f"`{asked(entry.allowed)}`",
        verdict,
        f"{seconds:.1f}",
        f"{report.runs}",
        f"{forward(entry):.1f}",
    ]
    return f"| {' | '.join([*cells, *[entry.why + unused] * bool(entry.why)])} |"


def table(entries: Iterable[Entry], *more: str) -> str:
    """Examine models and write them as a table."""
    heads = [
        "model",
        "what its outputs may finally depend on",
        "verdict",
        "seconds",
        "runs",
        "forward, milliseconds",
        *more,
    ]
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *map(row, tqdm(list(entries)))])


def main() -> None:
    """Write the result."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    right, accused = table(MODELS), table(ACCUSED, "why")
    RESULT.write_text(
        f"""# Models of transformers under `audit(..., exact=True)`

transformers {transformers.__version__}, PyTorch {torch.__version__.split("+")[0]}, one thread, random weights, width 32,
two layers. Each is asked whether its outputs depend on nothing but what the rule allows, and on all of it, in
evaluation and training. `reach([...])` is what layers with these masks let through in all.

## As it should be

{right}

## Rightly accused

{accused}
"""
    )


if __name__ == "__main__":
    main()
