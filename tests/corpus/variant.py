"""Small models whose real tokens change with the padding, most of them after bugs that were reported in public.

Each file holds a family; importing it writes the cases down.
"""

from corpus import (  # noqa: F401
    invariant_real,
    variant_lengths,
    variant_masks,
    variant_mixing,
    variant_positions,
    variant_states,
    variant_translation,
)
from corpus.padded_case import VARIANT

__all__ = ["VARIANT"]
