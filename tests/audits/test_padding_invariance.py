"""`assert_padding_invariant`: which models pass, and what is said of the others."""

import re
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import dropout, embedding, scaled_dot_product_attention

from attnmask import NotTriedWarning, assert_padding_invariant
from attnmask._invariance.axes import asked
from attnmask._invariance.trials import SAMPLES, chosen, trials
from real_models import bart, bert, gpt2, llama, mistral, t5

SIZE = 8
RIGHT = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]).bool()
LEFT = RIGHT.flip(1)
MIDDLE = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 1, 1], [1, 0, 1, 1, 1, 0]]).bool()
SIDES = {"right": RIGHT, "left": LEFT, "middle": MIDDLE}
TOKENS = torch.randn(3, 6, SIZE, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[7, 30, 9, 30, 5, 11], [8, 8, 12, 60, 3, 2], [9, 9, 1, 4, 5, 6]])
CAUSAL = torch.ones(6, 6).tril().bool()
every_side = pytest.mark.parametrize("keep", SIDES.values(), ids=SIDES)


def failure(*args, **options):
    with pytest.raises(AssertionError) as caught:
        assert_padding_invariant(*args, **options)
    return str(caught.value)


def attend(x, mask=None):
    return scaled_dot_product_attention(x, x, x, mask)


def by_head(x, mask):
    """Two heads, their mask (batch or 1, head or 1, query or 1, key)."""
    return attend(x.unflatten(-1, (2, -1)).transpose(1, 2), mask).transpose(1, 2).flatten(2)


def additive(keep, low):
    return torch.zeros(keep.shape).masked_fill(~keep, low)


# ---- masks of every form --------------------------------------------------------------------


MASKED = {
    "(batch, key)": lambda keep: (lambda x, mask: attend(x, mask[:, None]), keep),
    "(batch, key) of 0 and 1": lambda keep: (lambda x, mask: attend(x, mask[:, None].bool()), keep.long()),
    "(batch, key) added": lambda keep: (lambda x, mask: attend(x, mask[:, None]), additive(keep, -1e9)),
    "(batch, 1, key)": lambda keep: (attend, keep[:, None]),
    "(batch, query, key)": lambda keep: (attend, keep[:, None].expand(3, 6, 6)),
    "(batch, 1, 1, key)": lambda keep: (by_head, keep[:, None, None]),
    "(batch, head, query, key)": lambda keep: (by_head, keep[:, None, None].expand(3, 2, 6, 6)),
    "(batch, 1, query, key) added": lambda keep: (by_head, additive(keep[:, None, None].expand(3, 1, 6, 6), -1e9)),
}


@every_side
@pytest.mark.parametrize("form", MASKED)
def test_a_mask_of_any_form_is_cut_with_the_tokens(form, keep):
    model, mask = MASKED[form](keep)
    assert_padding_invariant(model, {"x": TOKENS, "mask": mask}, keep)


@every_side
@pytest.mark.parametrize("form", MASKED)
def test_a_mask_that_lets_one_padded_column_through_is_seen(form, keep):
    leaky = keep.clone()
    leaky[1, (~keep[1]).nonzero()[0]] = True
    model, wrong = MASKED[form](leaky)
    said = failure(model, {"x": TOKENS, "mask": wrong}, keep)
    assert said.startswith("sample 1, real token 0"), said
    assert "is read" in said, said


def test_a_mask_that_blocks_too_weakly_is_seen():
    model, mask = MASKED["(batch, key) added"](RIGHT)
    said = failure(model, {"x": TOKENS, "mask": mask.clamp(min=-12.0)}, RIGHT)  # lets through e**-12 = 6e-6
    assert "is read" in said, said


