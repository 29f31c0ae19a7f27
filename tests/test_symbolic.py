import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnmask import attend, causal, everything, four_tokens, padding, symbolic
from oracles import Sizes, cases

ONE_SAMPLE = Sizes(1, 1, 4, 4)


def numbers(four):
    """What each letter stands for: the dot products of rows of Q and K, and d_k."""
    query, key = four.query.tolist(), four.key.tolist()
    dots = {
        symbolic.product(a, b): sum(sympy.Integer(int(x * y)) for x, y in zip(query[i], key[j], strict=True))
        for i, a in enumerate(four.tokens)
        for j, b in enumerate(four.tokens)
    }
    return {**dots, symbolic.d_k: 2}


@given(cases(ONE_SAMPLE))
def test_letters_become_numbers_by_substitution(case):
    four = four_tokens(dtype=torch.float64)
    steps = attend(four.query, four.key, four.value, case.mask.dense(4), empty_rows="nan")
    weights = symbolic.softmax(symbolic.scores() + symbolic.additive(case.mask, 4))
    substituted = torch.tensor(weights.subs(numbers(four)).evalf().tolist(), dtype=torch.float64)
    torch.testing.assert_close(substituted, steps.weights, equal_nan=True)

    output = symbolic.output(weights).subs(numbers(four))
    for column, values in enumerate(four.value.T.tolist()):
        letters = {symbolic.value(token): int(v) for token, v in zip(four.tokens, values, strict=True)}
        numeric = torch.tensor([float(row.subs(letters).evalf()) for row in output], dtype=torch.float64)
        torch.testing.assert_close(numeric, steps.output[:, column], equal_nan=True)


def test_blocked_weights_are_exactly_zero_in_letters():
    keep = torch.tensor([[True, True, True, False]])
    weights = symbolic.softmax(symbolic.scores() + symbolic.additive(padding(keep), 4))
    assert list(weights[:, 3]) == [0, 0, 0, 0]
    assert [sympy.simplify(sum(weights[row, :])) for row in range(4)] == [1, 1, 1, 1]


def test_an_empty_row_is_nan_in_letters():
    weights = symbolic.softmax(symbolic.scores() + symbolic.additive(~everything(), 4))
    assert list(weights) == [sympy.nan] * 16


def test_output_rows_name_the_tokens_they_contain():
    rows = symbolic.output(symbolic.softmax(symbolic.scores() + symbolic.additive(causal(), 4)))
    assert [symbolic.contains(row) for row in rows] == ["a", "ab", "abc", "abcD"]


def test_queries_and_keys_of_two_sequences():
    scores = symbolic.scores("xy", "abc")
    assert scores.shape == (2, 3)
    assert symbolic.additive(causal(offset=1), 2, 3).tolist() == [[0, 0, -sympy.oo], [0, 0, 0]]
    assert symbolic.output(symbolic.softmax(scores), "abc").shape == (2, 1)


def test_latex_shows_both_subscripts_and_minus_infinity():
    assert sympy.latex(symbolic.products("aD")) == (
        r"\left[\begin{matrix}a_{Q} \cdot a_{K} & a_{Q} \cdot D_{K}\\"
        r"D_{Q} \cdot a_{K} & D_{Q} \cdot D_{K}\end{matrix}\right]"
    )
    masked = symbolic.scores("ab") + symbolic.additive(causal(), 2)
    assert r"\frac{a_{Q} \cdot a_{K}}{\sqrt{d_{k}}} & -\infty" in sympy.latex(masked)


def test_letters_are_written_in_the_order_of_the_tokens():
    row = symbolic.output(symbolic.weights("aD"), "aD")[0]
    assert sympy.latex(row) == "A_{aa} a_{V} + A_{aD} D_{V}"


@given(st.permutations("abcD"))
def test_abbreviations_stand_for_the_exponentials(tokens):
    short = symbolic.abbreviate(symbolic.softmax(symbolic.scores(tokens)), tokens)
    first, last = tokens[0], tokens[-1]
    row = [f"e_{first}{token}" for token in tokens]
    assert {letter.name for letter in short[0, 3].free_symbols} == set(row)
    assert sympy.numer(short[0, 3]).name == row[3]
    assert {term.name for term in sympy.denom(short[0, 3]).args} == set(row)
    assert not short.has(symbolic.product(first, last))
