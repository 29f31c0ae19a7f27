import pytest
import torch
from hypothesis import given

from attnmask import causal, padding
from attnmask.layers import CrossAttention, Decoder, Encoder, SelfAttention, Translator
from oracles import attention_loop, stacks, table

KEEP = torch.tensor([[True, True, True, False], [True, True, False, False]])
X = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))


@given(stacks())
def test_an_attention_of_many_heads_is_each_head_by_itself(layers):
    case = layers[0]
    sizes = case.sizes
    torch.manual_seed(0)
    attention = SelfAttention(d_model=4 * sizes.heads, heads=sizes.heads).double()
    x = torch.randn(sizes.batch, sizes.query_len, 4 * sizes.heads, dtype=torch.float64)
    allowed = table(case.rule, sizes)
    for b in range(sizes.batch):
        # Head h owns the h-th group of four columns of every projection, and of W_O's inputs.
        parts = [
            attention_loop(*(W(x[b])[:, 4 * h : 4 * h + 4] for W in projections(attention)), allowed[b, h])[1]
            for h in range(sizes.heads)
        ]
        expected = torch.cat(parts, dim=-1) @ attention.W_O.weight.T
        torch.testing.assert_close(attention(x, case.mask)[b], expected)


def projections(attention):
    return attention.W_Q, attention.W_K, attention.W_V


def test_an_encoder_layer_is_pre_norm_and_residual():
    encoder = Encoder(layers=1, d_model=8, heads=2)
    layer = encoder.layers[0]
    middle = X + layer.attention.part(torch.nn.functional.layer_norm(X, [8]), causal())
    torch.testing.assert_close(
        encoder(X, causal()),
        torch.nn.functional.layer_norm(middle + layer.mlp.part(torch.nn.functional.layer_norm(middle, [8])), [8]),
    )


def test_attention_alone_is_left_when_the_three_parts_are_left_out():
    encoder = Encoder(layers=2, d_model=8, residual=False, mlp=False, norm=False)
    one, two = (layer.attention.part for layer in encoder.layers)
    torch.testing.assert_close(encoder(X, [causal(), None]), two(one(X, causal())))
    assert {name.split(".")[-2] for name, _ in encoder.named_parameters()} == {"W_Q", "W_K", "W_V", "W_O"}


@pytest.mark.parametrize("part", ["residual", "mlp", "norm"])
def test_each_part_can_be_left_out_alone(part):
    torch.manual_seed(0)
    whole = Encoder(layers=1, d_model=8)
    without = Encoder(layers=1, d_model=8, **{part: False})
    without.load_state_dict(whole.state_dict(), strict=False)
    assert not torch.allclose(whole(X), without(X))


def test_one_mask_serves_all_layers():
    encoder = Encoder(layers=3, d_model=8)
    torch.testing.assert_close(encoder(X, causal()), encoder(X, [causal()] * 3), rtol=0, atol=0)


def test_a_mask_in_the_first_layer_only_is_one_argument():
    encoder = Encoder(layers=2, d_model=8)
    everywhere, first_only = encoder(X, padding(KEEP)), encoder(X, [padding(KEEP), None])
    assert not torch.allclose(everywhere, first_only)


def test_a_decoder_attends_to_itself_then_to_memory():
    decoder = Decoder(layers=1, d_model=8, residual=False, mlp=False, norm=False)
    layer, memory = decoder.layers[0], torch.randn(2, 4, 8)
    expected = layer.cross_attention.part(layer.attention.part(X[:, :3], causal()), memory, padding(KEEP))
    torch.testing.assert_close(decoder(X[:, :3], memory, causal(), padding(KEEP)), expected)


def test_cross_attention_of_a_sequence_to_itself_is_self_attention():
    attention = SelfAttention(d_model=8, heads=2)
    cross = CrossAttention(d_model=8, heads=2)
    cross.load_state_dict(attention.state_dict())
    torch.testing.assert_close(attention(X, causal()), cross(X, X, causal()), rtol=0, atol=0)


def test_a_translator_embeds_encodes_decodes_and_scores():
    source, target = torch.tensor([[5, 3, 0], [4, 2, 1]]), torch.tensor([[1, 4], [1, 7]])
    model = Translator(source_vocabulary=6, target_vocabulary=9, layers=2, d_model=8, heads=2)
    real = padding(source != 0)
    memory = model.encoder(model.source_embedding.weight[source] + model.positions.weight[:3], real)
    decoded = model.decoder(model.target_embedding.weight[target] + model.positions.weight[:2], memory, causal(), real)
    expected = decoded @ model.logits.weight.T + model.logits.bias
    torch.testing.assert_close(model(source, target, real, causal(), real), expected)
    assert expected.shape == (2, 2, 9)


def test_layers_train():
    torch.manual_seed(0)
    model = Translator(source_vocabulary=6, target_vocabulary=6, layers=1, d_model=16, heads=2)
    source, target = torch.randint(6, (4, 5)), torch.randint(6, (4, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        logits = model(source, target[:, :-1], target_masks=causal())
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
