"""Writing token by token: against a loop that knows no cache, and against `generate`."""

import pytest
import torch

from attnmask import Cache, Decoder, Encoder, Translator, causal, greedy, padding, sliding_window

X = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MEMORY = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def in_parts(stack, mask, cuts, **memory):
    """The rows of a stack that gets its tokens in parts, with a cache."""
    cache, rows = Cache(), []
    for part in X.split(cuts, dim=1):
        rows.append(stack(part, **memory, masks=mask.after(cache.length), cache=cache))
    assert cache.length == X.shape[1]
    return torch.cat(rows, dim=1)


@pytest.mark.parametrize("cuts", [[1] * 6, [4, 2], [2, 3, 1], [6]], ids=str)
@pytest.mark.parametrize("mask", [causal(), sliding_window(2)], ids=str)
def test_parts_with_a_cache_are_the_whole(mask, cuts):
    torch.manual_seed(0)
    encoder, decoder = Encoder(2, 8, heads=2).double(), Decoder(2, 8, heads=2).double()
    torch.testing.assert_close(in_parts(encoder, mask, cuts), encoder(X, mask))
    keep = torch.tensor([[True] * 5, [True, True, True, False, False]])
    given = {"memory": MEMORY, "memory_masks": padding(keep)}
    torch.testing.assert_close(in_parts(decoder, mask, cuts, **given), decoder(X, masks=mask, **given))


def test_a_cache_is_not_valid_where_old_tokens_look_at_new_ones():
    torch.manual_seed(0)
    encoder = Encoder(2, 8).double()
    both_ways = sliding_window(2, right=2)
    assert (in_parts(encoder, both_ways, [4, 2]) - encoder(X, both_ways)).abs().max() > 0.01


def test_a_cache_is_as_it_was_after_an_error():
    encoder, cache = Encoder(2, 8).double(), Cache()
    encoder(X[:, :2], causal(), cache)
    wrong = padding(torch.ones(2, 9, dtype=torch.bool))
    with pytest.raises(ValueError, match="9"):
        encoder(X[:, 2:4], [causal().after(2), wrong], cache)  # the first layer has run by then
    assert cache.length == 2
    torch.testing.assert_close(encoder(X[:, 2:4], causal().after(2), cache), encoder(X[:, :4], causal())[:, 2:])


def test_two_caches_go_on_from_the_same_tokens():
    encoder, first = Encoder(1, 8).double(), Cache()
    encoder(X[:, :3], causal(), first)
    second = Cache(first)
    encoder(X[:, 3:], causal().after(3), second)
    assert (first.length, second.length) == (3, 6)


def test_a_cache_of_another_batch_is_refused():
    encoder, cache = Encoder(1, 8).double(), Cache()
    encoder(X[:, :2], causal(), cache)
    with pytest.raises(ValueError, match="a batch of 2, as in the cache; got 1"):
        encoder(X[:1, 2:], causal().after(2), cache)


def translator():
    torch.manual_seed(0)
    return Translator(20, 20, layers=2, d_model=8, heads=2, longest=12).double()


def test_a_translator_decodes_in_steps_what_it_decodes_at_once():
    model = translator()
    source, target = torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[1, 11, 12, 13], [1, 14, 15, 16]])
    real = padding(source != 0)
    memory, cache = model.encode(source, real), Cache()
    rows = [
        model.decode(target[:, i : i + 1], memory, causal().after(cache.length), real, cache=cache) for i in range(4)
    ]
    torch.testing.assert_close(torch.cat(rows, dim=1), model(source, target, real, causal(), real))


def test_position_ids_move_padding_on_the_left_out_of_the_way():
    model = translator()
    memory = torch.randn(1, 3, 8, dtype=torch.float64)
    alone = model.decode(torch.tensor([[1, 11, 12]]), memory, causal())
    padded, keep = torch.tensor([[0, 0, 1, 11, 12]]), torch.tensor([[False, False, True, True, True]])
    counted = (keep.cumsum(1) - 1).clamp(min=0)
    mask = causal() & padding(keep)
    torch.testing.assert_close(model.decode(padded, memory, mask, position_ids=counted)[:, 2:], alone)
    assert (model.decode(padded, memory, mask)[:, 2:] - alone).abs().max() > 0.01


def test_positions_and_lengths_beyond_the_table_are_refused():
    model, cache = translator(), Cache()
    memory, ids = torch.zeros(1, 3, 8, dtype=torch.float64), torch.ones(1, 8, dtype=torch.long)
    model.decode(ids, memory, causal(), cache=cache)
    with pytest.raises(ValueError, match="at most longest=12 tokens; got 16"):
        model.decode(ids, memory, causal().after(8), cache=cache)
    with pytest.raises(ValueError, match=r"clamp\(min=0\)"):
        model.decode(ids, memory, causal(), position_ids=torch.arange(8)[None] - 1)


def logits_of(rows):
    """A model whose likeliest next token depends on the sum of all tokens so far."""
    return torch.nn.functional.one_hot(rows.cumsum(1) % 7, num_classes=7).float()


def test_greedy_is_a_loop_over_tokens():
    ids = torch.tensor([[3, 1], [2, 2]])
    expected = [row[:] for row in ids.tolist()]
    for row in expected:
        for _ in range(5):
            row.append(sum(row) % 7)
    assert greedy(logits_of, ids, 5).tolist() == expected


def test_behind_an_end_stands_padding():
    count = lambda rows: torch.nn.functional.one_hot(rows + 1, num_classes=10).float()  # noqa: E731
    assert greedy(count, torch.tensor([[2], [4]]), 4, end=5, pad=8).tolist() == [[2, 3, 4, 5, 8], [4, 5, 8, 8, 8]]
    # An end in what was there already ends nothing: T5 and others begin with one.
    assert greedy(count, torch.tensor([[5]]), 2, end=5).tolist() == [[5, 6, 7]]


def test_with_a_cache_each_token_is_asked_for_once():
    asked = []

    def logits(ids):
        asked.append(ids.shape[1])
        return torch.zeros(1, ids.shape[1], 4)

    greedy(logits, torch.tensor([[1, 2, 3]]), 4, cached=True)
    assert asked == [3, 1, 1, 1]
    asked.clear()
    greedy(logits, torch.tensor([[1, 2, 3]]), 4)
    assert asked == [3, 4, 5, 6]


def test_no_steps_leave_the_ids():
    ids = torch.tensor([[1, 2]])
    assert greedy(logits_of, ids, 0).equal(ids)


def test_greedy_refuses_what_is_no_logits():
    ids = torch.tensor([[1, 2]])
    with pytest.raises(TypeError, match=r"give its \.logits"):
        greedy(lambda ids: {"logits": ids}, ids, 1)
    with pytest.raises(ValueError, match="logits of the last token alone"):
        greedy(lambda ids: torch.zeros(1, 4), ids, 1)
    with pytest.raises(TypeError, match="ids"):
        greedy(logits_of, torch.rand(1, 2), 1)
