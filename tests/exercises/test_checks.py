"""Right answers pass, wrong ones are named, and no answer breaks the checker."""

import sys
import threading
import time

import pytest
import torch
from right_answers import RIGHT
from wrong_answers import WRONG

from attnmask import causal
from attnmask.exercises import check, hint, solution, status
from attnmask.exercises.judge import SECONDS, judge
from attnmask.exercises.task import Draw, tasks

TASKS = tasks()
every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def named(table):
    return [
        pytest.param(name, *([entry] if callable(entry) else entry), id=f"{name}-{number}")
        for name, entries in table.items()
        for number, entry in enumerate(entries)
    ]


def test_the_tables_have_every_task_and_enough_wrong_answers():
    assert set(WRONG) == set(RIGHT) == set(TASKS)
    assert all(len({mistake for mistake, _ in answers}) >= 6 for answers in WRONG.values())
    assert sum(map(len, WRONG.values())) >= 120
    assert [task.place for task in TASKS.values()] == sorted({task.place for task in TASKS.values()})


@every_task
def test_the_solution_passes_and_agrees_with_the_loops(task):
    assert check(task.name, task.solution).passed
    result = judge(task, task.spec)
    assert result.passed or result.mistakes == ("wrong device",)  # loops are written for the CPU


@pytest.mark.parametrize(("name", "answer"), named(RIGHT))
def test_an_answer_in_another_style_passes(name, answer):
    assert check(name, answer).passed


@pytest.mark.parametrize(("name", "mistake", "answer"), named(WRONG))
def test_a_wrong_answer_is_named(name, mistake, answer):
    result = check(name, answer)
    assert result.mistakes == (mistake,), result
    assert not result
    assert f"Mistake: {mistake}. " in " ".join(repr(result).split())


@every_task
def test_no_mistake_is_taken_for_another(task):
    """Each mistake of a task differs from every other one in some case, and from what is right."""
    assert [judge(task, mistake.answer).mistakes for mistake in task.mistakes] == [
        (mistake.name,) for mistake in task.mistakes
    ]


@every_task
def test_a_task_says_what_it_needs_to(task):
    assert task.text.splitlines()[0].endswith((".", ":"))
    assert "Return" in task.text
    assert len(task.hints) >= 2
    assert task.stub.startswith(task.signature)
    assert task.code.startswith(task.signature)
    assert '"""' not in task.code
    assert len({mistake.name for mistake in task.mistakes}) == len(task.mistakes) >= 6
    cases = list(task.cases(Draw()))
    assert [list(case) for case in cases] == [list(cases[0])] * len(cases)
    for belongs in task.groups.values():
        assert {belongs(case) for case in cases} == {True, False}


def test_a_dict_with_other_entries_is_said():
    keys = "src_mask, tgt_mask, memory_mask, src_key_padding_mask, tgt_key_padding_mask, memory_key_padding_mask"
    for answer, came in (
        (lambda s, t: {"src_mask": None}, "a dict of src_mask"),
        (lambda s, t: {}, "a dict of nothing"),
    ):
        assert f"expected a dict of {keys}; yours is {came}" in check("six_masks", answer).words


def test_two_mistakes_at_once_are_both_named():
    assert check("causal", lambda length, device: torch.ones(length, length).tril(-1)).mistakes == (
        "own token hidden",
        "wrong dtype",
    )


def test_an_answer_that_works_in_one_group_of_cases_only():
    def for_one(keep):
        if len(keep) > 1:
            raise RuntimeError("I know one sample only")
        return keep[:, None, None]

    assert check("key_padding", for_one).mistakes == ("works only for batch 1",)
    square = check("wait_k", lambda keep, target_len, k: TASKS["wait_k"].spec(keep, keep.shape[1], k))
    assert square.mistakes == ("works only for square masks",)