def test_a_mask_over_queries_and_keys_alone():
    def model(x, mask, keep):
        return attend(x, mask & keep[:, None] | torch.eye(x.shape[1]).bool())

    for keep in (RIGHT, LEFT):
        assert_padding_invariant(model, {"x": TOKENS, "mask": CAUSAL, "keep": keep}, keep)
    assert_padding_invariant(lambda x, mask: attend(x, mask), {"x": TOKENS, "mask": CAUSAL}, RIGHT)
    said = failure(lambda x, mask: attend(x, mask), {"x": TOKENS, "mask": CAUSAL}, LEFT)
    assert "padding on the left" in said, said


def test_as_many_samples_as_tokens():
    """A causal mask (query, key), a mask (batch, key), and lengths (batch,), all of three numbers an axis."""
    x, keep = TOKENS[:, :3], torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]]).bool()

    def model(x, attn_mask, padding_mask, lengths):
        assert attn_mask.shape == (x.shape[1], x.shape[1])
        assert padding_mask.shape == x.shape[:2]
        assert lengths.shape == x.shape[:1]
        return attend(x, attn_mask & padding_mask[:, None]) / lengths[:, None, None]

    inputs = {"x": x, "attn_mask": torch.ones(3, 3).tril().bool(), "padding_mask": keep, "lengths": keep.sum(1)}
    assert_padding_invariant(model, inputs, keep)


# ---- what is cut besides --------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6,), (1, 6), (3, 1, 6), (3, 3, 6)])
def test_positions_are_cut(shape):
    """Those of an image have three rows for each token; a row of each sample, or one for all."""
    table = torch.randn(64, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def model(x, position_ids):
        rows = table.to(x.dtype)[position_ids]
        return x + (rows.sum(0) if position_ids.dim() == 3 else rows)

    assert_padding_invariant(model, {"x": TOKENS, "position_ids": torch.arange(6).expand(shape)}, RIGHT)


def test_nested_tensors_and_numbers_are_cut_or_left():
    def model(x, parts, scale):
        (one, [two]), rest = parts["a"], parts["b"]
        return scale * (one + two).cumsum(1) + rest + x

    parts = {"a": (TOKENS, [TOKENS + 1]), "b": torch.ones(SIZE)}
    assert_padding_invariant(model, {"x": TOKENS, "parts": parts, "scale": 2}, RIGHT)


def test_sequence_first():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(SIZE, 2, 16), 1, enable_nested_tensor=False).eval()
    inputs = {"src": TOKENS.transpose(0, 1), "src_key_padding_mask": ~RIGHT}
    assert_padding_invariant(encoder, inputs, RIGHT, position_axis=0)
    said = failure(encoder, {"src": TOKENS.transpose(0, 1)}, RIGHT, position_axis=0)
    assert "first seen in layers.0.self_attn" in said, said


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # they are PyTorch's fast path
@pytest.mark.parametrize("length", [5, 6])  # of the target; the source has 6 tokens
def test_source_and_target(length):
    torch.manual_seed(0)
    model = nn.Transformer(SIZE, 2, 1, 1, 16, batch_first=True).eval()
    keep = {"src": RIGHT, "tgt": RIGHT[[1, 2, 0], :length]}
    inputs = {
        "src": TOKENS,
        "tgt": TOKENS.flip(1)[:, :length],
        "tgt_mask": ~CAUSAL[:length, :length],
        "memory_mask": torch.zeros(length, 6).bool(),
        "src_key_padding_mask": ~keep["src"],
        "tgt_key_padding_mask": ~keep["tgt"],
        "memory_key_padding_mask": ~keep["src"],
    }
    assert_padding_invariant(model, inputs, keep)
    del inputs["memory_key_padding_mask"]
    said = failure(model, inputs, keep)
    assert "first seen in decoder.layers.0.multihead_attn" in said, said
    assert "2 columns of padding on the right of src" in said, said


# ---- what is said ----------------------------------------------------------------------------


