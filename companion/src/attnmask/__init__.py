"""Which token may look at which? Attention masks: write the rule once, see every step, prove it right.

True means "may attend" everywhere in this package. `attnmask.plot` and
`attnmask.symbolic` are imported by name, because they load matplotlib and SymPy.
"""

import importlib.metadata

from attnmask import conventions as conventions
from attnmask import numerals as numerals
from attnmask._device import default_device as default_device
from attnmask.attention import Steps as Steps
from attnmask.attention import attend as attend
from attnmask.audits import Audit as Audit
from attnmask.audits import Leak as Leak
from attnmask.audits import NotTriedWarning as NotTriedWarning
from attnmask.audits import assert_allowed as assert_allowed
from attnmask.audits import assert_padding_invariant as assert_padding_invariant
from attnmask.audits import audit as audit
from attnmask.conventions.readings import Description as Description
from attnmask.conventions.readings import Reading as Reading
from attnmask.conventions.readings import describe as describe
from attnmask.decoding import greedy as greedy
from attnmask.layers import Cache as Cache
from attnmask.layers import CrossAttention as CrossAttention
from attnmask.layers import Decoder as Decoder
from attnmask.layers import Encoder as Encoder
from attnmask.layers import SelfAttention as SelfAttention
from attnmask.layers import Translator as Translator
from attnmask.masks import Mask as Mask
from attnmask.masks import causal as causal
from attnmask.masks import chunked as chunked
from attnmask.masks import documents as documents
from attnmask.masks import everything as everything
from attnmask.masks import from_dense as from_dense
from attnmask.masks import graph as graph
from attnmask.masks import padding as padding
from attnmask.masks import per_head as per_head
from attnmask.masks import prefix as prefix
from attnmask.masks import sliding_window as sliding_window
from attnmask.probe import influence as influence
from attnmask.stacks import reach as reach
from attnmask.walkthrough import FourTokens as FourTokens
from attnmask.walkthrough import four_tokens as four_tokens

__version__ = importlib.metadata.version("attnmask")
