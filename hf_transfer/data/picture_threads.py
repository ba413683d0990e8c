"""Work on pictures, one by one, on all cores of this process.

Threads do: PIL and torch let go of the interpreter while they decode and resize, and what they make need not be copied
from one process to another. Knows cores and threads. Does not know what is done to a picture. What draws random
numbers must not be done here: torch has one generator for all threads.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hf_transfer.environment import available_cores

Given = TypeVar("Given")
Made = TypeVar("Made")


def on_all_cores(work: Callable[[Given], Made], pictures: Sequence[Given]) -> Iterator[Made]:
    """Makes something of each of some pictures, and goes on making while what is ready is used.

    Args:
        work (`Callable`):
            Draws no random numbers, and changes nothing that another thread looks at.
        pictures (`Sequence`):
            As many as may be in memory at once, with what is made of them.

    Yields:
        What was made, in the order of the pictures.

    Raises:
        Exception: whatever `work` raised for the first picture that failed.
    """
    with ThreadPoolExecutor(max(1, min(available_cores(), len(pictures)))) as pool:
        yield from pool.map(work, pictures)