def test_size_token_and_place_are_named():
    def model(x):
        return x - x.mean(1, keepdim=True)

    said = failure(model, TOKENS, LEFT)
    gap = TOKENS[1].double().mean(0) - TOKENS[1, 2:].double().mean(0)
    sizes = [torch.abs(TOKENS[1].double() - TOKENS[1, first:].double().mean(0))[2:].max() for first in (0, 2)]
    size, share = (float(each) for each in re.search(r"differs by (\S+) \((\S+) of the largest", said).groups())
    assert size == pytest.approx(float(gap.abs().max()), rel=0.05)
    assert share == pytest.approx(float(gap.abs().max() / max(sizes)), rel=0.05)
    assert "sample 1, real token 0 (column 2 of its batch)" in said
    assert "as given: 2 columns of padding on the left in a batch of 3" in said
    assert "(function, in float64)" in said
    assert "other tokens there change the outputs" in said


def test_a_mean_that_counts_empty_padding():
    def model(x, keep):
        return x - (x * keep[..., None]).mean(1, keepdim=True)

    for keep in (RIGHT, LEFT):
        said = failure(model, {"x": TOKENS, "keep": keep}, keep)
        assert said.endswith("what stands in the padding does not matter, only how much of it there is"), said
    assert_padding_invariant(
        lambda x, keep: x - (x * keep[..., None]).sum(1, keepdim=True) / keep.sum(1)[:, None, None],
        {"x": TOKENS, "keep": RIGHT},
        RIGHT,
    )


class Placed(nn.Module):
    """Attention over tokens with learned positions that are counted from the first column."""

    def __init__(self, looked_up):
        super().__init__()
        self.table = nn.Embedding(64, SIZE)
        self.inner = nn.Linear(SIZE, SIZE)
        self.looked_up = looked_up

    def forward(self, x, mask):
        places = torch.arange(x.shape[1])
        x = x + (self.table(places.expand(len(x), -1)) if self.looked_up else self.table.weight[places])
        return attend(self.inner(x), mask[:, None])


def test_positions_from_the_first_column():
    causes = {
        True: "table. Likely cause: positions: an embedding",
        False: "inner. Likely cause: where the padding stands",
    }
    for looked_up, cause in causes.items():
        model = Placed(looked_up)
        assert_padding_invariant(model, {"x": TOKENS, "mask": RIGHT}, RIGHT)
        said = failure(model, {"x": TOKENS, "mask": LEFT}, LEFT)
        assert f"first seen in {cause}" in said, said


class Convolved(nn.Module):
    def __init__(self, masked, width=3):
        super().__init__()
        self.layer = nn.Conv1d(SIZE, SIZE, width, padding="same")
        self.masked = masked

    def forward(self, x, keep):
        x = x * keep[..., None] if self.masked else x
        return self.layer(x.transpose(1, 2)).transpose(1, 2)


def test_a_convolution_that_reads_into_the_padding():
    said = failure(Convolved(masked=False), {"x": TOKENS, "keep": RIGHT}, RIGHT)
    assert said.startswith("sample 1, real token 3 "), said  # the last one, next to the padding
    assert "first seen in layer" in said
    assert "keep is not used at all" in said
    assert said.endswith("a convolution, which reads into the padding")
    assert_padding_invariant(Convolved(masked=True), {"x": TOKENS, "keep": RIGHT}, RIGHT)
    assert_padding_invariant(Convolved(masked=False, width=1), {"x": TOKENS, "keep": RIGHT}, RIGHT)


class Recurrent(nn.Module):
    def __init__(self, packed):
        super().__init__()
        self.layer = nn.GRU(SIZE, SIZE, batch_first=True, bidirectional=True)
        self.packed = packed

    def forward(self, x, lengths):
        if not self.packed:
            return self.layer(x)[0]
        some = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.layer(some)[0], batch_first=True, total_length=x.shape[1])[0]


