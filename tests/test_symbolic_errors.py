"""What the letters refuse."""

import pytest

from attnmask import padding, symbolic
from errors import CUBE, KEEP, meets_a_sentence

pytestmark = pytest.mark.usefixtures("as_installed")


CASES = {
    "two tokens of one name": (lambda: symbolic.scores(["the", "cat", "the"]), "a name each", "'cat'", "comes twice"),
    "letters for a batch": (lambda: symbolic.additive(CUBE, 3), "(query, key)", "(2, 3, 3)", "pick one sample"),
    "a batch of letters": (lambda: symbolic.additive(padding(KEEP), 3), "one sample and one head", "(2, 1", "pick one"),
    "values of another sequence": (
        lambda: symbolic.output(symbolic.softmax(symbolic.scores("ab")), "abc"),
        "one column of weights for each of 3 values",
        "2 columns",
        "another sequence",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_meets_a_sentence(name):
    meets_a_sentence(*CASES[name])
