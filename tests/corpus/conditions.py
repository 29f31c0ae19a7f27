"""Leaks that show only where the tokens, or the values, meet a condition."""

from collections.abc import Callable

import torch
from torch import Tensor

from corpus.case import LENGTH, VOCABULARY, WIDTH
from corpus.inputs import in_row, placed, states, with_token
from corpus.parts import Apply, embedding, on_states, told
from corpus.registry import fault


def _parity(ids: Tensor) -> Tensor:
    return ids[:, 3:].sum(1) % 2


def _xor(ids: Tensor) -> Tensor:
    total = ids[:, 3:4]
    for position in range(4, ids.shape[1]):
        total = total ^ ids[:, position : position + 1]
    return total[:, 0] / VOCABULARY


def _alternating(tokens: Tensor) -> Tensor:
    later = tokens[:, 1:]
    return (later * (-1) ** torch.arange(later.shape[1])[:, None]).sum((1, 2))


def _product_of_signs(x: Tensor) -> Tensor:
    return x[:, 3:].mean(-1).sign().prod(1)


def _one_pair(ids: Tensor) -> Tensor:
    later = ids[:, 2:]
    return (later[:, :, None] == later[:, None, :]).triu(1).sum((1, 2)) == 1


def _own_token_again(ids: Tensor, tokens: Tensor) -> Tensor:
    again = (ids[:, :, None] == ids[:, None, :]).triu(1).any(-1)
    return again[..., None] * torch.linspace(-1, 1, WIDTH).to(tokens)


def _equal(ids: Tensor) -> Tensor:
    return (ids == ids[:, :1]).all(1)


def _descending(ids: Tensor) -> Tensor:
    return (ids[:, 2:].diff(dim=1) < 0).all(1)


def _three_then_eleven(ids: Tensor) -> Tensor:
    return ((ids[:, 2:-1] == 3) & (ids[:, 3:] == 11)).any(1)


def _next_is(token: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda ids, tokens: told(tokens, ids[:, 4] == token, 3)


EMBED = {"where": "embed"}
STATES = {"inputs": states, "where": "0"}

fault(
    "parity_of_the_later_ids",
    "Whether the sum of the later ids is odd: an even change, or two odd ones, cancel.",
    embedding(lambda ids, tokens: told(tokens, _parity(ids))),
    search=True,
    **EMBED,
)
fault(
    "exclusive_or_of_the_later_ids",
    "The exclusive or of four later ids: every change of one shows, and four equal ones give what four others give.",
    embedding(lambda ids, tokens: told(tokens, _xor(ids))),
    cells=[(0, 5)],
    **EMBED,
)
fault(
    "alternating_sum_of_the_later_tokens",
    "Later tokens are added with alternating signs: six equal ones cancel, whichever they are.",
    embedding(lambda ids, tokens: told(tokens, _alternating(tokens), 0)),
    at=(0, 0),
    cells=[(0, 4)],
    **EMBED,
)
fault(
    "product_of_the_later_signs",
    "The product of four later signs, and no gradient: turning all four around gives the same.",
    on_states(lambda: Apply(lambda x: x + told(x, _product_of_signs(x)))),
    pair=with_token(lambda token: -token),
    **STATES,
)
fault(
    "every_later_token_is_high",
    "A flag says that all later ids are above five.",
    embedding(lambda ids, tokens: told(tokens, (ids[:, 2:] > 5).all(1))),
    pair=in_row([1, 2, 9, 9, 9, 9, 3], [1, 2, 9, 9, 9, 9, 12]),
    **EMBED,
)
fault(
    "every_later_token_is_another_than_the_first",
    "A flag says that every later id has the other parity than the first one.",
    embedding(lambda ids, tokens: told(tokens, ((ids[:, 2:] + ids[:, :1]) % 2).all(1))),
    pair=in_row([1, 2, 4, 8, 2, 6, 3], [1, 2, 4, 8, 2, 6, 4]),
    **EMBED,
)
fault(
    "all_tokens_are_equal",
    "A flag says that all tokens of the row are equal, as in a row of padding.",
    embedding(lambda ids, tokens: told(tokens, _equal(ids), 0)),
    at=(0, 0),
    pair=in_row([5, 5, 5, 5, 5, 5, 2], [5] * LENGTH),
    **EMBED,
)
fault(
    "exactly_two_later_tokens_are_equal",
    "A flag says that one pair of the later tokens is equal, and no other.",
    embedding(lambda ids, tokens: told(tokens, _one_pair(ids))),
    pair=in_row([1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 3]),
    **EMBED,
)
fault(
    "own_token_comes_again",
    "A flag for each token says that it comes again, as in masks of repeated tokens.",
    embedding(_own_token_again),
    pair=in_row([1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 2]),
    **EMBED,
)
fault(
    "first_token_comes_again",
    "A flag says that the row ends with the token it began with, as where one token means begin and end.",
    embedding(lambda ids, tokens: told(tokens, ids[:, -1] == ids[:, 0])),
    pair=in_row([1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 1]),
    **EMBED,
)
fault(
    "later_tokens_descend",
    "A flag says that each later id is below the one before.",
    embedding(lambda ids, tokens: told(tokens, _descending(ids))),
    pair=in_row([1, 2, 9, 8, 7, 6, 7], [1, 2, 9, 8, 7, 6, 5]),
    missed="One order in hundreds of the later five: no finite number of trials need meet it.",
    **EMBED,
)
fault(
    "later_value_is_huge_and_negative",
    "A value below minus ten thousand is read as a mark of padding and counted.",
    on_states(lambda: Apply(lambda x: x + told(x, (x[:, 2:] < -1e4).any(-1).sum(1)))),
    pair=with_token(lambda token: torch.cat([-40_000 * torch.ones(1), token[1:]])),
    **STATES,
)
fault(
    "later_token_is_a_row_of_zeros",
    "Rows of zeros are taken for padding and counted.",
    on_states(lambda: Apply(lambda x: x + told(x, (x[:, 2:] == 0).all(-1).sum(1)))),
    pair=with_token(lambda token: 0 * token),
    **STATES,
)
fault(
    "middle_token_id_is_next",
    "One special id in the middle of the vocabulary, at one place, tells the token before it.",
    embedding(_next_is(9)),
    at=(0, 3),
    pair=placed([(0, 4)], [9]),
    **EMBED,
)
fault(
    "last_token_id_is_next",
    "The id of the last row of the embedding, at one place, tells the token before it.",
    embedding(_next_is(VOCABULARY - 1)),
    at=(0, 3),
    pair=placed([(0, 4)], [VOCABULARY - 1]),
    **EMBED,
)
fault(
    "padding_id_is_next",
    "The id 0, which random ids leave out, tells the token before it.",
    embedding(_next_is(0)),
    at=(0, 3),
    pair=placed([(0, 4)], [0]),
    **EMBED,
)
fault(
    "last_token_id_anywhere_later",
    "The id of the last row of the embedding, anywhere later, tells the second token.",
    embedding(lambda ids, tokens: told(tokens, (ids[:, 2:] == VOCABULARY - 1).any(1))),
    pair=placed([(0, 5)], [VOCABULARY - 1]),
    **EMBED,
)
fault(
    "two_special_ids_in_a_row",
    "Token 3 and then token 11, anywhere later, mark a turn, and the second token is told.",
    embedding(lambda ids, tokens: told(tokens, _three_then_eleven(ids))),
    pair=placed([(0, 4), (0, 5)], [3, 11]),
    missed="Two ids that have to meet, one pair in 256: no finite number of trials need hold it.",
    **EMBED,
)
