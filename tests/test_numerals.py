"""The task of number words, against another way to write and to read it."""

import pytest
import torch

from attnmask import numerals
from attnmask.numerals import DIGITS, END, PAD, START, WORDS

VALUES = dict(zip(WORDS[1:], [*range(20), *range(20, 100, 10)], strict=False))


def value(words):
    """Read number words from left to right: a multiplier multiplies what has been added since the last thousand."""
    thousands = rest = 0
    for word in words:
        if word == "thousand":
            thousands, rest = 1000 * rest, 0
        elif word == "hundred":
            rest *= 100
        else:
            rest += VALUES[word]
    return thousands + rest


def test_every_number_is_written_so_that_it_reads_as_itself():
    assert [value(numerals.words(number)) for number in range(10_000)] == list(range(10_000))


@pytest.mark.parametrize(
    ("number", "words"),
    {0: "zero", 10: "ten", 21: "twenty one", 110: "one hundred ten", 9000: "nine thousand"}.items(),
)
def test_by_hand(number, words):
    assert numerals.words(number) == words.split()


def test_targets_are_the_digits_between_start_and_end():
    numbers = [0, 7, 40, 942, 4072, 9999]
    source, target = numerals.pairs(numbers)
    assert source.shape == (6, 6)
    assert target.shape == (6, 6)
    for number, words, digits in zip(numbers, source.tolist(), target.tolist(), strict=True):
        assert [WORDS[each] for each in words if each != PAD] == numerals.words(number)
        length = len(str(number))
        assert digits[0] == START
        assert "".join(DIGITS[each] for each in digits[1 : length + 1]) == str(number)
        assert digits[length + 1 :] == [END] + [PAD] * (4 - length)
    assert numerals.read(target) == [str(number) for number in numbers]


def test_reading_stops_at_the_first_end():
    assert numerals.read(torch.tensor([[START, 5, END, 6, END], [7, PAD, 8, 9, 9]])) == ["2", "4566"]


def test_what_is_no_number_of_the_task_is_refused():
    for wrong in (-1, 10_000):
        with pytest.raises(ValueError, match="from 0 to 9999"):
            numerals.words(wrong)
    with pytest.raises(ValueError, match="at least one number"):
        numerals.pairs([])
    with pytest.raises(ValueError, match="another vocabulary"):
        numerals.read(torch.tensor([[len(DIGITS)]]))
