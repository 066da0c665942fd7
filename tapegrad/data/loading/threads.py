"""Work done ahead by threads, in order, with its errors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any


def in_threads(jobs: Iterator[Any], work: Callable[[Any], Any], workers: int, ahead: int) -> Iterator[Any]:
    """`work(job)` of each job, in the order of the jobs, up to `ahead` of them before they are asked for.

    What `work` raises comes out where its result would have. However the iteration ends, the threads have ended when it
    has: work that has begun is waited for, the rest is never begun.

    >>> list(in_threads(iter(range(4)), lambda n: n * n, workers=2, ahead=2))
    [0, 1, 4, 9]
    """
    from concurrent.futures import ThreadPoolExecutor  # 5 ms that a loader without threads never needs

    waiting: deque[Any] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="tapegrad-data")
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            del job  # it may be large
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        close = getattr(jobs, "close", None)
        if close is not None:
            close()
