"""What is judged, and on what: padding, sequences, samples, modes and lengths."""

import pytest
import torch
from torch import nn

from attnmask import Translator, attend, audit, causal, everything, padding, sliding_window
from audited import IDS, KEEP, Sees, X, encoder, pairs

pytestmark = pytest.mark.usefixtures("as_installed")  # with the checks of every signature, half as fast


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


def test_a_lone_sample_that_is_given_by_name_gets_another_one_beside_it_too():
    torch.manual_seed(0)
    table = nn.Embedding(10, 8)

    def model(input_ids, attention_mask):
        hidden = table(input_ids) * attention_mask.view(input_ids.shape)[..., None]  # as many of both
        return hidden + mixes * hidden.mean(0, keepdim=True)

    given = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    mixes = False
    assert audit(model, given).ok
    mixes = True
    report = audit(model, given)
    assert {(each.because, each.output == each.input) for each in report.leaks} == {
        ("which is in another sample of the batch", True)
    }
    assert "1 sample, in batches of 2" in "; ".join(report.tried)


def test_a_report_speaks_only_of_samples_that_were_given():
    report = audit(Sees(lambda x: x.mean(1, keepdim=True)), X)
    assert report.judged.shape == (1, 5)
    assert report.leaks
    assert {(each.sample, each.from_sample) for each in report.leaks} == {(0, 0)}
    assert "sample 1" not in str(report)


def test_a_report_speaks_only_of_samples_that_were_given_where_more_are_needed_to_see_the_leak():
    report = audit(lambda x: x + x.mean(1, keepdim=True) * (len(x) == 2), X)
    assert report.leaks
    assert {(each.sample, each.from_sample) for each in report.leaks} == {(0, 0)}


# ---- modes and lengths -------------------------------------------------------------


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
