"""Work on pictures, one by one, on all cores of this process.

Threads do: PIL and torch let go of the interpreter while they decode and resize, and what they make need not be copied
from one process to another. Knows cores and threads. Does not know what is done to a picture. What draws random
numbers must not be done here: torch has one generator for all threads.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from hf_transfer.environment import available_cores

_AHEAD = 16
"""Pictures for each core that are worked on or ready: as many as are quickly made while one takes long."""
Given = TypeVar("Given")
Made = TypeVar("Made")


def on_all_cores(work: Callable[[Given], Made], pictures: Iterable[Given], callers: int = 1) -> Iterator[Made]:
    """Makes something of each of some pictures, and goes on making while what is ready is used.

    Args:
        work (`Callable`):
            Draws no random numbers, and changes nothing that another thread looks at.
        pictures (`Iterable`):
            The pictures; a few more than there are cores are in memory at once, with what is made of them.
        callers (`int`, *optional*, defaults to 1):
            How many threads call this at once, among which the cores are shared out.

    Yields:
        What was made, in the order of the pictures.

    Raises:
        Exception: whatever `work` raised for the first picture that failed.
    """
    threads = available_cores() // callers
    if threads <= 1:
        yield from map(work, pictures)
        return
    under_way: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for picture in pictures:
                under_way.append(pool.submit(work, picture))
                if len(under_way) == _AHEAD * threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
