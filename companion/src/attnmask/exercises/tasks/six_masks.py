"""Which of the six masks of nn.Transformer does a translator need?"""

import torch
from torch import nn

from attnmask.exercises.task import Mistake, Task


def six_masks(source_keep, target_keep):
    """Write the masks with which nn.Transformer learns to translate.

    The target is predicted from left to right; both sides are padded on the right.

    - source_keep: bool (batch, source), True = real
    - target_keep: bool (batch, target), True = real

    Return a dict of the six arguments: src_mask, tgt_mask, memory_mask,
    src_key_padding_mask, tgt_key_padding_mask, memory_key_padding_mask. Each is a
    bool tensor, or None if it has nothing to block, however long the samples are.
    """
    length = target_keep.shape[1]
    return {
        "src_mask": None,
        "tgt_mask": torch.ones(length, length, dtype=torch.bool, device=target_keep.device).triu(1),
        "memory_mask": None,
        "src_key_padding_mask": ~source_keep,
        "tgt_key_padding_mask": ~target_keep,
        "memory_key_padding_mask": ~source_keep,
    }


def spec(source_keep, target_keep):
    places = range(target_keep.shape[1])
    source = torch.tensor([[not real for real in sample] for sample in source_keep.tolist()])
    return {
        "src_mask": None,
        "tgt_mask": torch.tensor([[key > query for key in places] for query in places]),
        "memory_mask": None,
        "src_key_padding_mask": source,
        "tgt_key_padding_mask": torch.tensor([[not real for real in sample] for sample in target_keep.tolist()]),
        "memory_key_padding_mask": source,
    }


def cases(draw):
    for batch, source, target in [(1, 2, 3), (1, 3, 3), (2, 3, 2), (2, 4, 4), (3, 2, 4), (3, 5, 3)]:
        yield {"source_keep": draw.real(batch, source), "target_keep": draw.real(batch, target)}


def changed(**by_name):
    """Return the right answer with some of its entries made by other functions."""

    def answer(source_keep, target_keep):
        right = six_masks(source_keep, target_keep)
        return right | {name: function(source_keep, target_keep) for name, function in by_name.items()}

    return answer


def square(keep, diagonal=1):
    return torch.ones(keep.shape[1], keep.shape[1], dtype=torch.bool).triu(diagonal)


def keep_of(name):
    return lambda source_keep, target_keep: target_keep if name == "target" else source_keep


def padding_of(name):
    return lambda source_keep, target_keep: ~(target_keep if name == "target" else source_keep)


TASK = Task(
    six_masks,
    spec,
    cases,
    chapter="11",
    place=12,
    hints=(
        "True means blocked in all six. Which of the three attentions must not see its future?",
        "The memory is the encoded source, so its padding is the source's. Two of the six are None.",
    ),
    mistakes=(
        Mistake(
            "the target's padding for the memory",
            changed(memory_key_padding_mask=padding_of("target")),
            "The keys of the cross-attention are the source's: memory_key_padding_mask is the source's padding.",
        ),
        Mistake(
            "the memory's padding forgotten",
            changed(memory_key_padding_mask=lambda *_: None),
            "src_key_padding_mask works in the encoder only; the cross-attention needs the source's padding again.",
        ),
        Mistake(
            "the source's padding forgotten",
            changed(src_key_padding_mask=lambda *_: None),
            "memory_key_padding_mask works in the cross-attention only; the encoder needs the padding too.",
        ),
        Mistake(
            "the target's padding forgotten",
            changed(tgt_key_padding_mask=lambda *_: None),
            "Behind a causal mask, padding on the right is hidden already; asked for was the mask that says it anyway, "
            "as it does for any padding.",
        ),
        Mistake(
            "a causal source",
            changed(src_mask=lambda source_keep, _: square(source_keep)),
            "The whole source is known from the start: the encoder needs no causal mask.",
        ),
        Mistake(
            "a causal memory",
            changed(
                memory_mask=lambda source_keep, target_keep: torch.ones(
                    target_keep.shape[1], source_keep.shape[1], dtype=torch.bool
                ).triu(1)
            ),
            "The whole source is known from the start: each target token may look at all of it.",
        ),
        Mistake(
            "no causal mask",
            changed(tgt_mask=lambda *_: None),
            "The target is predicted from left to right; without tgt_mask each token sees the one it is to predict.",
        ),
        Mistake(
            "an additive tgt_mask",
            changed(tgt_mask=lambda _, target: nn.Transformer.generate_square_subsequent_mask(target.shape[1])),
            "nn.Transformer takes numbers as well, and adds them; asked for were bool masks.",
        ),
        Mistake(
            "own token hidden",
            changed(tgt_mask=lambda _, target_keep: square(target_keep, 0)),
            "triu() blocks the diagonal too, and row 0 is left with no key at all: triu(1).",
        ),
        Mistake(
            "inverted polarity (tgt_mask)",
            changed(tgt_mask=lambda _, target_keep: ~square(target_keep)),
            "In tgt_mask True means blocked.",
        ),
        Mistake(
            "inverted polarity of the padding",
            changed(
                src_key_padding_mask=keep_of("source"),
                tgt_key_padding_mask=keep_of("target"),
                memory_key_padding_mask=keep_of("source"),
            ),
            "In the key padding masks True means padding.",
        ),
        Mistake(
            "a tgt_mask of the source's length",
            changed(tgt_mask=lambda source_keep, _: square(source_keep)),
            "tgt_mask is (target, target).",
        ),
    ),
    groups={
        "batch 1": lambda case: len(case["source_keep"]) == 1,
        "source and target of one length": lambda case: case["source_keep"].shape[1] == case["target_keep"].shape[1],
    },
)
