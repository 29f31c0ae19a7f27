"""A library that is not there is said to be missing."""

import pytest

from attnmask import conventions


def test_a_missing_library_is_one_line_in_a_notebook():
    with pytest.raises(ImportError) as caught:
        conventions.need("torch", "no_such_framework.part")
    assert caught.value._render_traceback_() == [str(caught.value)]
    assert "pip install './companion[frameworks]'" in str(caught.value)
