"""Who may attend to whom? The names, in reading order: what a mask is, then which masks have a name.

A mask answers one question for every (query, key) pair: may this query look at
this key? ``True`` means it may, here and everywhere in this package.
"""

# ruff: noqa: I001 - the order is that of reading, not of the alphabet
from attnmask.masks.rules import Rule as Rule
from attnmask.masks.mask import Mask as Mask
from attnmask.masks.mask import fits as fits
from attnmask.masks.constructors import everything as everything
from attnmask.masks.constructors import causal as causal
from attnmask.masks.constructors import sliding_window as sliding_window
from attnmask.masks.constructors import chunked as chunked
from attnmask.masks.constructors import padding as padding
from attnmask.masks.constructors import prefix as prefix
from attnmask.masks.constructors import documents as documents
from attnmask.masks.constructors import graph as graph
from attnmask.masks.constructors import per_head as per_head
from attnmask.masks.constructors import from_dense as from_dense
