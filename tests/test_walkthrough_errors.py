"""What the four tokens refuse."""

import pytest
import torch

from attnmask import four_tokens
from errors import meets_a_sentence

pytestmark = pytest.mark.usefixtures("as_installed")


CASES = {
    "integers for the four tokens": (
        lambda: four_tokens(dtype=torch.uint8),
        "a floating dtype",
        "torch.uint8",
        "integer",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_meets_a_sentence(name):
    meets_a_sentence(*CASES[name])
