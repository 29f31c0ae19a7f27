"""Hugging Face models as they are, measured with `influence`."""

import pytest
import torch
from transformers import BertConfig, BertModel, MistralConfig, MistralForCausalLM, RobertaConfig, RobertaModel

from attnmask import causal, padding, sliding_window
from attnmask.probe import influence
from attnmask.stacks import reach
from real_models import GROUPED, IDS, SMALL, bart, build, gpt2, llama, t5

LENGTH = IDS.shape[1]
TRIL = torch.ones(LENGTH, LENGTH).tril().bool()
SELF = torch.eye(LENGTH).bool()
every_way = pytest.mark.parametrize("probe", ["gradient", "perturbation"])
every_attention = pytest.mark.parametrize("attention", ["eager", "sdpa"])


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
