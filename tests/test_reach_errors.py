"""What `reach` refuses."""

import pytest

from attnmask import causal, padding, reach
from errors import KEEP, meets_a_sentence

pytestmark = pytest.mark.usefixtures("as_installed")


CASES = {
    "one mask for a stack": (lambda: reach(causal(), 3), "a list of masks", "causal()", "write [mask] * layers"),
    "a tensor for a stack": (lambda: reach(KEEP, 3), "a list of masks", "a bool tensor", "padding(mask)"),
    "a tensor for a layer": (lambda: reach([causal(), KEEP], 3), "a list of masks", "a bool tensor", "padding(mask)"),
    "another length for a stack": (lambda: reach([padding(KEEP)], 4), "key_len=3", "key_len=4", "other token ids"),
    "a stack of negative length": (lambda: reach([], -1), "query_len to be 0 or more", "-1", "a sign slip"),
    "two batches in a stack": (
        lambda: reach([padding(KEEP), padding(KEEP[[0, 0, 1]])], 3),
        "masks of one batch",
        "[2, 3] samples",
        "different sets",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_meets_a_sentence(name):
    meets_a_sentence(*CASES[name])