def test_a_recurrence_that_starts_in_the_padding():
    inputs = {"x": TOKENS, "lengths": RIGHT.sum(1)}
    assert_padding_invariant(Recurrent(packed=True), inputs, RIGHT)
    said = failure(Recurrent(packed=False), inputs, RIGHT)
    assert "first seen in layer. Likely cause: a recurrence" in said, said


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(SIZE)

    def forward(self, x):
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def test_batch_statistics_in_training_only():
    model = Normed()
    assert_padding_invariant(model, TOKENS, RIGHT)
    said = failure(model, TOKENS, RIGHT, modes=["eval", "train"])
    assert "(train, in float64); first seen in norm. Likely cause: other samples of the batch" in said, said
    assert said.endswith("batch statistics")
    said = failure(model, TOKENS[1:2], RIGHT[1:2], modes="train")
    assert said.endswith("batch statistics, which count the padding"), said


def test_other_samples_of_the_batch():
    said = failure(lambda x: x + x[:, :1].mean(0), TOKENS, RIGHT)
    assert said.startswith("sample 0, real token 0"), said
    assert "other samples of the batch" in said


def test_a_mask_that_blocks_nothing():
    said = failure(lambda x, mask: attend(x, mask[:, None]), {"x": TOKENS, "mask": RIGHT | True}, RIGHT)
    assert "mask blocks nothing: it is the same everywhere" in said, said


def test_no_cause_is_claimed_that_is_not_shown():
    """The mask is used, if wrongly: nobody may say that it is not."""
    said = failure(lambda x, mask: attend(x, mask[:, None]), {"x": TOKENS, "mask": ~RIGHT | CAUSAL[0]}, RIGHT)
    for cause in ("not used", "blocks nothing", "positions", "convolution", "statistics", "other samples"):
        assert cause not in said, said


def test_nan_at_a_real_token():
    """Under left padding, a causal mask leaves padded queries no key; a real query here has none either."""

    def model(x, mask):
        return (x @ x.mT).masked_fill(~mask, -torch.inf).softmax(-1) @ x

    said = failure(
        model, {"x": TOKENS, "mask": (RIGHT[:, None] & RIGHT[:, :, None]) & (torch.arange(6) > 0)[:, None]}, RIGHT
    )
    assert said.startswith("sample 0, real token 0 (column 0 of its batch): NaN in the padded batch as given"), said


# ---- how much padding ------------------------------------------------------------------------


def padded_more_than(most):
    """A model that goes wrong where a sample has more padding than so many columns, or fewer."""

    def model(x, keep):
        return x + ((~keep).sum(1) > most)[:, None, None]

    return model


def test_more_padding_than_was_given():
    said = failure(padded_more_than(4), {"x": TOKENS, "keep": RIGHT}, RIGHT)
    assert "with more padding on the right: 5 columns of padding on the right" in said, said
    assert "with more padding on the left" in failure(padded_more_than(4), {"x": TOKENS, "keep": LEFT}, LEFT)
    assert "with more padding in the middle" in failure(padded_more_than(2), {"x": TOKENS, "keep": MIDDLE}, MIDDLE)
    assert_padding_invariant(padded_more_than(10), {"x": TOKENS, "keep": RIGHT}, RIGHT)  # twice as long, no more


def test_less_padding_than_was_given():
    def model(x, keep):
        return x + ((~keep).sum(1) == 1)[:, None, None]

    said = failure(model, {"x": TOKENS, "keep": RIGHT}, RIGHT)
    assert "with less padding on the right: 1 column of padding" in said, said


def test_padding_is_tried_only_where_there_is_some():
    seen = []

    def model(x, keep):
        seen.append(keep.clone())
        return x

    assert_padding_invariant(model, {"x": TOKENS, "keep": RIGHT}, RIGHT)
    assert all(bool(keep[:, 0].all()) for keep in seen)
    assert all(bool((keep[:, 1:] <= keep[:, :-1]).all()) for keep in seen)  # real tokens, then padding
    assert max(keep.shape[1] for keep in seen) == 12


def test_a_large_batch_is_tried_in_few_runs():
    keep = torch.arange(100) < torch.arange(2, 66)[:, None]
    sequences, _ = asked(lambda x: x, torch.zeros(64, 100, 1), keep, 1, 2**31)
    samples = chosen(sequences)
    assert len(samples) == SAMPLES
    assert {0, 63} < set(samples)
    assert len(list(trials(sequences, samples, longer=True))) < 16


