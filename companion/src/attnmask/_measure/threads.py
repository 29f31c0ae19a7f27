"""How many threads serve this model?"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_SMALL = 0.02  # seconds; below that, threads mostly wait for each other
_GAIN = 0.85  # what a run with all threads may take of one with a single thread


@contextmanager
def suited_threads(run: Callable[[], object]) -> Iterator[None]:
    """While active, PyTorch uses one thread, unless ``run`` is long and its threads make it faster.

    A measurement is hundreds of runs; where each is small, and something else keeps a core
    busy, a pool of threads makes them many times slower.

    >>> with suited_threads(lambda: None):
    ...     torch.get_num_threads()
    1
    """
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = _seconds(run)
        if threads > 1 and alone > _SMALL:
            torch.set_num_threads(threads)
            if _seconds(run) > _GAIN * alone:
                torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
