"""`audit`: every fault is found, no clean model is accused, and the report says what is so."""

import copy
import math
import re
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attnmask import (
    Decoder,
    Encoder,
    Translator,
    assert_allowed,
    attend,
    audit,
    causal,
    documents,
    everything,
    padding,
    reach,
    sliding_window,
)
from corpus import CLEAN, Attention, Case, lower, softmax
from oracles import cases, reach_loop, stacks

pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.usefixtures("as_installed"),  # thousands of runs: with the checks of every signature, half as fast
]
SEEDS = range(5)
X = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[7, 3, 9, 3, 5]])
KEEP = torch.tensor([[True, True, True, False, False], [True, True, True, True, True]])
quick = {"modes": "eval", "lengths": []}


def encoder(masks, width=8, **parts):
    torch.manual_seed(1)
    layers = Encoder(layers=len(masks) if isinstance(masks, list) else 2, d_model=width, **parts)
    return lambda x: layers(x, masks)


def pairs(leaks):
    return {(each.sample, each.output, each.input) for each in leaks}


class Sees(nn.Module):
    """Adds to each token what a function makes of all of them."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.inner = nn.Linear(8, 8)

    def forward(self, x):
        return self.inner(x) + self.function(x)


# ---- no alarm on clean models ------------------------------------------------------


@pytest.mark.parametrize("case", CLEAN, ids=[case.name for case in CLEAN])
def test_a_clean_model_raises_no_alarm(case: Case) -> None:
    """For five seeds, in the modes in which it is clean; not even a suspect."""
    for seed in SEEDS:
        report = audit(case.make(seed), **case.asked(case.inputs(seed)))
        assert report.ok, report
        assert not report.suspects, report


def test_rounding_in_a_gradient_is_no_leak():
    """A convolution by Fourier transform gives every token a gradient in every other: 1e-9 of rounding."""
    kernel = torch.randn(8, generator=torch.Generator().manual_seed(2))

    def convolved(x):
        length = x.shape[1] + 8  # room for the kernel, so that nothing comes around
        spectrum = torch.fft.rfft(x, length, dim=1) * torch.fft.rfft(kernel.to(x), length)[:, None]
        return torch.fft.irfft(spectrum, length, dim=1)[:, : x.shape[1]]

    x = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    gradient = torch.autograd.grad(convolved(x)[:, 0].sum(), x)[0]
    assert 0 < gradient[:, 1:].abs().max() < 1e-6  # what a naive check would report
    report = audit(convolved, x.detach())
    assert report.ok, report
    assert not report.suspects


def test_a_count_of_calls_is_no_memory_of_what_was_in_them():
    class Counts(nn.Linear):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x) + self.calls

    assert audit(Counts(8, 8), X).ok


# ---- leaks are what masks let through ----------------------------------------------


@settings(max_examples=15)
@given(stacks(), st.data())
def test_the_leaks_of_a_stack_are_what_plain_loops_reach_and_the_mask_forbids(layers, data):
    sizes = layers[0].sizes
    allowed = data.draw(cases(sizes, depth=1))
    torch.manual_seed(1)
    model = Encoder(layers=len(layers), d_model=6 * sizes.heads, heads=sizes.heads).double()
    x = torch.randn(sizes.batch, sizes.query_len, 6 * sizes.heads, dtype=torch.float64)
    reached, _ = reach_loop([case.rule for case in layers], sizes, residual=True)
    may = [
        [
            [any(allowed.rule(b, h, q, k) for h in range(sizes.heads)) for k in range(sizes.query_len)]
            for q in range(sizes.query_len)
        ]
        for b in range(sizes.batch)
    ]
    # Padding is what nobody may see, unless no position may see itself.
    strict = [not any(rows[place][place] for place in range(sizes.query_len)) for rows in may]
    real = [[strict[b] or any(row[k] for row in may[b]) for k in range(sizes.query_len)] for b in range(sizes.batch)]
    if not any(value for rows in may for row in rows for value in row):
        return  # nothing is allowed: refused
    expected = {
        (b, q, k)
        for b in range(sizes.batch)
        for q in range(sizes.query_len)
        for k in range(sizes.query_len)
        if real[b][q] and q != k and reached[b][q][k] and not may[b][q][k]
    }
    report = audit(lambda x: model(x, [case.mask for case in layers]), x, _table(may), **quick)
    assert {at for at in pairs(report.leaks) if at[0] < sizes.batch} == expected
    assert report.ok == (not expected)


def _table(rows):
    return torch.tensor(rows, dtype=torch.bool).reshape(len(rows), len(rows[0]), -1)


def test_a_forgotten_mask_is_reported_in_words():
    with pytest.raises(AssertionError) as caught:
        assert_allowed(encoder([causal(), None]), X[:, :4], allowed=causal())
    text = str(caught.value)
    assert (
        "output 1 depends on input 3, which is in its future; first seen in Encoder.layers.1.attention.part.W_O" in text
    )
    assert "seen by gradient (eval)" in text


def test_the_report_holds_what_was_allowed_found_and_leaked():
    report = audit(encoder([causal(), sliding_window(1, right=1)]), X)
    allowed, found = (each["inputs"][0] for each in (report.allowed, report.found))
    assert torch.equal(allowed, torch.ones(5, 5).tril().bool())
    assert torch.equal(found, reach([causal(), sliding_window(1, right=1)], 5)[0])
    assert {(each.output, each.input) for each in report.leaks} == {(q, q + 1) for q in range(4)}
    one = report.leaks[0]
    assert one.seen[:2] == (("gradient", "eval"), ("changed inputs", "eval"))
    assert one.size > 1e-3
    assert one.length == 5


def test_allowed_pairs_that_nothing_reaches_are_missing_and_no_leak():
    report = audit(encoder([sliding_window(1)] * 2), X)
    assert report.ok
    assert {(each.output, each.input) for each in report.missing if each.sample == 0} == {(3, 0), (4, 0), (4, 1)}
    assert "Allowed, but nothing reached them (output ← input): 3 ← 0, 4 ← 0, 4 ← 1." in str(report)


def test_a_mask_of_the_model_itself_may_be_given_as_reach():
    masks = [sliding_window(1)] * 2
    assert audit(encoder(masks), X, allowed=reach(masks, 5)).ok
    assert not audit(encoder(masks), X, allowed=reach(masks[:1], 5)).ok


# ---- what is judged ----------------------------------------------------------------


def test_the_output_of_padding_is_not_judged_and_a_position_may_see_itself():
    x = X.expand(2, -1, -1)
    assert audit(encoder(padding(KEEP)), x, allowed=padding(KEEP)).ok
    report = audit(encoder(everything()), x, allowed=padding(KEEP))
    assert pairs(report.leaks) == {(0, q, k) for q in range(3) for k in (3, 4)}
    assert {each.because for each in report.leaks} == {"which is padding"}


def test_labels_that_are_shifted_inside_are_another_sequence_than_the_output():
    def shifted(labels):
        return nn.functional.pad(labels[:, :-1], (0, 0, 1, 0)) * 2

    strictly_earlier = ~causal().T
    assert audit(shifted, X, strictly_earlier, same_sequence=False).ok
    report = audit(lambda labels: labels * 2, X, strictly_earlier, same_sequence=False)
    assert {(each.output, each.input) for each in report.leaks} == {(q, q) for q in range(5)}
    assert {each.because for each in report.leaks} == {"which its mask blocks"}


def test_source_and_target_have_a_mask_each():
    torch.manual_seed(0)
    model = Translator(12, 12, layers=1, d_model=8)
    ids = torch.tensor([[3, 4, 5, 0, 0], [3, 4, 5, 6, 7]])
    real = padding(ids != 0)
    given = {"source": ids, "target": IDS.expand(2, -1)}
    masks = {"source_masks": real, "target_masks": causal(), "memory_masks": real}
    allowed = {"source": real, "target": causal()}
    assert audit(model, given | masks, allowed).ok
    report = audit(model, given | masks | {"source_masks": None}, allowed)
    assert {(each.of, each.sample, each.input) for each in report.leaks} == {("source", 0, 3), ("source", 0, 4)}
    assert "of source, which is padding; first seen in encoder.layers.0.attention" in str(report)
    report = audit(model, given | masks | {"target_masks": None}, allowed)
    assert {each.of for each in report.leaks} == {"target"}
    assert len(report.leaks) == 2 * 10


def test_which_input_the_output_belongs_to_is_asked_where_it_matters_and_no_name_says():
    def model(enc, dec):
        return dec.cumsum(1) + dec.flip(1) + enc[:, :3].sum(1, keepdim=True)

    given = {"enc": X.repeat(2, 1, 1), "dec": X.flip(1).repeat(2, 1, 1)}
    short = padding(torch.tensor([[True, True, True, False, False]] * 2))
    with pytest.raises(ValueError, match="Expected same_sequence to name the input"):
        audit(model, given, {"enc": short, "dec": causal()})
    report = audit(model, given, {"enc": short, "dec": causal()}, same_sequence="dec")
    assert {each.of for each in report.leaks} == {"dec"}
    assert {each.because for each in report.leaks} == {"which is in its future"}
    report = audit(model, given, {"dec": causal()})
    assert "what depends on enc (allowed says nothing about it)" in report.not_tried


def test_a_strict_mask_holds_no_padding():
    """Nobody may see the last token, and still its output is judged."""
    report = audit(lambda x: x.cumsum(1) + x.flip(1), X, ~causal().T)
    assert report.judged.all()
    assert "padding" not in str(report)


def test_a_future_that_is_allowed_elsewhere_is_not_called_so():
    report = audit(lambda x: x + x.mean(1, keepdim=True), X, sliding_window(1, right=1))
    assert {each.because for each in report.leaks} == {"which its mask blocks"}


def test_samples_of_a_batch_may_not_mix():
    report = audit(Sees(lambda x: x.mean(0, keepdim=True)), X.repeat(2, 1, 1))
    assert {(each.sample, each.from_sample, each.output == each.input) for each in report.leaks} == {
        (0, 1, True),
        (1, 0, True),
    }
    assert "output 0 depends on input 0, which is in another sample of the batch" in str(report)


def test_a_lone_sample_gets_another_one_beside_it():
    report = audit(Sees(lambda x: x.mean(0, keepdim=True)), X)
    assert not report.ok
    assert report.leaks[0].because == "which is in another sample of the batch"


def test_a_lone_sample_is_also_tried_alone():
    class Alone(nn.Linear):
        def forward(self, x):
            x = super().forward(x)
            return x.flip(1) if len(x) == 1 else x

    assert not audit(Alone(8, 8), X).ok


def test_a_model_for_one_sample_only_is_measured_as_it_is():
    report = audit(encoder(padding(KEEP[:1])), X, padding(KEEP[:1]))  # the mask is one of one sample
    assert report.ok
    alone = audit(lambda x: x.reshape(1, 5, 8) * 2, X, lengths=[])
    assert alone.ok
    assert alone.not_tried[0].startswith("a batch of 2 (RuntimeError")


def test_a_second_output_with_a_name_is_judged_and_an_encoder_is_not():
    def model(x):
        return {"logits": x * 2, "value": x + x.mean(1, keepdim=True), "encoder_last_hidden_state": x.flip(1)}

    assert not audit(model, X).ok
    assert audit(lambda x: {k: v for k, v in model(x).items() if k != "value"}, X).ok


# ---- modes, lengths, calls ---------------------------------------------------------


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_leak_in_one_mode_is_seen_in_that_mode_only(mode):
    class Switch(nn.Linear):
        def forward(self, x):
            x = super().forward(x)
            return x + x.mean(1, keepdim=True) * (self.training == (mode == "train"))

    report = audit(Switch(8, 8), X)
    assert {seen.mode.split(",")[0] for each in report.leaks for seen in each.seen} == {mode}
    other = {"eval": "train", "train": "eval"}[mode]
    assert audit(Switch(8, 8), X, modes=other).ok


@pytest.mark.parametrize("recording", [False, True])
def test_a_leak_that_hangs_on_gradients_being_recorded_is_seen(recording):
    report = audit(Sees(lambda x: x.mean(1, keepdim=True).detach() * (torch.is_grad_enabled() == recording)), X)
    assert not report.ok
    words = {True: {"changed inputs: eval, recording gradients", "changed inputs: train"}}
    words[False] = {"changed inputs: eval", "changed inputs: train, without gradients"}
    assert {str(seen) for each in report.leaks for seen in each.seen} == words[recording]


def test_a_leak_that_only_longer_inputs_show_is_found_and_told_apart():
    model = Sees(lambda x: x.mean(1, keepdim=True) * (x.shape[1] > 8))
    report = audit(model, X)
    assert {each.length for each in report.leaks} == {11}
    assert report.tried[-2:] == ("lengths 5, 2, 11", "1 sample, in batches of 2 too")
    assert "(train), at length 11" in str(report)
    assert audit(model, X, lengths=[3, 8]).ok
    assert audit(model, lambda length: X[:, :1].repeat(1, length, 1), lengths=[4, 8]).ok
    assert not audit(model, lambda length: torch.randn(1, length, 8), lengths=[4, 9]).ok


def test_inputs_and_allowed_may_both_be_functions():
    def inputs(length):
        return {
            "x": torch.randn(2, length, 8),
            "keep": torch.arange(length) < torch.tensor([length - 1, length])[:, None],
        }

    def model(x, keep):
        return attend(x, x, x, padding(keep)).output

    assert audit(model, inputs, lambda given: padding(given["keep"]), lengths=[4, 6]).ok
    assert not audit(lambda x, keep: attend(x, x, x).output, inputs, lambda given: padding(given["keep"])).ok


def test_what_could_not_be_run_is_said():
    table = nn.Embedding(6, 8)
    report = audit(lambda x: x + table(torch.arange(x.shape[1])), X)
    assert report.ok
    assert report.not_tried == ("length 11 (IndexError: index out of range in self)",)
    assert "Not tried: length 11 (IndexError" in str(report)


def test_a_mode_that_fails_is_said_and_the_other_tried():
    class Fails(nn.Linear):
        def forward(self, x):
            if self.training:
                raise RuntimeError("no training here")
            return super().forward(x)

    report = audit(Fails(8, 8), X.repeat(2, 1, 1), lengths=[])
    assert report.ok
    assert set(report.not_tried) == {
        "train (RuntimeError: no training here)",
        "train, without gradients (RuntimeError: no training here)",
    }
    with pytest.raises(RuntimeError, match="no training here"):
        audit(Fails(8, 8), X, modes="train")


def test_what_the_call_before_left_behind_is_a_leak():
    class Remembers(nn.Linear):
        past = 0

        def forward(self, x):
            y = super().forward(x) + self.past
            self.past = x.detach().mean()
            return y

    report = audit(nn.Sequential(Remembers(8, 8), nn.ReLU(), Remembers(8, 8)), X)
    assert {each.input for each in report.leaks} == {None}
    assert "output 0 depends on the call before; first seen in 0" in str(report)


def test_assert_allowed_ends_at_the_first_leak():
    calls = []
    model = Sees(lambda x: (calls.append(1), x.mean(1, keepdim=True))[1])
    audit(model, X)
    whole = len(calls)
    with pytest.raises(AssertionError, match="Not tried: anything after the first leak"):
        assert_allowed(model, X)
    assert len(calls) - whole < whole / 3


# ---- leaks that hide ---------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-3, 1e-9])
def test_a_detached_leak_is_found_however_small(size):
    """1e-9 of it is below the rounding of float32 for tokens of size 1, and above it for huge ones."""
    torch.manual_seed(0)
    model = Sees(lambda x: size * x.mean(1, keepdim=True).detach())
    assert not audit(model, X, modes="eval").ok
    assert not audit(model.double(), X.double(), modes="eval").ok


def test_a_single_pair_that_no_gradient_shows_is_named():
    def once(x):
        y = torch.zeros_like(x)
        y[:, 1] = x[:, 3].sign()
        return y

    report = audit(Sees(once), X)
    assert {(each.output, each.input) for each in report.leaks} == {(1, 3)}


def test_a_leak_that_needs_two_changes_at_once_is_pinned_to_one():
    def both(x):
        far = x[:, -2:].abs().amax((1, 2)) > 1000
        other = x[:, -3].abs().amax(1) > 1000
        return (far & other)[:, None, None].to(x)

    report = audit(Sees(both), X, modes="eval", lengths=[])
    assert {each.output for each in report.leaks} <= {0, 1, 2, 3}
    assert {each.input for each in report.leaks} <= {2, 3, 4}
    assert not report.ok


def test_a_special_token_is_tried():
    torch.manual_seed(0)
    table = nn.Embedding(5000, 8)
    for special in (0, 1, 4999):
        assert not audit(lambda ids: table(ids) + (ids == special).any(1)[:, None, None], IDS).ok  # noqa: B023


# ---- NaN ---------------------------------------------------------------------------


def test_nan_from_the_start_is_its_own_verdict():
    def model(x):
        return attend(x, x, x, ~causal(), empty_rows="nan").output

    report = audit(model, X, allowed=everything())
    assert not report.ok
    assert not report.leaks
    assert {each.output for each in report.nan} == {4}
    assert all(math.isnan(each.size) for each in report.nan)
    assert "output 4 is NaN" in str(report)


def test_nan_from_a_forbidden_input_is_pinned_to_it():
    attention = Attention(lambda scores, keep, training: _renormalised(scores))
    report = audit(attention, X, modes="eval")
    assert not report.ok
    assert "turns NaN with input" in str(report)
    assert all(each.input > each.output and math.isinf(each.size) for each in report.nan)


def _renormalised(scores):
    weights = scores.softmax(-1) * lower(scores)
    return weights / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_overflow_in_the_changed_token_itself_is_no_leak(dtype):
    """Huge values become NaN in their own row, and 0 times NaN carries it into all others: no mask can help."""
    torch.manual_seed(0)
    layers = [Attention(lambda scores, keep, training: softmax(scores, lower(scores))) for _ in range(2)]
    assert audit(nn.Sequential(*layers).to(dtype), X.to(dtype)).ok


# ---- suspects ----------------------------------------------------------------------


class NoDouble(nn.Module):
    """Rounds as a model with kernels for float32 only does, and refuses float64."""

    def forward(self, x):
        if x.dtype == torch.float64:
            raise RuntimeError("float32 only")
        return x * 2 + 1e-7 * x.mean(1, keepdim=True).detach()


def test_a_difference_that_float64_cannot_confirm_is_a_suspect():
    report = audit(NoDouble(), X, modes="eval")
    assert report.ok
    assert report.suspects
    assert "float64, which tells leaks from rounding, fails: RuntimeError: float32 only" in str(report)
    assert re.search(r"\d+ suspects, by \de-0\d at most:", str(report))
    with pytest.warns(UserWarning, match="suspect"):
        assert_allowed(NoDouble(), X, modes="eval")


def test_a_mask_that_the_model_makes_from_the_ids_makes_a_suspect_not_a_leak():
    torch.manual_seed(0)
    table, layers = nn.Embedding(12, 8), Encoder(layers=1, d_model=8)
    ids = torch.tensor([[3, 4, 5, 0, 0]])
    report = audit(lambda ids: layers(table(ids), padding(ids != 0)), ids, padding(ids != 0))
    assert report.ok
    assert {each.input for each in report.suspects} == {3, 4}
    assert "perhaps the model makes a mask or positions of its own from these ids" in str(report)
    report = audit(lambda ids: layers(table(ids), documents((ids > 99).long())), ids, padding(ids != 0))
    assert not report.ok  # its gradients tell


def test_chances_that_move_with_the_input_are_a_suspect_not_a_leak():
    class Routed(nn.Module):
        """Each token goes to one of two experts, who drop at random: who comes first takes the chances."""

        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
            self.dropout = nn.Dropout(0.5)

        def forward(self, x):
            y, first = torch.zeros_like(x), x[..., 0] > 0
            for expert, rows in zip(self.experts, (first, ~first), strict=True):
                y[rows] = self.dropout(expert(x[rows]))
            return y

    torch.manual_seed(0)
    report = audit(Routed(), X)
    assert report.ok, report
    assert report.suspects
    assert "only while there is dropout, whose chances may have moved" in str(report)
    assert not audit(Routed(), X, modes="eval").suspects


def test_chances_are_told_apart_wherever_they_come_from():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

        def forward(self, x):
            y, first = torch.zeros_like(x), x[..., 0] > 0
            for expert, rows in zip(self.experts, (first, ~first), strict=True):
                y[rows] = nn.functional.dropout(expert(x[rows]), 0.5, self.training)
            return y

    torch.manual_seed(0)
    report = audit(Routed(), X)
    assert report.ok, report
    assert report.suspects


def test_rounding_in_a_model_that_goes_back_to_float32_is_no_leak():
    class Convolved(nn.Module):
        """A causal convolution by Fourier transform, which is always done in float32."""

        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.linspace(1, 0, 8)[:, None])

        def forward(self, x):
            length = x.shape[1] + 8
            spectrum = torch.fft.rfft(x.float(), length, dim=1) * torch.fft.rfft(self.kernel.float(), length, dim=0)
            return torch.fft.irfft(spectrum, length, dim=1)[:, : x.shape[1]].to(x)

    report = audit(Convolved(), X.repeat(2, 1, 1))
    assert report.ok, report
    assert not report.suspects, report


def test_a_mask_made_from_zeros_makes_a_suspect():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    x = X.repeat(2, 1, 1) * KEEP[..., None]

    def model(x):
        return attention(x, x, x, key_padding_mask=(x == 0).all(-1))[0]

    report = audit(model, x, padding(KEEP))
    assert report.ok, report
    assert "perhaps the model makes a mask or positions of its own from these zeros" in str(report)


def test_allowed_as_a_function_follows_a_mask_that_the_model_makes():
    torch.manual_seed(0)
    table, layers = nn.Embedding(12, 8), Encoder(layers=1, d_model=8)
    ids = torch.tensor([[5, 6, 7, 1, 8, 9], [5, 6, 1, 7, 8, 9]])

    def in_documents(ids):
        return causal() & documents((ids == 1).cumsum(1))

    report = audit(lambda ids: layers(table(ids), in_documents(ids)), ids, in_documents)
    assert report.ok, report
    assert not report.suspects
    assert not audit(lambda ids: layers(table(ids), causal()), ids, in_documents).ok


def test_a_large_difference_is_a_leak_even_where_float64_fails():
    class NoDouble(nn.Module):
        def forward(self, x):
            if x.dtype == torch.float64:
                raise RuntimeError("float32 only")
            return x * 2 + x.mean(1, keepdim=True).detach()

    report = audit(NoDouble(), X, modes="eval")
    assert not report.ok
    assert not audit(torch.jit.trace(Sees(lambda x: x.mean(1, keepdim=True).detach()).eval(), X), X, modes="eval").ok


# ---- left as it was ----------------------------------------------------------------


def state(model):
    tensors = {name: (each.data_ptr(), each.dtype, each.clone()) for name, each in model.state_dict().items()}
    modules = {name: dict(vars(part)) for name, part in model.named_modules()}
    return tensors, modules


def same_state(one, other):
    tensors = all(
        a[:2] == b[:2] and torch.equal(a[2], b[2]) for a, b in zip(one[0].values(), other[0].values(), strict=True)
    )
    return tensors and one[0].keys() == other[0].keys() and repr(one[1]) == repr(other[1])


class Trouble(nn.Module):
    """Batch norm, tied weights, a buffer that counts, a leak, and an error in some run."""

    def __init__(self, fails_at=math.inf):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.register_buffer("calls", torch.zeros(()))
        self.fails_at, self.runs = fails_at, [0]

    def forward(self, x):
        self.calls += 1
        self.runs[0] += 1
        x = self.lstm(self.norm(self.second(self.first(x)).mT).mT)[0]
        if self.runs[0] >= self.fails_at:
            raise KeyboardInterrupt
        return x + 1e-3 * x.mean(1, keepdim=True).detach()


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(training):
    torch.manual_seed(0)
    model = Trouble().train(training)
    model.first.weight.grad = torch.ones(8, 8)
    handle = model.register_forward_hook(lambda *_: None)
    before, chance, x = state(model), torch.get_rng_state(), X.clone()
    assert not audit(model, x).ok
    assert same_state(state(model), before)
    assert torch.equal(torch.get_rng_state(), chance)
    assert torch.equal(x, X)
    assert torch.get_default_dtype() == torch.float32
    assert model.training == training
    assert model.second.weight is model.first.weight
    assert model.first.weight.grad.sum() == 64
    handle.remove()


@pytest.mark.parametrize("run", [1, 3, 10, 60, 150])
def test_the_model_is_left_as_it_was_after_an_interruption(run):
    torch.manual_seed(0)
    model = Trouble(fails_at=10**9)
    seen = []
    model.first.register_forward_pre_hook(lambda *_: seen.append(1))

    def counted(module, _):
        if len(seen) >= run:
            raise KeyboardInterrupt

    model.norm.register_forward_pre_hook(counted)
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        audit(model, X)
    assert same_state(state(model), before)
    assert torch.get_default_dtype() == torch.float32


def test_flat_weights_of_a_recurrent_layer_still_share_their_storage():
    model = Trouble().eval()
    expected = model(X)
    audit(model, X, modes="eval")
    model.lstm.weight_ih_l0.data.mul_(2)
    doubled = copy.deepcopy(model)
    assert torch.equal(model(X), doubled(X))
    assert not torch.equal(model(X), expected)


# ---- PyTorch's own layers ----------------------------------------------------------


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


def test_nothing_is_warned_of_on_a_clean_model():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_allowed(encoder(causal()), X)
