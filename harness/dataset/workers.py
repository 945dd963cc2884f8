"""Work spread over processes: results in order, memory bounded, nothing left behind by a kill."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from harness.errors import DriftloopError

_AHEAD = 3
"""Tasks a worker has waiting, so that memory does not grow with their number."""

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def spread(
    work: Callable[[_Task], _Result], tasks: Iterator[_Task], workers: int
) -> Iterator[_Result]:
    """`work` on each of `tasks`, in order; in this process when `workers` is 1.

    Raises:
        DriftloopError: a worker died.
    """
    if workers <= 1:
        yield from map(work, tasks)
        return
    # Spawned, not forked: the progress bar has a thread.
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_attend_parent) as pool:
            waiting = deque(pool.submit(work, task) for task in islice(tasks, workers * _AHEAD))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, task) for task in islice(tasks, 1))
    except BrokenProcessPool as error:
        raise DriftloopError(
            "a worker process died, perhaps for want of memory; "
            "the same command with --workers 1 goes on from here"
        ) from error


def _attend_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
