"""Small models whose real tokens do not change with the padding, however odd they look.

Most are equal up to rounding only: the same sums run over more numbers, in another order.
Each file holds a family; importing it writes the cases down.
"""

from corpus import invariant_inputs, invariant_mixing, invariant_outputs, invariant_positions, invariant_real  # noqa: F401
from corpus.padded_case import INVARIANT

__all__ = ["INVARIANT"]
