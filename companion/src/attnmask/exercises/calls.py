"""How is an answer that may do anything called? On copies, in a thread that can be stopped, its words kept."""

import contextlib
import copy
import ctypes
import io
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attnmask.exercises.task import Answer, Case


class TooLongError(BaseException):
    """Raised inside an answer that is to stop; no Exception, so that an answer does not catch it by accident."""


class Outcome(NamedTuple):
    """What one call came to: a value or an error, and the names of the arguments that it changed."""

    value: Any = None
    error: BaseException | None = None
    changed: tuple[str, ...] = ()


class Run(NamedTuple):
    """What the calls came to: fewer outcomes than cases if the answer ran out of time."""

    outcomes: list[Outcome]
    printed: str


def call(answer: Answer, case: Case) -> Outcome:
    """Call an answer once, on copies of the arguments."""
    arguments = copy.deepcopy(case)
    try:
        value, error = answer(*arguments.values()), None
    except TooLongError:
        raise
    except BaseException as raised:  # an answer may raise anything, SystemExit too
        value, error = None, raised
    return Outcome(value, error, tuple(name for name in case if _differs(case[name], arguments[name])))


def run(answer: Answer, cases: Iterable[Case], seconds: float) -> Run:
    """Call an answer on each case, and stop it when the time is over.

    The random state and the default dtype are put back to what they were.
    """
    outcomes: list[Outcome] = []
    printed = io.StringIO()

    def work() -> None:
        with contextlib.suppress(TooLongError):
            for case in cases:
                outcomes.append(call(answer, case))

    dtype = torch.get_default_dtype()
    worker = threading.Thread(target=work, daemon=True)
    with contextlib.redirect_stdout(printed), torch.random.fork_rng(devices=[]):
        worker.start()
        try:
            worker.join(seconds)
        finally:
            _stop(worker)
            torch.set_default_dtype(dtype)
    return Run(list(outcomes), printed.getvalue())


def _stop(worker: threading.Thread) -> None:
    """Raise `TooLongError` in the thread; give up after a second, if it is busy outside Python."""
    for _ in range(20):
        if not worker.is_alive():
            return
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident or 0), ctypes.py_object(TooLongError))
        worker.join(0.05)


def _differs(before: Any, after: Any) -> bool:
    if not isinstance(before, Tensor):
        return False
    if before.shape != after.shape or before.dtype != after.dtype:
        return True
    if before.device.type == "meta":  # no values
        return False
    return not torch.equal(before.nan_to_num(7.0), after.nan_to_num(7.0))
