"""Batches worked on side by side.

On a CPU two batches are under way at once, each of half the size and with half of the threads. What runs in one thread
whatever the number of them, such as drawing a picture or entering a layer, then no longer keeps the others waiting,
and no thread waits for another at the end of every layer (`benchmarks/results/lanes.md`).

Knows threads, those that work and those that torch's kernels run in. Does not know what is done with a batch
(`hf_transfer.training.prefix_build`, `hf_transfer.evaluation.inference`).
"""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

LANES = 2
_Item = TypeVar("_Item")


def lanes_on(device: torch.device) -> int:
    """Returns how many batches are worked on at once: one where the processor only hands out work."""
    return min(LANES, torch.get_num_threads()) if device.type == "cpu" else 1


@contextmanager
def lane_pool(lanes: int) -> Iterator[ThreadPoolExecutor]:
    """Yields a pool of threads among which the threads of torch's kernels are shared out."""
    kernel_threads = torch.get_num_threads()
    try:
        # Of each thread alone, but torch also keeps it for threads that are yet to begin.
        with ThreadPoolExecutor(lanes, "lane", torch.set_num_threads, (max(1, kernel_threads // lanes),)) as pool:
            yield pool
    finally:
        torch.set_num_threads(kernel_threads)


def side_by_side(work: Callable[[_Item], None], items: Iterable[_Item], lanes: int) -> None:
    """Works on items in some threads, which share the threads of torch's kernels among them.

    Items are made one at a time, in their order, so that they may draw random numbers.

    Args:
        work (`Callable`):
            Draws no random numbers; what it does for one item must not depend on the others.
        items (`Iterable`):
            What to work on.
        lanes (`int`):
            How many items are worked on at once; a single one in the thread that calls.

    Raises:
        BaseException: what `work` or the making of an item raised first; items that have been begun are finished.
    """
    if lanes == 1:
        for item in items:
            work(item)
        return
    remaining, making, ended = iter(items), threading.Lock(), threading.Event()

    def lane() -> None:
        try:
            while not ended.is_set():
                with making:
                    taken = list(itertools.islice(remaining, 1))
                if not taken:
                    return
                work(taken[0])
        except BaseException:
            ended.set()
            raise

    with lane_pool(lanes) as pool:
        try:
            for running in [pool.submit(lane) for _ in range(lanes)]:
                running.result()
        finally:
            ended.set()
