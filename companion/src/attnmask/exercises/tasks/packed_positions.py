"""Which positions do the tokens of packed documents have?"""

import torch

from attnmask.exercises.task import Mistake, Task
from attnmask.exercises.tasks.packed import cases


def packed_positions(document):
    """Number the tokens of packed documents: each document begins again at 0.

    - document: int64 (batch, token), the number of each token's document. The tokens
      of a document lie side by side, and no two documents of a row have one number.

    Return integers (batch, token).
    """
    same = document[:, :, None] == document[:, None, :]
    return same.tril(-1).sum(dim=2)  # how many tokens of the document come before


def spec(document):
    rows = []
    for row in document.tolist():
        positions, last = [], None
        for number in row:
            positions.append(positions[-1] + 1 if number == last else 0)
            last = number
        rows.append(positions)
    return torch.tensor(rows)


def same(document):
    return document[:, :, None] == document[:, None]


TASK = Task(
    packed_positions,
    spec,
    cases,
    chapter="17",
    place=21,
    hints=(
        "How many tokens of the same document come before this one?",
        "Compare each with each, keep what is strictly below the diagonal, and count along the keys.",
    ),
    mistakes=(
        Mistake(
            "positions run on",
            lambda document: torch.arange(document.shape[1]).expand(document.shape),
            "Yours numbers the row. Each document begins again at 0.",
        ),
        Mistake(
            "counted from 1",
            lambda document: same(document).tril().sum(dim=2),
            "The first token has position 0: tril(-1).",
        ),
        Mistake(
            "counted from the end",
            lambda document: same(document).triu(1).sum(dim=2),
            "Yours counts the tokens that follow; count those that come before.",
        ),
        Mistake(
            "the whole document counted",
            lambda document: same(document).sum(dim=2),
            "Yours is each document's length. Count only the tokens before.",
        ),
        Mistake(
            "the documents' numbers",
            lambda document: document,
            "Yours says which document it is, not where the token stands in it.",
        ),
        Mistake(
            "whether a document begins",
            lambda document: (document.diff(dim=1, prepend=document[:, :1] - 1) != 0).long(),
            "Yours marks where documents begin; the positions count from there.",
        ),
        Mistake(
            "one row's positions used for all",
            lambda document: same(document[:1]).tril(-1).sum(dim=2).expand(document.shape),
            "Each row is packed in its own way; yours takes the first one's.",
        ),
        Mistake(
            "counted along the batch",
            lambda document: torch.arange(len(document))[:, None].expand(document.shape),
            "The tokens of a row lie along axis 1.",
        ),
        Mistake(
            "the documents counted",
            lambda document: (document.diff(dim=1, prepend=document[:, :1]) != 0).cumsum(dim=1),
            "Yours says how many documents came before; count the tokens of the same document.",
        ),
    ),
    groups={"batch 1": lambda case: len(case["document"]) == 1},
)
