"""The allocator of the C library."""

import platform
import subprocess
import sys

import pytest

from hf_transfer.allocator import give_back_freed_memory, keep_freed_memory

FAULTS = """
import resource, sys, threading
import numpy as np
from hf_transfer.allocator import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
np.ones(2**22)  # the heap grows to its size
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def take():
    for _ in range(20):
        np.ones(2**22)
if "thread" in sys.argv:
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
else:
    take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


LEFT_BEHIND = """
from hf_transfer.allocator import give_back_freed_memory, keep_freed_memory
def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
assert keep_freed_memory()
blocks = [bytearray(10_000) for _ in range(20_000)]
last = bytearray(10_000)  # above them, so that the heap does not end where they do
del blocks
kept = anonymous()
assert give_back_freed_memory()
print(kept - anonymous())
"""


def page_faults(*words: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, *words], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
@pytest.mark.parametrize("words", [(), ("thread",)], ids=["here", "in another thread"])
def test_freed_blocks_are_used_again_without_new_pages(words: tuple[str, ...], monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert page_faults("keep", *words) < 0.2 * page_faults(*words)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
def test_what_small_things_left_behind_is_given_back(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    done = subprocess.run([sys.executable, "-c", LEFT_BEHIND], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0.9 * 20_000 * 10


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=10")]
)
def test_what_the_user_has_said_stands(monkeypatch, name: str, value: str):
    monkeypatch.setenv(name, value)
    assert not keep_freed_memory()


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
    assert not give_back_freed_memory()