def test_a_group_is_named_only_if_it_is_right_as_a_whole():
    def for_one_short(keep):
        return keep[:, None, None] if keep.shape == (1, 2) else torch.zeros(1, 1, 1, 7, dtype=torch.bool)

    result = check("key_padding", for_one_short)
    assert result.mistakes == ()
    assert "right in 1 of 7 cases" in result.words


def test_what_no_mistake_explains_is_described():
    def sees_one_less(length, device):
        mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        if length > 3:
            mask[3, 1] = False
        return mask

    result = check("causal", sees_one_less)
    assert result.mistakes == ("hides too much",)
    assert "right in 3 of 8 cases" in result.words
    assert "length = 4" in result.words
    assert check("causal", lambda length, device: ~sees_one_less(length, device)).mistakes == ()
    expected, yours = result.smallest
    assert (expected != yours).nonzero().tolist() == [[3, 1]]


def counts_up():
    yield 1


def exits(length, device):
    sys.exit("enough")


def forever(length, device):
    while True:
        pass


def stubborn(length, device):
    end = time.monotonic() + SECONDS + 3
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except BaseException:
            continue


def recursive(length, device):
    return recursive(length, device)


ROUGH = {
    "raises": (lambda length, device: 1 / 0, "yours raised ZeroDivisionError: division by zero"),
    "exits": (exits, "yours raised SystemExit: enough"),
    "interrupts": (lambda length, device: (_ for _ in ()).throw(KeyboardInterrupt()), "yours raised KeyboardInterrupt"),
    "recursion": (recursive, "yours raised RecursionError"),
    "a generator": (lambda length, device: counts_up(), "yours is a generator; write return instead of yield"),
    "a string": (lambda length, device: "tril", "yours is 'tril' (str)"),
    "a module": (lambda length, device: torch.nn.Linear(1, 1), "yours is Linear("),
    "a class": (lambda length, device: int, "yours is <class 'int'>"),
    "a Mask": (lambda length, device: causal(), "a Mask; ask it for its tensor: .dense(...)"),
    "infinite numbers": (lambda length, device: torch.full((length, length), torch.inf), "a float32 tensor of shape"),
    "NaN": (lambda length, device: torch.full((length, length), torch.nan), "nan"),
    "complex numbers": (lambda length, device: torch.ones(length, length, dtype=torch.complex64), "a complex64 tensor"),
    "nested": (
        lambda length, device: torch.nested.nested_tensor([torch.ones(1)], layout=torch.jagged),
        "yours is a nested tensor",
    ),
    "sparse": (lambda length, device: torch.ones(length, length).to_sparse(), "a float32 tensor of shape"),
    "nothing inside": (lambda length, device: torch.empty(0), "a float32 tensor of shape (0,)"),
    "a ragged list": (lambda length, device: [[1], [1, 2]], "yours is [[1], [1, 2]] (list)"),
    "a list of itself": (lambda length, device: (lambda new: new.append(new) or new)([]), "(list)"),
    "the wrong arguments": (lambda length: None, "should take the arguments (length, device); yours takes (length)"),
    "no data": (lambda length, device: torch.ones(length, length, device="meta"), "a float32 tensor of shape"),
    "a value with its own equals": (lambda length, device: Contrary(), "Contrary"),
}


class Contrary:
    def __eq__(self, other):
        raise RuntimeError("I am compared with nobody")

    __hash__ = None


@pytest.mark.parametrize(("answer", "said"), ROUGH.values(), ids=ROUGH)
def test_no_answer_breaks_the_checker(answer, said):
    result = check("causal", answer)
    assert not result.passed
    assert said in " ".join(result.words.split())


@pytest.mark.parametrize("answer", [forever, stubborn])
def test_an_answer_that_takes_too_long_is_stopped(answer):
    begin = time.perf_counter()
    result = check("causal", answer)
    assert time.perf_counter() - begin < 2 * SECONDS
    assert "It was stopped after 5 seconds, at length = 1" in result.words
    left = [thread for thread in threading.enumerate() if thread.daemon and thread.is_alive() and "work" in thread.name]
    assert len(left) == (answer is stubborn)  # what catches everything cannot be stopped, only left alone


