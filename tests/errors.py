"""How a bad input is written down, and the sentence that it meets: what was expected, what came, the likely cause.

A case is a call, and a part of each of the three. A `test_…_errors.py` holds a table of cases by name, and gives each
to `meets_a_sentence`; it turns off the run-time shape checks (`as_installed`), since readers meet our own sentences.
"""

import pytest
import torch

from attnmask import attend

INF = float("inf")
KEEP = torch.tensor([[True, True, False], [True, False, False]])  # (batch, key) = (2, 3)
CUBE = torch.ones(2, 3, 3, dtype=torch.bool)
IDS = torch.tensor([[5, 6, 0], [7, 0, 0]])
TOKEN = torch.randn(2, 3, 4)  # (batch, token, d)


def attend_with(mask, token=TOKEN):
    return attend(token, token, token, mask)


def meets_a_sentence(call, expected, got, cause):
    """Call what must fail; see that its error says what was expected, what came, and the likely cause."""
    with pytest.raises((ValueError, TypeError, ImportError)) as caught:
        call()
    sentence = str(caught.value)
    assert sentence.startswith("Expected "), sentence
    wanted, rest = sentence.split("; got ", 1)
    came, likely = rest.split(". Likely cause: ", 1)
    assert expected in wanted, sentence
    assert got in came, sentence
    assert cause in likely, sentence