# ---- precision, chance, state ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_judged_in_float64(dtype):
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(SIZE, 2, 16, batch_first=True).eval().to(dtype)
    inputs = {"src": TOKENS.to(dtype), "src_key_padding_mask": ~RIGHT}
    assert_padding_invariant(encoder, inputs, RIGHT)
    said = failure(encoder, {"src": TOKENS.to(dtype)}, RIGHT)
    assert "in float64" in said, said


@pytest.mark.parametrize("back", [torch.float32, torch.bfloat16])
def test_a_model_that_goes_back_to_less_precision_is_not_accused(back):
    def model(x, keep):
        x = x.to(back) + (keep.cumsum(1) > 0)[..., None]
        return attend(x.float(), keep[:, None]).to(back).float().double().to(x.dtype)

    assert_padding_invariant(model, {"x": TOKENS, "keep": RIGHT}, RIGHT)


def test_a_model_that_refuses_float64_is_judged_to_its_rounding():
    weight = torch.randn(SIZE, SIZE)
    with pytest.warns(UserWarning, match="compared only to the rounding of float32, since float64 fails"):
        assert_padding_invariant(lambda x: x.cumsum(1) @ weight, TOKENS, RIGHT)
    with pytest.raises(AssertionError, match=r"in float32(?s:.*)compared only to the rounding of float32"):
        assert_padding_invariant(lambda x: (x - x.mean(1, keepdim=True)) @ weight, TOKENS, RIGHT)


def test_precision_that_cannot_be_raised_is_said():
    def rounds(x):
        return (torch.from_numpy(x.numpy().astype("float32")) * 3).to(x)

    with pytest.warns(UserWarning, match=re.escape("compared only to 0.00012 of the largest number")):
        assert_padding_invariant(rounds, TOKENS, RIGHT)


def test_chance_is_no_fault():
    layer = nn.TransformerEncoderLayer(SIZE, 2, 16, dropout=0.5, batch_first=True)
    assert_padding_invariant(layer, {"src": TOKENS, "src_key_padding_mask": ~RIGHT}, RIGHT, modes="train")
    with pytest.warns(UserWarning, match="which float64 without chance does not confirm"):
        assert_padding_invariant(lambda x: dropout(x, 0.5), TOKENS, RIGHT)


def test_the_fast_path_is_tried_too():
    def model(x):
        return x if torch.overrides.has_torch_function((x,)) else x - x.mean(1, keepdim=True)

    assert failure(model, TOKENS, RIGHT).endswith("on PyTorch's fast path only")


def test_model_inputs_and_chance_are_left_as_they_were():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.calls = Normed(), []

        def forward(self, x, keep):
            self.calls.append(1)
            torch.rand(3)
            x.mul_(2)
            return self.norm(x)

    model, inputs = Writes(), {"x": TOKENS.clone(), "keep": RIGHT.clone()}
    before = {name: each.clone() for name, each in model.state_dict().items()}
    torch.manual_seed(3)
    chance = torch.get_rng_state()
    failure(model, inputs, RIGHT, modes=["train"])
    assert_padding_invariant(model, inputs, RIGHT)
    assert torch.equal(chance, torch.get_rng_state())
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert model.calls == []
    assert model.training
    assert torch.equal(inputs["x"], TOKENS)
    assert torch.get_default_dtype() == torch.float32


def test_what_could_not_be_tried_is_said():
    def no_longer_than_given(x):
        return x if x.shape[1] <= 6 else embedding(torch.tensor(9), x[0])

    with pytest.warns(UserWarning, match="not tried: with more padding on the right: IndexError"):
        assert_padding_invariant(no_longer_than_given, TOKENS, RIGHT)
    with pytest.warns(UserWarning, match=re.escape("not tried: samples [1], which have no real token")):
        assert_padding_invariant(lambda x: x, TOKENS, RIGHT & torch.tensor([[True], [False], [True]]))

    def no_two_tokens(x):
        return x if x.shape[1] != 2 else x[:, 2:].mean(1).view(-1, 7)

    with pytest.warns(UserWarning, match="not tried: sample 2 alone: RuntimeError"):
        assert_padding_invariant(no_two_tokens, TOKENS, RIGHT)


