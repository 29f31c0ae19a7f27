"""How do several documents share one row without reading each other?"""

import torch

from attnmask.exercises import mistakes as names
from attnmask.exercises.task import Mistake, Task


def packed(document):
    """Make the mask of packed documents.

    Each token sees its own document, up to itself.

    - document: int64 (batch, token), the number of each token's document. The tokens
      of a document lie side by side, and no two documents of a row have one number.

    Return a bool tensor (batch, 1, token, token), True = may attend.
    """
    place = torch.arange(document.shape[1], device=document.device)
    same = document[:, :, None] == document[:, None, :]
    return (same & (place <= place[:, None]))[:, None]


def spec(document):
    places = range(document.shape[1])
    rows = document.tolist()
    return torch.tensor([[[[k <= q and row[k] == row[q] for k in places] for q in places]] for row in rows])


def cases(draw):
    for rows in [
        [[0, 1]],
        [[0, 0, 1]],
        [[0, 1, 1, 2]],
        [[0, 0, 1], [0, 1, 1]],
        [[0, 0, 1, 1], [2, 0, 0, 0], [0, 0, 0, 5]],
        [[3, 3, 1, 1, 1, 2], [0, 1, 1, 4, 4, 4]],
    ]:
        yield {"document": torch.tensor(rows)}


def past(document, diagonal=0):
    return torch.ones(document.shape[1], document.shape[1], dtype=torch.bool).tril(diagonal)


def same(document):
    return (document[:, :, None] == document[:, None])[:, None]


TASK = Task(
    packed,
    spec,
    cases,
    chapter="17",
    place=20,
    hints=(
        "Two tokens belong together if their documents have the same number.",
        "document[:, :, None] == document[:, None, :] compares each with each.",
    ),
    mistakes=(
        Mistake(
            "documents not kept apart",
            lambda document: past(document).expand(len(document), 1, -1, -1),
            "Yours is the causal mask: each document reads the ones before it.",
        ),
        Mistake(names.NO_CAUSAL, same),
        Mistake(names.OR_FOR_AND, lambda document: past(document) | same(document)),
        Mistake(
            "earlier documents visible",
            lambda document: past(document) & (document[:, :, None] >= document[:, None])[:, None],
            "The same document, not an earlier number: == instead of >=.",
        ),
        Mistake(
            "own token hidden",
            lambda document: past(document, -1) & same(document),
            "A token may look at itself, above all the first one of a document.",
        ),
        Mistake(
            "the neighbour's document instead of all",
            lambda document: same(document) & past(document).triu(-1),
            "Yours compares neighbours only. Every earlier token of the document may be seen.",
        ),
        Mistake(
            "one row's documents used for all",
            lambda document: (past(document) & same(document[:1])).expand(len(document), -1, -1, -1),
            "Each row is packed in its own way; yours takes the first one's.",
        ),
        Mistake(
            "document 0 taken for padding",
            lambda document: past(document) & same(document) & (document != 0)[:, None, None],
            "0 is a document as any other.",
        ),
        Mistake(
            "other documents instead of its own",
            lambda document: past(document) & ~same(document),
            "Both must have the same number: == instead of !=.",
        ),
    ),
    groups={"batch 1": lambda case: len(case["document"]) == 1},
)
