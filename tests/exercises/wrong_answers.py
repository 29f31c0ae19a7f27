"""Answers as learners write them, wrong in one way each, and the name that the checker has to find.

They are written apart from the mistakes of the tasks: other operations, loops, other roads to the same fault.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F


def loops(rule, *, dtype=torch.bool):
    """Fill a (length, length) matrix entry by entry: a function of the arguments from one of a pair and of them."""

    def answer(length, *rest):
        matrix = torch.zeros(length, length, dtype=dtype)
        for query in range(length):
            for key in range(length):
                matrix[query, key] = rule(query, key, *rest)
        return matrix

    return answer


def batched(rule):
    """Do the same for a batch: (batch, 1, length, length) from a tensor (batch, length)."""

    def answer(table):
        batch, length = table.shape
        mask = torch.zeros(batch, 1, length, length, dtype=torch.bool)
        for sample in range(batch):
            for query in range(length):
                for key in range(length):
                    mask[sample, 0, query, key] = bool(rule(query, key, table[sample]))
        return mask

    return answer


def sdpa(query, key, value, mask, **options):
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, **options)


def change_scores(scores, allowed):
    scores[~allowed] = -torch.inf
    weights = torch.softmax(scores, dim=-1)
    return torch.where(allowed, weights, 0.0)


def additive_infinity(allowed, dtype):
    return torch.where(allowed, 0.0, -torch.inf).to(dtype)


def decode(query, new_key, new_value, cached_key, cached_value, *, mask=None, scale=None, sees_new=True):
    key, value = torch.cat((cached_key, new_key), 1), torch.cat((cached_value, new_value), 1)
    seen_key, seen_value = (key, value) if sees_new else (cached_key, cached_value)
    output = sdpa(query, seen_key, seen_value, mask, scale=scale)
    return {"output": output, "key": key, "value": value}


def as_heads(answer):
    return lambda *given: answer(*given).expand(-1, 2, -1, -1)


WRONG = {
    "padding_from_ids": [
        ("inverted polarity", lambda ids, pad_id: torch.eq(ids, pad_id)),
        ("pad id taken to be 0", lambda ids, pad_id: ids.bool()),
        ("ids below the pad id taken to be padding", lambda ids, pad_id: (ids - pad_id) > 0),
        ("ids above the pad id taken to be padding", lambda ids, pad_id: (ids - pad_id) < 0),
        ("wrong dtype", lambda ids, pad_id: torch.where(ids == pad_id, 0, 1)),
        (
            "additive mask where a bool mask was meant",
            lambda ids, pad_id: torch.zeros(ids.shape).masked_fill(ids == pad_id, -1e9),
        ),
        ("extra dimension", lambda ids, pad_id: (ids != pad_id)[:, None, None]),
        ("not a tensor", lambda ids, pad_id: [[token != pad_id for token in row] for row in ids.tolist()]),
        ("padding forgotten", lambda ids, pad_id: ids >= 0),
        ("one sample's padding used for all", lambda ids, pad_id: torch.stack([ids[0] != pad_id] * len(ids))),
    ],
    "padding_from_lengths": [
        ("one token too many", lambda lengths, length: torch.arange(length) <= lengths.unsqueeze(1)),
        ("one token too few", lambda lengths, length: torch.arange(1, length + 1) < lengths.unsqueeze(1)),
        ("inverted polarity", lambda lengths, length: torch.arange(length) >= lengths[:, None]),
        ("as long as the longest sample", lambda lengths, length: torch.arange(int(lengths.max())) < lengths[:, None]),
        (
            "padding taken to be on the left",
            lambda lengths, length: torch.tensor([[False] * (length - n) + [True] * n for n in lengths.tolist()]),
        ),
        ("padding forgotten", lambda lengths, length: lengths[:, None].expand(-1, length) > 0),
        ("wrong dtype", lambda lengths, length: (torch.arange(length) < lengths[:, None]).float()),
        ("not a tensor", lambda lengths, length: np.arange(length) < lengths[:, None].numpy()),
        ("extra dimension", lambda lengths, length: torch.arange(length) < lengths[:, None, None]),
        ("only the last real token marked", lambda lengths, length: F.one_hot(lengths - 1, length).bool()),
    ],
    "causal": [
        ("transposed", lambda length, device: loops(lambda q, k: k >= q)(length)),
        ("own token hidden", lambda length, device: loops(lambda q, k: k < q)(length)),
        ("next token visible", lambda length, device: loops(lambda q, k: k <= q + 1)(length)),
        ("strict upper triangle", lambda length, device: torch.triu(torch.ones(length, length), diagonal=1).bool()),
        ("wrong dtype", lambda length, device: torch.tril(torch.ones(length, length, device=device))),
        (
            "additive mask where a bool mask was meant",
            lambda length, device: torch.nn.Transformer.generate_square_subsequent_mask(length),
        ),
        ("extra dimension", lambda length, device: torch.tril(torch.ones(1, 1, length, length)).bool()),
        ("wrong device", lambda length, device: torch.tril(torch.ones(length, length)).bool()),
        ("everything visible", lambda length, device: torch.full((length, length), True)),
        ("mirrored", lambda length, device: loops(lambda q, k: q + k >= length - 1)(length)),
    ],
    "key_padding": [
        ("queries masked instead of keys", lambda keep: keep.unsqueeze(1).unsqueeze(3)),
        ("missing dimension", lambda keep: keep.unsqueeze(1)),
        ("inverted polarity", lambda keep: keep.logical_not()[:, None, None]),
        (
            "materialises what should broadcast",
            lambda keep: keep[:, None, None].expand(-1, -1, keep.shape[1], -1).contiguous(),
        ),
        ("wrong dtype", lambda keep: keep[:, None, None].float()),
        ("additive mask where a bool mask was meant", lambda keep: (1.0 - keep[:, None, None].float()) * -1e4),
        ("extra dimension", lambda keep: keep[:, None, None, None]),
        (
            "queries and keys both masked",
            lambda keep: torch.einsum("bq,bk->bqk", keep.int(), keep.int()).bool()[:, None],
        ),
        ("batch and key not aligned", lambda keep: keep.unsqueeze(0).unsqueeze(0)),
    ],
    "padded_causal": [
        ("or for and", lambda keep: batched(lambda q, k, row: k <= q or row[k])(keep)),
        ("queries masked instead of keys", batched(lambda q, k, row: k <= q and row[q])),
        ("queries and keys both masked", batched(lambda q, k, row: k <= q and row[k] and row[q])),
        ("padding forgotten", batched(lambda q, k, row: k <= q)),
        ("causal mask forgotten", batched(lambda q, k, row: row[k])),
        ("own token hidden", batched(lambda q, k, row: k < q and row[k])),
        ("triangle the wrong way round", batched(lambda q, k, row: k >= q and row[k])),
        ("missing dimension", lambda keep: batched(lambda q, k, row: k <= q and row[k])(keep)[:, 0]),
        ("materialises what should broadcast", as_heads(batched(lambda q, k, row: k <= q and row[k]))),
        ("inverted polarity", lambda keep: ~batched(lambda q, k, row: k <= q and row[k])(keep)),
        ("wrong dtype", lambda keep: batched(lambda q, k, row: k <= q and row[k])(keep).int()),
        ("padding inverted", batched(lambda q, k, row: k <= q and not row[k])),
    ],
    "masked_softmax": [
        ("NaN on an empty row", lambda scores, allowed: torch.where(allowed, scores, -torch.inf).softmax(-1)),
        (
            "an empty row shares itself out",
            lambda scores, allowed: torch.where(allowed, scores, torch.finfo(scores.dtype).min).softmax(-1),
        ),
        ("filled with 0 before the softmax", lambda scores, allowed: (scores * allowed.float()).softmax(-1)),
        ("masked after the softmax", lambda scores, allowed: scores.softmax(-1).masked_fill(allowed.logical_not(), 0)),
        ("a bool mask added to the scores", lambda scores, allowed: F.softmax(scores + allowed.float(), dim=-1)),
        ("input changed in place", change_scores),
        ("mask ignored", lambda scores, allowed: scores.exp() / scores.exp().sum(-1, keepdim=True)),
        (
            "softmax along the wrong axis",
            lambda scores, allowed: (
                scores.exp() * allowed / (scores.exp() * allowed).sum(0, keepdim=True)
            ).nan_to_num(),
        ),
        ("minus infinity times 0", lambda scores, allowed: (scores + (1 - allowed.float()) * -torch.inf).softmax(-1)),
        ("wrong dtype", lambda scores, allowed: scores.double().masked_fill(~allowed, -1e30).softmax(-1) * allowed),
    ],
    "attention": [
        ("scale forgotten", lambda q, k, v, allowed: sdpa(q, k, v, allowed, scale=1.0)),
        (
            "divided by d instead of its square root",
            lambda q, k, v, allowed: sdpa(q, k, v, allowed, scale=1 / q.shape[-1]),
        ),
        (
            "divided by the root of the wrong axis",
            lambda q, k, v, allowed: sdpa(q, k, v, allowed, scale=k.shape[1] ** -0.5),
        ),
        ("a bool mask added to the scores", lambda q, k, v, allowed: sdpa(q, k, v, allowed.to(q.dtype))),
        ("mask ignored", lambda q, k, v, allowed: sdpa(q, k, v, None)),
        (
            "masked after the softmax",
            lambda q, k, v, allowed: (
                (torch.softmax(torch.einsum("bqd,bkd->bqk", q, k) / q.shape[-1] ** 0.5, -1) * allowed) @ v
            ),
        ),
        (
            "filled with 0 before the softmax",
            lambda q, k, v, allowed: (
                torch.softmax(torch.einsum("bqd,bkd->bqk", q, k) / q.shape[-1] ** 0.5 * allowed, -1) @ v
            ),
        ),
        ("extra dimension", lambda q, k, v, allowed: sdpa(q[:, None], k[:, None], v[:, None], allowed[:, None])),
        (
            "the weights instead of the output",
            lambda q, k, v, allowed: torch.softmax(
                torch.where(allowed, torch.bmm(q, k.transpose(1, 2)) / math.sqrt(q.size(-1)), -1e9), -1
            ),
        ),
        ("wrong dtype", lambda q, k, v, allowed: sdpa(q.double(), k.double(), v.double(), allowed)),
    ],
    "mean_of_real_tokens": [
        ("mean over the padding too", lambda losses, keep: losses.sum() / losses.numel()),
        ("padding counted as 0", lambda losses, keep: torch.where(keep, losses, 0.0).mean()),
        ("NaN times 0", lambda losses, keep: torch.einsum("bt,bt->", losses, keep.float()) / keep.sum()),
        ("sum instead of mean", lambda losses, keep: torch.masked_select(losses, keep).sum()),
        ("the padding averaged", lambda losses, keep: torch.masked_select(losses, ~keep).mean()),
        (
            "mean of the samples' means",
            lambda losses, keep: (torch.where(keep, losses, 0.0).sum(1) / keep.sum(1)).mean(),
        ),
        ("divided by the batch", lambda losses, keep: losses.masked_fill(~keep, 0).sum() / losses.size(0)),
        ("not a tensor", lambda losses, keep: losses[keep].mean().item()),
        ("extra dimension", lambda losses, keep: losses[keep].mean(dim=0, keepdim=True)),
        (
            "one mean a sample",
            lambda losses, keep: torch.stack([row[k].mean() for row, k in zip(losses, keep, strict=True)]),
        ),
    ],
    "additive": [
        (
            "overflow in half precision",
            lambda allowed, dtype: torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, -1e9),
        ),
        ("minus infinity", additive_infinity),
        ("-1e9, made in float32", lambda allowed, dtype: ((~allowed).float() * -1e9).to(dtype)),
        ("-1e4", lambda allowed, dtype: (~allowed).to(dtype) * -10000),
        ("float16's smallest number for every dtype", lambda allowed, dtype: (~allowed).to(dtype) * -65504.0),
        ("minus infinity times 0", lambda allowed, dtype: (1 - allowed.to(dtype)) * float("-inf")),
        ("the allowed keys blocked", lambda allowed, dtype: allowed.to(dtype) * torch.finfo(dtype).min),
        ("zeros and ones", lambda allowed, dtype: torch.where(allowed, 1.0, 0.0).to(dtype)),
        (
            "ones where the query may attend",
            lambda allowed, dtype: torch.where(allowed, 1.0, torch.finfo(dtype).min).to(dtype),
        ),
        (
            "the smallest positive number",
            lambda allowed, dtype: torch.where(allowed, 0.0, torch.finfo(dtype).tiny).to(dtype),
        ),
    ],
    "multihead_arguments": [
        (
            "inverted polarity",
            lambda keep: {"attn_mask": loops(lambda q, k: k <= q)(keep.shape[1]), "key_padding_mask": keep},
        ),
        (
            "inverted polarity (key_padding_mask)",
            lambda keep: {"attn_mask": loops(lambda q, k: k > q)(keep.shape[1]), "key_padding_mask": keep},
        ),
        (
            "inverted polarity (attn_mask)",
            lambda keep: {"attn_mask": loops(lambda q, k: k <= q)(keep.shape[1]), "key_padding_mask": ~keep},
        ),
        (
            "own token hidden",
            lambda keep: {"attn_mask": loops(lambda q, k: k >= q)(keep.shape[1]), "key_padding_mask": ~keep},
        ),
        (
            "the past hidden",
            lambda keep: {"attn_mask": loops(lambda q, k: k < q)(keep.shape[1]), "key_padding_mask": ~keep},
        ),
        (
            "an additive attn_mask",
            lambda keep: {
                "attn_mask": torch.nn.Transformer.generate_square_subsequent_mask(keep.shape[1]),
                "key_padding_mask": ~keep,
            },
        ),
        (
            "wrong dtype (key_padding_mask)",
            lambda keep: {"attn_mask": loops(lambda q, k: k > q)(keep.shape[1]), "key_padding_mask": 1 - keep.int()},
        ),
        ("None for attn_mask", lambda keep: {"attn_mask": None, "key_padding_mask": keep == 0}),
        (
            "extra dimension (attn_mask)",
            lambda keep: {"attn_mask": loops(lambda q, k: k > q)(keep.shape[1])[None], "key_padding_mask": ~keep},
        ),
    ],
    "six_masks": [
        ("the target's padding for the memory", lambda s, t: six(s, t, memory_key_padding_mask=t == 0)),
        ("the memory's padding forgotten", lambda s, t: six(s, t, memory_key_padding_mask=None)),
        ("no causal mask", lambda s, t: six(s, t, tgt_mask=None)),
        (
            "inverted polarity of the padding",
            lambda s, t: six(s, t, src_key_padding_mask=s, tgt_key_padding_mask=t, memory_key_padding_mask=s),
        ),
        (
            "inverted polarity",
            lambda s, t: six(
                s,
                t,
                src_key_padding_mask=s,
                tgt_key_padding_mask=t,
                memory_key_padding_mask=s,
                tgt_mask=loops(lambda q, k: k <= q)(t.shape[1]),
            ),
        ),
        ("a causal source", lambda s, t: six(s, t, src_mask=loops(lambda q, k: k > q)(s.shape[1]))),
        ("own token hidden", lambda s, t: six(s, t, tgt_mask=loops(lambda q, k: k >= q)(t.shape[1]))),
        ("inverted polarity (tgt_mask)", lambda s, t: six(s, t, tgt_mask=loops(lambda q, k: k <= q)(t.shape[1]))),
        ("wrong dtype (tgt_key_padding_mask)", lambda s, t: six(s, t, tgt_key_padding_mask=(~t).float())),
    ],
    "wait_k": [
        ("one token too early", lambda keep, target_len, k: wait(keep, target_len, lambda t, s: s <= t + k)),
        ("one token too late", lambda keep, target_len, k: wait(keep, target_len, lambda t, s: s < t + k - 1)),
        ("k ignored", lambda keep, target_len, k: wait(keep, target_len, lambda t, s: s <= t)),
        ("the source does not go on", lambda keep, target_len, k: wait(keep, target_len, lambda t, s: s < k)),
        (
            "padding forgotten",
            lambda keep, target_len, k: wait(torch.ones_like(keep), target_len, lambda t, s: s < t + k),
        ),
        ("missing dimension", lambda keep, target_len, k: wait(keep, target_len, lambda t, s: s < t + k)[:, 0]),
        ("inverted polarity", lambda keep, target_len, k: ~wait(keep, target_len, lambda t, s: s < t + k)),
        ("no waiting", lambda keep, target_len, k: wait(keep, target_len, lambda t, s: True)),
        ("transposed", lambda keep, target_len, k: wait(keep, target_len, lambda t, s: s < t + k).transpose(-1, -2)),
    ],
    "window": [
        ("W + 1 keys instead of W", loops(lambda q, k, size: q - size <= k <= q)),
        ("W - 1 keys instead of W", loops(lambda q, k, size: q - size + 1 < k <= q)),
        ("a window on both sides", loops(lambda q, k, size: abs(q - k) < size)),
        ("block where a distance was meant", loops(lambda q, k, size: q - q % size <= k <= q)),
        ("no window", loops(lambda q, k, size: k <= q)),
        ("causal mask forgotten", loops(lambda q, k, size: q - k < size)),
        ("a window into the future", loops(lambda q, k, size: 0 <= k - q < size)),
        ("inverted polarity", loops(lambda q, k, size: not 0 <= q - k < size)),
        ("own token hidden", loops(lambda q, k, size: q - size <= k < q)),
    ],
    "chunks": [
        ("distance where a block was meant", loops(lambda q, k, size: q - size < k <= q)),
        ("causal mask forgotten", loops(lambda q, k, size: q // size == k // size)),
        ("earlier chunks visible", loops(lambda q, k, size: k < (q // size + 1) * size)),
        ("no chunks", loops(lambda q, k, size: k <= q)),
        ("own token hidden", loops(lambda q, k, size: q - q % size <= k < q)),
        ("remainders compared", loops(lambda q, k, size: k <= q and (q - k) % size == 0)),
        ("transposed", loops(lambda q, k, size: q <= k and q // size == k // size)),
        ("wrong dtype", loops(lambda q, k, size: k <= q and q // size == k // size, dtype=torch.float32)),
    ],
    "prefix_lm": [
        ("and for or", lambda prefix, length: lm(prefix, length, lambda q, k, n: k <= q and k < n)),
        ("queries masked instead of keys", lambda prefix, length: lm(prefix, length, lambda q, k, n: k <= q or q < n)),
        ("the prefix is causal too", lambda prefix, length: lm(prefix, length, lambda q, k, n: k <= q)),
        ("prefix one token too long", lambda prefix, length: lm(prefix, length, lambda q, k, n: k <= q or k <= n)),
        ("prefix one token too short", lambda prefix, length: lm(prefix, length, lambda q, k, n: k <= q or k < n - 1)),
        ("only the prefix visible", lambda prefix, length: lm(prefix, length, lambda q, k, n: k < n)),
        (
            "two sequences, each with its own rule",
            lambda prefix, length: lm(prefix, length, lambda q, k, n: k < n if q < n else n <= k <= q),
        ),
        ("missing dimension", lambda prefix, length: lm(prefix, length, lambda q, k, n: k <= q or k < n)[:, 0]),
    ],
    "packed": [
        ("documents not kept apart", batched(lambda q, k, row: k <= q)),
        ("causal mask forgotten", batched(lambda q, k, row: row[q] == row[k])),
        ("or for and", batched(lambda q, k, row: k <= q or row[q] == row[k])),
        ("own token hidden", batched(lambda q, k, row: k < q and row[q] == row[k])),
        ("earlier documents visible", batched(lambda q, k, row: k <= q and row[k] <= row[q])),
        ("transposed", batched(lambda q, k, row: k >= q and row[q] == row[k])),
        ("inverted polarity", batched(lambda q, k, row: k > q or row[q] != row[k])),
        ("document 0 taken for padding", batched(lambda q, k, row: k <= q and row[q] == row[k] and row[k] > 0)),
    ],
    "packed_positions": [
        ("positions run on", lambda document: torch.stack([torch.arange(document.shape[1])] * len(document))),
        ("counted from 1", lambda document: right_positions(document) + 1),
        ("counted from the end", lambda document: right_positions(document.flip(1)).flip(1)),
        (
            "the whole document counted",
            lambda document: torch.stack([(row[:, None] == row).sum(-1) for row in document]),
        ),
        ("the documents' numbers", lambda document: document.clone()),
        ("one row's positions used for all", lambda document: right_positions(document)[:1].repeat(len(document), 1)),
        ("wrong dtype", lambda document: right_positions(document).float()),
        ("extra dimension", lambda document: right_positions(document)[:, None]),
        ("not a tensor", lambda document: right_positions(document).tolist()),
    ],
    "chunk_of_queries": [
        (
            "counted from the chunk instead of the position",
            lambda cached, query_len: torch.tril(torch.ones(query_len, cached + query_len)).bool(),
        ),
        ("own token hidden", lambda cached, query_len: square(cached + query_len, -1)[cached:]),
        ("next token visible", lambda cached, query_len: square(cached + query_len, 1)[cached:]),
        ("everything visible", lambda cached, query_len: torch.full((query_len, cached + query_len), True)),
        ("the cached queries too", lambda cached, query_len: square(cached + query_len, 0)),
        ("without the cached keys", lambda cached, query_len: square(query_len, 0)),
        (
            "only the cache visible",
            lambda cached, query_len: torch.tensor([[True] * cached + [False] * query_len] * query_len),
        ),
        ("inverted polarity", lambda cached, query_len: ~square(cached + query_len, 0)[-query_len:]),
        ("wrong dtype", lambda cached, query_len: square(cached + query_len, 0)[cached:].long()),
        ("extra dimension", lambda cached, query_len: square(cached + query_len, 0)[None, None, cached:]),
    ],
    "decode_step": [
        ("own token hidden", lambda *given: decode(*given, sees_new=False)),
        ("the new token not kept", lambda *given: decode(*given) | {"key": given[3], "value": given[4]}),
        ("scale forgotten", lambda *given: decode(*given, scale=1.0)),
        ("the new token put first", lambda q, k, v, old_k, old_v: decode(q, old_k, old_v, k, v)),
        (
            "counted from the chunk instead of the position",
            lambda q, k, v, old_k, old_v: decode(q, k, v, old_k, old_v, mask=square(1 + old_k.shape[1], 0)[:1]),
        ),
        (
            "the cache not seen",
            lambda q, k, v, old_k, old_v: {
                "output": v,
                "key": torch.cat((old_k, k), 1),
                "value": torch.cat((old_v, v), 1),
            },
        ),
        ("missing dimension (output)", lambda *given: decode(*given) | {"output": decode(*given)["output"][:, 0]}),
    ],
    "left_padded_positions": [
        ("counted from the padding", lambda keep: torch.arange(keep.size(1)).repeat(keep.size(0), 1)),
        ("counted from 1", lambda keep: torch.cumsum(keep, 1)),
        ("-1 at the padding", lambda keep: torch.cumsum(keep, 1).sub(1)),
        ("1 at the padding", lambda keep: torch.where(keep, keep.cumsum(1) - 1, 1)),
        ("padding counted too, then set to 0", lambda keep: torch.where(keep, torch.arange(keep.shape[1]), 0)),
        ("counted along the batch", lambda keep: (torch.cumsum(keep, 0) - 1).clip(0)),
        ("wrong dtype", lambda keep: (keep.float().cumsum(1) - 1).relu()),
        ("input changed in place", lambda keep: (keep.cumsum(1) - 1).clamp(min=0) + 0 * keep.logical_not_()),
        ("extra dimension", lambda keep: (keep.cumsum(1) - 1).clamp(min=0)[:, None]),
    ],
    "window_2d": [
        ("near in the row of tokens", lambda h, w, radius: loops(lambda q, k: abs(q - k) <= radius)(h * w)),
        ("or for and", lambda h, w, radius: image(h, w, lambda r, c: r <= radius or c <= radius)),
        ("a diamond instead of a square", lambda h, w, radius: image(h, w, lambda r, c: r + c <= radius)),
        ("a disc instead of a square", lambda h, w, radius: image(h, w, lambda r, c: math.hypot(r, c) <= radius)),
        ("radius one too small", lambda h, w, radius: image(h, w, lambda r, c: max(r, c) < radius)),
        ("rows only", lambda h, w, radius: image(h, w, lambda r, c: r <= radius)),
        ("columns only", lambda h, w, radius: image(h, w, lambda r, c: c <= radius)),
        ("inverted polarity", lambda h, w, radius: image(h, w, lambda r, c: max(r, c) > radius)),
        ("height and width exchanged", lambda h, w, radius: image(w, h, lambda r, c: max(r, c) <= radius)),
    ],
    "image_tokens": [
        ("text taken for an image", batched(lambda q, k, row: k <= q or row[q] == row[k])),
        ("all images taken for one", batched(lambda q, k, row: k <= q or (row[q] > 0 and row[k] > 0))),
        ("images are causal too", batched(lambda q, k, row: k <= q)),
        ("images visible to everybody", batched(lambda q, k, row: k <= q or row[k] > 0)),
        ("images see everything", batched(lambda q, k, row: k <= q or row[q] > 0)),
        ("images see themselves only", batched(lambda q, k, row: row[q] == row[k] if row[q] > 0 else k <= q)),
        ("transposed", batched(lambda q, k, row: k >= q or row[q] == row[k] > 0)),
        ("missing dimension", lambda table: batched(lambda q, k, row: k <= q or row[q] == row[k] > 0)(table)[:, 0]),
    ],
    "leaking_layer": [
        ("layers counted from 1", lambda model, x: None if first_leak(model, x) is None else first_leak(model, x) + 1),
        ("a leak found in a clean model", lambda model, x: first_leak(model, x) or 0),
        ("always layer 0", lambda model, x: 0),
        ("always the last layer", lambda model, x: len(list(model.layers)) - 1),
        (
            "the last layer that leaks",
            lambda model, x: max(
                (i for i in range(len(model.layers)) if not seems_causal(model.layers[i], model.masks[i], x)),
                default=None,
            ),
        ),
        ("whether it leaks", lambda model, x: first_leak(model, x) is not None),
        (
            "the layer's name",
            lambda model, x: None if first_leak(model, x) is None else "layers." + str(first_leak(model, x)),
        ),
    ],
}


def seems_causal(layer, mask, x):
    """Change the last token; does the first output move?"""
    changed = x.clone()
    changed[:, -1] += 1
    second = x.clone()
    second[:, 1] += 1
    return torch.equal(layer(x, mask)[:, 0], layer(changed, mask)[:, 0]) and torch.equal(
        layer(x, mask)[:, 0], layer(second, mask)[:, 0]
    )


def first_leak(model, x):
    """Find the first layer that leaks without the companion."""
    return next((i for i, layer in enumerate(model.layers) if not seems_causal(layer, model.masks[i], x)), None)


def six(source, target, **changed):
    right = {
        "src_mask": None,
        "tgt_mask": loops(lambda q, k: k > q)(target.shape[1]),
        "memory_mask": None,
        "src_key_padding_mask": source == 0,
        "tgt_key_padding_mask": target == 0,
        "memory_key_padding_mask": source == 0,
    }
    return right | changed


def wait(keep, target_len, rule):
    batch, source_len = keep.shape
    mask = torch.zeros(batch, 1, target_len, source_len, dtype=torch.bool)
    for b in range(batch):
        for t in range(target_len):
            for s in range(source_len):
                mask[b, 0, t, s] = rule(t, s) and bool(keep[b, s])
    return mask


def lm(prefix, length, rule):
    return torch.stack([loops(lambda q, k, n=n: rule(q, k, n))(length)[None] for n in prefix.tolist()])


def right_positions(document):
    rows = [[row[:i].count(number) for i, number in enumerate(row)] for row in document.tolist()]
    return torch.tensor(rows)


def square(length, diagonal):
    return torch.tril(torch.ones(length, length), diagonal).bool()


def image(height, width, rule):
    """Compare pixels by how many rows and columns lie between them."""
    pixels = [divmod(place, width) for place in range(height * width)]
    return torch.tensor([[rule(abs(r - s), abs(c - d)) for s, d in pixels] for r, c in pixels])