def test_nothing_is_said_of_a_model_that_fits():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_padding_invariant(lambda x: x.cumsum(1), TOKENS, RIGHT)


# ---- Hugging Face models as they are ---------------------------------------------------------

every_attention = pytest.mark.parametrize("attention", ["eager", "sdpa"])


def counted(keep):
    return (keep.long().cumsum(1) - 1).clamp(min=0)


def test_position_ids_that_count_padding_are_not_judged_and_that_is_said():
    """Cut with the sample, they are as wrong alone; those that count real tokens, or start anywhere, are silent."""
    table = torch.randn(30, SIZE)

    def model(x, position_ids):
        return x + table.to(x.dtype)[position_ids]

    by_column = torch.arange(6).expand(3, -1)
    for start in (0, 1, 7):  # sample 0 has no padding, and shows where counting begins
        said = f"not judged: position_ids, .*the first real token of sample 1 has {2 + start}"
        with pytest.warns(NotTriedWarning, match=said):
            assert_padding_invariant(model, {"x": TOKENS, "position_ids": by_column + start}, LEFT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_padding_invariant(model, {"x": TOKENS, "position_ids": by_column}, RIGHT)
        anywhere = by_column + torch.tensor([[7], [3], [11]])
        for silent in (counted(LEFT), counted(LEFT) + 2, anywhere):  # a sample with two pads may well begin at 2
            assert_padding_invariant(model, {"x": TOKENS, "position_ids": silent}, LEFT)


@every_attention
def test_bert_needs_its_mask(attention):
    model = bert(attention)
    assert_padding_invariant(model, {"input_ids": IDS, "attention_mask": RIGHT.long()}, RIGHT, modes=["eval", "train"])
    said = failure(model, {"input_ids": IDS}, RIGHT)
    assert "first seen in encoder.layer.0.attention.self" in said, said
    assert said.endswith("no mask; with attention_mask = keep.long() nothing differs")


@every_attention
def test_gpt2_needs_positions_under_left_padding(attention):
    model, inputs = gpt2(attention), {"input_ids": IDS, "attention_mask": LEFT.long()}
    assert_padding_invariant(model, inputs | {"position_ids": counted(LEFT)}, LEFT)
    said = failure(model, inputs, LEFT)
    assert "first seen in transformer.wpe. Likely cause: positions" in said, said
    assert said.endswith("with position_ids = (keep.long().cumsum(1) - 1).clamp(min=0) nothing differs")
    assert_padding_invariant(model, {"input_ids": IDS}, RIGHT)  # causal: nobody looks at what stands behind


@every_attention
@pytest.mark.parametrize("make", [llama, mistral])
def test_relative_positions_need_no_position_ids(make, attention):
    model = make(attention)
    assert_padding_invariant(model, {"input_ids": IDS, "attention_mask": LEFT.long()}, LEFT)
    assert "no mask; with attention_mask" in failure(model, {"input_ids": IDS}, LEFT)


@pytest.mark.parametrize("make", [t5, bart])
@pytest.mark.parametrize(("attention", "length"), [("eager", 5), ("sdpa", 6)])
def test_encoder_and_decoder(make, attention, length):
    keep = {"input_ids": RIGHT, "decoder_input_ids": RIGHT[[1, 2, 0], :length]}
    inputs = {"input_ids": IDS, "decoder_input_ids": IDS[:, :length]}
    mask = {"attention_mask": RIGHT.long(), "decoder_attention_mask": keep["decoder_input_ids"].long()}
    assert_padding_invariant(make(attention), inputs | mask, keep)
    said = failure(make(attention), inputs, keep)
    assert 'no mask; with attention_mask = keep["input_ids"].long() nothing differs' in said, said
