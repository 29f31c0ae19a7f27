"""Which translation is small enough to be learned in seconds? Numbers, from English words to digits."""

from collections.abc import Iterable

import torch
from jaxtyping import Integer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from attnmask._check import in_vocabulary, integer_table, value_error

PAD, START, END = 0, 1, 2
_BELOW_TWENTY = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORDS = ("⟨PAD⟩", *_BELOW_TWENTY, *_TENS, "hundred", "thousand")  # the source vocabulary: place = id
DIGITS = ("⟨PAD⟩", "⟨START⟩", "⟨END⟩", *"0123456789")  # the target vocabulary


def words(number: int) -> list[str]:
    """Write a number from 0 to 9999 in English words.

    >>> words(4072)
    ['four', 'thousand', 'seventy', 'two']
    """
    if not 0 <= number <= 9999:
        raise value_error("a number from 0 to 9999", f"{number}", "a number of more than four digits")
    thousands, hundreds, rest = number // 1000, number // 100 % 10, number % 100
    written = [_BELOW_TWENTY[thousands], "thousand"] if thousands else []
    written += [_BELOW_TWENTY[hundreds], "hundred"] if hundreds else []
    if rest >= 20:
        written.append(_TENS[rest // 10 - 2])
        rest %= 10
    return [*written, _BELOW_TWENTY[rest]] if rest or not written else written


def pairs(numbers: Iterable[int]) -> tuple[Integer[Tensor, "number word"], Integer[Tensor, "number token"]]:
    """Return sources (ids of `WORDS`) and targets (`START`, ids of `DIGITS`, `END`), padded on the right.

    >>> source, target = pairs([72, 5])
    >>> source
    tensor([[26,  3],
            [ 6,  0]])
    >>> target
    tensor([[ 1, 10,  5,  2],
            [ 1,  8,  2,  0]])
    """
    numbers = [int(number) for number in numbers]
    if not numbers:
        raise value_error("at least one number", "none", "an empty selection")
    sources = [[WORDS.index(word) for word in words(number)] for number in numbers]
    targets = [[START, *(DIGITS.index(digit) for digit in str(number)), END] for number in numbers]
    source, target = (
        pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)
        for rows in (sources, targets)
    )
    return source, target


def read(target: Integer[Tensor, "number token"]) -> list[str]:
    """Write target ids as text, up to the first `END`, without `START` and `PAD`.

    >>> read(torch.tensor([[1, 10, 5, 2, 9]]))
    ['72']
    """
    target = integer_table("target", target, "number, token")
    in_vocabulary("target", target, len(DIGITS), "ids of another vocabulary")
    rows = [row[: row.index(END)] if END in row else row for row in target.tolist()]
    return ["".join(DIGITS[each] for each in row if each not in (PAD, START)) for row in rows]
