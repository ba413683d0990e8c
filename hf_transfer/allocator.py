"""glibc told to keep the memory that a network's layers free, for the next batch, and when to give it back.

By default glibc takes every block of some size from the system and gives it back when it is freed. A network on the
CPU frees such blocks at every layer, and the system has to find and clear new pages each time: a good part of the time
of a forward pass (`benchmarks/results/allocator.md`). Knows the C library. Does not know torch.
"""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""As `malloc.h` numbers them."""
KEPT_AT_THE_TOP = 2**31 - 1
"""Bytes of freed memory that stay with the process; the most that can be said."""
LARGEST_KEPT = 2**30
"""Bytes of a block that is still kept; larger ones are few, such as a whole data set."""
USERS_WORDS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_ARENA_MAX")


def keep_freed_memory() -> bool:
    """Lets this process, and those that it forks, use freed memory again without asking the system.

    All threads take from one arena: those that glibc makes for each of them hold no block above 64 MB, and what one
    frees is of no use to another. Arenas that are there already stay.

    For programs, not for libraries: it holds for everything in the process.

    Returns:
        `bool`: whether it could be said: not without glibc, and not where the user has said something else by
        environment variables.
    """
    if platform.libc_ver()[0] != "glibc" or _has_users_words():
        return False
    library = ctypes.CDLL(None)
    words = ((_MMAP_THRESHOLD, LARGEST_KEPT), (_TRIM_THRESHOLD, KEPT_AT_THE_TOP), (_ARENA_MAX, 1))
    return all(library.mallopt(name, value) for name, value in words)


def give_back_freed_memory() -> bool:
    """Gives the system what has been freed so far.

    For the end of a stage that made many small things, such as the rows of a list: what they leave behind is in pieces
    that a network's tensors do not fit into.

    Returns:
        `bool`: whether there was anything; never without glibc.
    """
    return platform.libc_ver()[0] == "glibc" and bool(ctypes.CDLL(None).malloc_trim(0))


def _has_users_words() -> bool:
    return "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(name in os.environ for name in USERS_WORDS)
