"""Two outputs are compared bit for bit, save that 0 is -0; NaN is told apart, or equal, as each function says."""

import torch

from attnmask._measure.compare import changed, max_abs, max_abs_diff, same_numbers

ONE = torch.tensor([[[1.0], [2.0]]])
NAN = torch.tensor([[[1.0], [torch.nan]]])


def test_outputs_agree_where_their_numbers_do():
    assert same_numbers([ONE, NAN], [ONE.clone(), NAN.clone()])
    assert same_numbers([], [])
    assert not same_numbers([ONE], [ONE + 1e-6])
    assert not same_numbers([ONE, ONE], [ONE, 2 * ONE])


def test_outputs_of_another_shape_dtype_or_number_do_not_agree():
    assert not same_numbers([ONE], [ONE[0]])
    assert not same_numbers([ONE], [ONE.double()])
    assert not same_numbers([ONE], [ONE, ONE])


def test_nan_equals_nan_where_runs_are_repeated_and_nothing_where_they_are_compared():
    assert same_numbers([NAN], [-NAN.abs()]) is False  # another number beside it
    assert same_numbers([NAN], [NAN.clone()])
    assert not same_numbers([NAN], [ONE])
    assert changed([NAN], [NAN]).tolist() == [[False, True]]
    assert changed([ONE], [NAN]).tolist() == [[False, True]]


def test_minus_zero_is_zero():
    zero = torch.zeros(1, 2, 3)
    assert same_numbers([zero], [-zero])
    assert not changed([zero], [-zero]).any()


def test_a_change_in_any_output_and_feature_counts():
    other = torch.zeros(1, 2, 3)
    other[0, 1, 2] = 1
    assert changed([torch.zeros(1, 2, 3), ONE], [other, ONE]).tolist() == [[False, True]]
    assert changed([ONE, torch.zeros(1, 2, 3)], [ONE, other]).tolist() == [[False, True]]


def test_the_largest_difference_is_taken_over_outputs_and_infinite_where_one_turns_nan():
    size, nan = max_abs_diff([ONE, ONE], [ONE + 1, torch.tensor([[[4.0], [torch.nan]]])])
    assert size.tolist() == [[3, torch.inf]]
    assert nan.tolist() == [[False, True]]
    size, nan = max_abs_diff([NAN], [NAN])
    assert size.tolist() == [[0, 0]]
    assert not nan.any()


def test_a_difference_of_infinities_is_the_largest_number_since_infinite_stands_for_nan():
    inf = torch.tensor([[[torch.inf], [-torch.inf]]])
    assert max_abs_diff([inf], [inf])[0].tolist() == [[0, 0]]
    assert max_abs_diff([inf], [-inf])[0].tolist() == [[torch.finfo(torch.float64).max] * 2]


def test_the_largest_number_is_a_finite_one():
    assert max_abs([torch.tensor([-2.0, torch.inf, torch.nan]), torch.zeros(0)]) == 2