def test_an_answer_may_print_and_is_told():
    def talks(ids, pad_id):
        print("ids", "pad", sep="\n")
        return ids != pad_id

    assert "It printed 12 lines; what counts is what it returns." in check("padding_from_ids", talks).words


def test_printing_does_not_reach_the_page(capsys):
    check("padding_from_ids", lambda ids, pad_id: print("hello"))
    assert capsys.readouterr().out == ""


def test_what_is_not_attempted_is_said_kindly():
    def stub(ids, pad_id): ...

    def later(ids, pad_id):
        raise NotImplementedError

    for answer in (stub, later, lambda ids, pad_id: ...):
        result = check("padding_from_ids", answer)
        assert not result.attempted
        assert result.words == "padding_from_ids: not attempted yet. Write the function, then run this again."
        assert result._repr_html_() is None


def test_an_input_that_is_changed_is_said_whether_or_not_the_result_is_right():
    def right(scores, allowed):
        weights = TASKS["masked_softmax"].solution(scores, allowed)
        scores.zero_()
        return weights

    assert check("masked_softmax", right).mistakes == ("input changed in place",)
    wrong = check("masked_softmax", lambda scores, allowed: scores.mul_(allowed).softmax(dim=0))
    assert wrong.mistakes == ("input changed in place",)


def test_random_state_and_default_dtype_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(2)

    def changes(ids, pad_id):
        torch.manual_seed(7)
        torch.set_default_dtype(torch.float64)
        return ids != pad_id

    torch.manual_seed(0)
    assert check("padding_from_ids", changes).passed
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_default_dtype() == torch.float32


def test_a_wrong_device_is_noticed_without_another_device():
    result = check("padding_from_lengths", lambda lengths, length: torch.arange(length) < lengths[:, None])
    assert result.mistakes == ("wrong device",)
    loops = check("padding_from_ids", TASKS["padding_from_ids"].spec)
    assert loops.passed
    if not torch.accelerator.is_available():
        assert "Another device was not tried" in loops.words


def test_status_lists_what_was_checked():
    check("causal", TASKS["causal"].solution)
    check("packed", lambda document: document)
    check("window", lambda length, size: None)
    lines = {line.split()[1]: line.split()[2:] for line in status().splitlines()}
    assert (lines["causal"], lines["packed"], lines["window"]) == (["yes"], ["not", "yet"], [])
    assert set(lines) == {"Task", *TASKS}


@pytest.mark.usefixtures("as_installed")
def test_hints_and_solutions():
    assert "row" in hint("causal") != hint("causal", 2)
    assert "tril" in solution("causal")
    for call, said in (
        (lambda: hint("causal", 3), "from 1 to 2; got 3"),
        (lambda: hint("casual"), "'causal' is near"),
        (lambda: solution("love"), "a name from elsewhere"),
        (lambda: check("causl", RIGHT["causal"][0]), "'causal' is near"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(TypeError, match="without parentheses"):
        check("causal", torch.ones(2, 2).tril() == 1)


def test_a_picture_frames_what_differs():
    from attnmask.exercises.picture import as_html, show_answer

    result = check("causal", lambda length, device: torch.ones(length, length, dtype=torch.bool, device=device).tril(1))
    left, right = show_answer(*result.smallest)
    frames = [patch.get_xy() for patch in right.patches if not patch.get_fill()]
    assert frames == [(1 - 0.46, -0.46)]  # column 1 of row 0
    assert not [patch for patch in left.patches if not patch.get_fill()]
    page = as_html("a < b", *result.smallest)
    assert ">a &lt; b</pre><img alt=" in page
    assert ">causal: not yet" in result._repr_html_()


def test_pictures_of_numbers_and_of_rows():
    for name in ("masked_softmax", "padding_from_ids", "six_masks", "packed_positions", "mean_of_real_tokens"):
        for _, answer in WRONG[name]:
            page = check(name, answer)._repr_html_()
            assert page is None or "image/png" in page
