"""Which mistake did you make? Exercises for the book, checked case by case.

Each task is a function to write. `check` tries yours on many inputs and names the mistake if one explains all
that came; `hint` and `solution` help, `status` lists. Outside notebooks: ``python -m attnmask.exercises``.
"""

from attnmask.exercises.checks import check as check
from attnmask.exercises.checks import hint as hint
from attnmask.exercises.checks import solution as solution
from attnmask.exercises.checks import status as status
from attnmask.exercises.judge import Result as Result
