"""Answers that are right and look otherwise than the solutions: loops, other operations, other libraries."""

import torch
import torch.nn.functional as F
from wrong_answers import batched, decode, first_leak, image, lm, loops, right_positions, sdpa, six, square, wait

from attnmask import causal as causal_mask
from attnmask import chunked, documents, padding, prefix, sliding_window


def future(keep):
    return loops(lambda query, key: key > query)(keep.shape[1]).to(keep.device)


RIGHT = {
    "padding_from_ids": [
        lambda ids, pad_id: ~(ids == pad_id),
        lambda ids, pad_id: torch.tensor([[token != pad_id for token in row] for row in ids.tolist()]),
        lambda ids, pad_id: torch.ne(ids, pad_id).clone(),
    ],
    "padding_from_lengths": [
        lambda lengths, length: torch.tensor([[place < n for place in range(length)] for n in lengths.tolist()]),
        lambda lengths, length: lengths.new_ones(len(lengths), length).cumsum(1) <= lengths[:, None],
    ],
    "causal": [
        lambda length, device: ~torch.triu(torch.ones(length, length, dtype=torch.bool, device=device), 1),
        lambda length, device: torch.arange(length, device=device)[:, None] >= torch.arange(length, device=device),
        lambda length, device: causal_mask().dense(length, device=device)[0, 0],
    ],
    "key_padding": [
        lambda keep: keep.unsqueeze(1).unsqueeze(1),
        lambda keep: keep.reshape(len(keep), 1, 1, -1).clone(),
        lambda keep: padding(keep).dense(keep.shape[1]),
    ],
    "padded_causal": [
        batched(lambda query, key, row: key <= query and row[key]),
        lambda keep: (causal_mask() & padding(keep)).dense(keep.shape[1]),
    ],
    "masked_softmax": [
        lambda scores, allowed: F.normalize(scores.exp() * allowed, p=1, dim=-1),
        lambda scores, allowed: scores.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num(),
        lambda scores, allowed: scores.masked_fill(~allowed, -1e9).softmax(-1) * allowed.any(-1, keepdim=True),
    ],
    "attention": [
        lambda query, key, value, allowed: sdpa(query, key, value, allowed),
        lambda query, key, value, allowed: torch.einsum(
            "bqk,bkw->bqw",
            (torch.einsum("bqd,bkd->bqk", query, key) * query.size(-1) ** -0.5).masked_fill(~allowed, -1e9).softmax(-1),
            value,
        ),
    ],
    "mean_of_real_tokens": [
        lambda losses, keep: losses.masked_fill(~keep, 0).sum() / keep.sum(),
        lambda losses, keep: torch.stack(
            [losses[i, j] for i in range(len(keep)) for j in range(keep.shape[1]) if keep[i, j]]
        ).mean(),
    ],
    "leaking_layer": [first_leak],
    "additive": [
        lambda allowed, dtype: torch.where(allowed, 0.0, torch.finfo(dtype).min).to(dtype),
        lambda allowed, dtype: (~allowed).to(dtype) * torch.finfo(dtype).min,
    ],
    "multihead_arguments": [
        lambda keep: {"key_padding_mask": keep == 0, "attn_mask": future(keep)},
    ],
    "six_masks": [lambda source, target: dict(reversed(six(source, target, tgt_mask=future(target)).items()))],
    "wait_k": [lambda keep, target_len, k: wait(keep, target_len, lambda t, s: s < t + k)],
    "window": [
        loops(lambda query, key, size: query - size < key <= query),
        lambda length, size: sliding_window(size - 1).dense(length)[0, 0],
        lambda length, size: square(length, 0) & ~square(length, -size),
    ],
    "chunks": [
        loops(lambda query, key, size: query - query % size <= key <= query),
        lambda length, size: (causal_mask() & chunked(size)).dense(length)[0, 0].expand(length, length),
    ],
    "prefix_lm": [
        lambda prefixes, length: lm(prefixes, length, lambda q, k, n: k <= q or k < n),
        lambda prefixes, length: (causal_mask() | prefix(prefixes)).dense(length),
    ],
    "packed": [
        batched(lambda query, key, row: key <= query and row[key] == row[query]),
        lambda document: (causal_mask() & documents(document)).dense(document.shape[1]),
    ],
    "packed_positions": [
        right_positions,
        lambda document: right_positions(document).to(torch.int32),  # any integers
    ],
    "chunk_of_queries": [
        lambda cached, query_len: square(cached + query_len, 0)[cached:],
        lambda cached, query_len: causal_mask(offset=cached).dense(query_len, cached + query_len)[0, 0],
    ],
    "decode_step": [decode],
    "left_padded_positions": [
        lambda keep: torch.where(keep, keep.cumsum(1) - 1, 0),
        lambda keep: F.relu(keep.cumsum(1, dtype=torch.int32) - 1),
    ],
    "window_2d": [lambda height, width, radius: image(height, width, lambda r, c: max(r, c) <= radius)],
    "image_tokens": [
        batched(lambda query, key, row: key <= query or row[key] == row[query] != 0),
        lambda table: (causal_mask() | (documents(table) & padding(table != 0))).dense(table.shape[1]),
    ],
}
