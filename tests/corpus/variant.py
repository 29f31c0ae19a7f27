"""Small models whose real tokens change with the padding, most of them after bugs that were reported in public.

Each file holds a family; importing it writes the cases down.
"""

from corpus import variant_lengths, variant_masks, variant_mixing, variant_positions  # noqa: F401
from corpus.padded_case import VARIANT

__all__ = ["VARIANT"]
