"""PyTorch's own layers and ours under `audit`: on and off the fast path, with memory, one layer forgetful."""

import pytest
import torch
from torch import nn

from attnmask import Decoder, audit, causal, padding
from audited import KEEP, X

pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.usefixtures("as_installed"),  # thousands of runs: with the checks of every signature, half as fast
]


@pytest.fixture
def blocked():
    return torch.ones(5, 5, dtype=torch.bool).triu(1)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("heads", [2, 1])  # an odd number of heads keeps off the fast path
def test_transformer_encoder_on_and_off_the_fast_path(blocked, batch_first, heads):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, heads, 16, batch_first=batch_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    axis = 1 if batch_first else 0
    x = X.expand(2, -1, -1) if batch_first else X.expand(2, -1, -1).transpose(0, 1)
    options = {"position_axis": axis, "lengths": []}
    assert audit(lambda x: model(x, mask=blocked, is_causal=True), x, **options).ok
    report = audit(model, x, **options)
    assert {(each.output, each.input) for each in report.leaks} == {(q, k) for q in range(5) for k in range(q + 1, 5)}
    assert {each.module.split(".")[1] for each in report.leaks} == {"0"}
    keep = {"src_key_padding_mask": ~KEEP}
    assert audit(model, {"src": x} | keep, padding(KEEP), **options).ok
    assert not audit(model, {"src": x}, padding(KEEP), **options).ok


def test_channels_are_not_taken_for_positions():
    """Eight channels, eight positions: the first convolution is causal, the second looks ahead."""

    class Convolutions(nn.Module):
        def __init__(self):
            super().__init__()
            self.causal, self.ahead = nn.Conv1d(8, 8, 3), nn.Conv1d(8, 8, 3, padding=1)

        def forward(self, x):
            return self.ahead(self.causal(nn.functional.pad(x.mT, (2, 0)))).mT

    torch.manual_seed(0)
    report = audit(Convolutions(), torch.randn(2, 8, 8), lengths=[])
    assert {each.module for each in report.leaks} == {"ahead"}


def test_a_leak_on_the_fast_path_alone_is_seen_there_alone():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)

    def model(x):
        fast = not (attention.training or torch.is_grad_enabled())
        return attention(x, x, x, attn_mask=None if fast else mask, is_causal=True, need_weights=False)[0]

    report = audit(model, X, lengths=[])
    assert {each.seen for each in report.leaks} == {(("changed inputs", "eval"),)}


def test_transformer_decoder_with_memory(blocked):
    torch.manual_seed(0)
    model = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2)
    given = {"tgt": X.expand(2, -1, -1), "memory": torch.randn(2, 5, 8), "memory_key_padding_mask": ~KEEP}
    allowed = {"tgt": causal(), "memory": padding(KEEP)}
    assert audit(model, given | {"tgt_mask": blocked, "tgt_is_causal": True}, allowed).ok
    report = audit(model, given, allowed)
    assert {each.of for each in report.leaks} == {"tgt"}
    assert {each.module for each in report.leaks} == {"layers.0.self_attn"}
    report = audit(model, given | {"tgt_mask": blocked, "memory_key_padding_mask": None}, allowed)
    assert {(each.of, each.because) for each in report.leaks} == {("memory", "which is padding")}
    assert {each.module for each in report.leaks} - {""} == {"layers.0.multihead_attn"}


def test_our_own_decoder_leaks_where_a_layer_forgot_its_mask():
    torch.manual_seed(0)
    decoder = Decoder(layers=3, d_model=8)
    memory = torch.randn(1, 4, 8)
    report = audit(lambda x: decoder(x, memory, [causal(), None, causal()]), X, lengths=[], modes="eval")
    assert all(each.module.startswith("Decoder.layers.1.") for each in report.leaks), report
    assert report.leaks
