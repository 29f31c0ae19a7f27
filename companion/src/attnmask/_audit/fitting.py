"""Which rule would describe what was found?"""

from collections.abc import Iterator

import torch
from torch import Tensor

from attnmask.masks import Mask, causal, chunked, sliding_window


def fitting_rule(found: Tensor, allowed: Tensor) -> str:
    """Return a rule, as it is written, that gives what was found, alone or within what is allowed; "" if none does.

    ``found``, ``allowed``: which inputs outputs depend on, and may depend on, (batch, output,
    input); what outputs that are not judged depend on is not found.

    >>> lower = torch.ones(1, 4, 4, dtype=torch.bool).tril()
    >>> fitting_rule(lower.triu(-1), lower)
    'sliding_window(1)'
    """
    rows = found.any(-1, keepdim=True)
    within = ""
    for rule in _candidates(found):
        seen = rule.dense(*found.shape[1:])[0] & rows
        if torch.equal(seen, found):
            return repr(rule)
        if not within and torch.equal(seen & allowed, found):
            within = repr(rule)
    return within


def _candidates(found: Tensor) -> Iterator[Mask]:
    """Yield rules that have to do with the places alone, the simple ones first."""
    _, outputs, inputs = found.shape
    _, query, key = found.nonzero().T
    if outputs != inputs or not len(query):
        return
    first, last = int((key - query).min()), int((key - query).max())
    if first == 1 - inputs:
        yield causal(offset=last) if last else causal()
    if first <= 0 <= last:
        yield causal().T if (first, last) == (0, inputs - 1) else sliding_window(-first, last)
    for size in range(2, inputs):
        yield from (chunked(size), chunked(size) & causal())


def what_is_missed(hidden: Tensor, allowed: Tensor) -> str:
    """Say which of the inputs that it may depend on each output misses, (batch, output, input); "" if nothing simple.

    >>> lower = torch.ones(1, 4, 4, dtype=torch.bool).tril()
    >>> what_is_missed(lower.tril(-1), lower), what_is_missed(lower.tril(-2), lower)
    ('all that comes before itself', '')
    """
    outputs, inputs = allowed.shape[1:]
    places, own = torch.arange(inputs), torch.arange(outputs)[:, None]
    words = {
        "its last key": places == torch.where(allowed, places, -1).amax(-1, keepdim=True),
        "its first key": places == torch.where(allowed, places, inputs).amin(-1, keepdim=True),
    }
    if outputs == inputs:
        words |= {"all that comes after itself": places > own, "all that comes before itself": places < own}
        words |= {"itself": places == own}
    several = allowed.sum(-1, keepdim=True) > 1  # one key alone is the first and the last
    for text, cells in words.items():
        if bool((hidden & several).any()) and torch.equal(hidden & several, cells & allowed & several):
            return text
    return ""
