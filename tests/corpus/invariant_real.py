"""Models of Hugging Face as they are, small, with random weights; imported when they are made."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from corpus.case import VOCABULARY, Inputs
from corpus.padded_case import invariant, variant
from corpus.padded_inputs import laid_out, left, right
from corpus.padded_parts import counted


def _named(name: str) -> Callable[[int], nn.Module]:
    def make(seed: int) -> nn.Module:
        import real_models

        with torch.random.fork_rng(devices=[]):
            return getattr(real_models, name)("eager")

    return make


def _small(model: str, config: str, **options: Any) -> Callable[[int], nn.Module]:
    def make(seed: int) -> nn.Module:
        import transformers

        sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return getattr(transformers, model)(getattr(transformers, config)(**sizes, **options))

    return make


def _given(side: Callable[..., dict[str, Tensor]], *, positions: bool = False) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> dict[str, Tensor]:
        given = side(seed)
        places = {"position_ids": counted(given["ids"], given["keep"])} if positions else {}
        return {"input_ids": given["ids"], "attention_mask": given["keep"].long()} | places

    return inputs


def _translated(seed: int) -> dict[str, Tensor]:
    target = right(seed + 100, lengths=(6, 3))
    return _given(right)(seed) | {
        "decoder_input_ids": target["ids"],
        "decoder_attention_mask": target["keep"].long(),
    }


def _kept(inputs: dict[str, Tensor]) -> Tensor:
    return inputs["attention_mask"] == 1


def _both_kept(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"input_ids": _kept(inputs), "decoder_input_ids": inputs["decoder_attention_mask"] == 1}


def _logits(output: Any) -> Tensor:
    return output.logits


# Cast to float64, Llama gives NaN: its softmax is in float32, to which the lowest number of float64 is -inf.
AS_MADE = {"dtype": None, "rounding": 1e-5}

invariant(
    "bert_padded_on_the_right",
    "BERT with its attention mask.",
    _named("bert"),
    **laid_out(_given(right), keep=_kept),
    out=lambda output: output.last_hidden_state,
)
invariant(
    "llama_padded_on_the_left",
    "Llama without position_ids, of which only distances count, up to rounding.",
    _named("llama"),
    **laid_out(_given(left), at=0, keep=_kept),
    out=_logits,
    **AS_MADE,
)
invariant(
    "llama_with_position_ids",
    "Llama with position_ids counted from the mask.",
    _named("llama"),
    **laid_out(_given(left, positions=True), at=0, keep=_kept),
    out=_logits,
    **AS_MADE,
)
invariant(
    "gpt2_with_position_ids",
    "GPT-2 with position_ids counted from the mask.",
    _named("gpt2"),
    **laid_out(_given(left, positions=True), at=0, keep=_kept),
    out=_logits,
)
invariant(
    "t5_padded_on_the_right",
    "T5 with both attention masks.",
    _named("t5"),
    **laid_out(_translated, keep=_both_kept),
    out=_logits,
    of="decoder_input_ids",
)
invariant(
    "mamba_padded_on_the_left",
    "Mamba sets padding to 0 before its convolution and after it.",
    _small("MambaForCausalLM", "MambaConfig", state_size=4, pad_token_id=0),
    **laid_out(_given(left), at=0, keep=_kept),
    out=_logits,
    **AS_MADE,
)
variant(
    "fnet_padded_on_the_right",
    "FNet has no argument for a mask, and transforms padding with the tokens.",
    _small("FNetModel", "FNetConfig", intermediate_size=48, pad_token_id=0),
    "huggingface/transformers#14359",
    **laid_out(lambda seed: {"input_ids": right(seed)["ids"]}, keep=lambda inputs: inputs["input_ids"] != 0),
    out=lambda output: output.last_hidden_state,
)
variant(
    "rwkv_padded_on_the_left",
    "RWKV accepts an attention mask, does not use it, and reads the padding into its state.",
    _small("RwkvForCausalLM", "RwkvConfig", attention_hidden_size=32, context_length=16),
    "huggingface/transformers#27210",
    **laid_out(_given(left), at=0, keep=_kept),
    out=_logits,
    cause="mask unused",
)
variant(
    "gpt2_without_position_ids",
    "GPT-2 counts its learned positions from the first column, and the padding is on the left.",
    _named("gpt2"),
    "huggingface/transformers#29583",
    "huggingface/trl#469",
    **laid_out(_given(left), at=0, keep=_kept),
    out=_logits,
    where="transformer.drop",
    cause="positions",
)
