"""What is written for Hugging Face, and what its two axes cannot hold."""

from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from transformers import BartConfig, BartForCausalLM, GPT2Config, GPT2LMHeadModel

from attnmask import conventions
from oracles import cases, table


@given(cases())
def test_huggingface_holds_masks_of_keys_and_refuses_others(case):
    wanted, sizes = table(case.rule, case.sizes), asdict(case.sizes)
    del sizes["heads"]
    if (wanted == wanted[:, :1, :1]).all() and case.mask.heads == 1:
        written = conventions.to_huggingface(case.mask, **sizes)
        assert written.tolist() == wanted[:, 0, 0].int().tolist()
        assert conventions.from_huggingface(written).same_as(case.mask, **asdict(case.sizes))
    elif (wanted[:, :1] != wanted[:, :1, :1]).any():
        with pytest.raises(ValueError, match="a causal part, which a decoder model adds by itself"):
            conventions.to_huggingface(case.mask, **sizes)


@pytest.mark.parametrize("by_itself", [True, False])
def test_the_classes_that_the_book_names_shift_their_labels_or_do_not(by_itself):
    if by_itself:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2))
    else:
        sizes = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}
        model = BartForCausalLM(BartConfig(vocab_size=20, d_model=16, **sizes, pad_token_id=0))
    model.eval()
    ids = torch.tensor([[3, 14, 15, 9, 2]])
    output = model(ids, labels=ids)
    shifted = F.cross_entropy(output.logits[0, :-1], ids[0, 1:])
    unshifted = F.cross_entropy(output.logits[0], ids[0])
    assert (shifted - unshifted).abs() > 0.01
    torch.testing.assert_close(output.loss, shifted if by_itself else unshifted)
