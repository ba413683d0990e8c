"""The memory of a process and its children, looked at every few milliseconds while it runs.

Knows /proc of Linux. What is mapped from files, such as caches, counts as resident and can be taken back by the system
at any time; so memory that belongs to a process alone (anonymous and shared, RssAnon and RssShmem) is told apart from
what was resident at its height (VmHWM). Does not know what the processes do: the caller says which lines of output and
which files mark the stages.
"""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERVAL = 0.05
"""Seconds between two looks."""
_SIZES = ("RssAnon", "RssShmem", "VmHWM")


@dataclass(frozen=True)
class Sample:
    """One look at a process and its children; bytes."""

    seconds: float
    """Since the process began."""
    anonymous: int
    resident: int
    """The highest that was resident so far, of the processes that are there now."""


@dataclass(frozen=True)
class Watched:
    """What was seen of a process."""

    samples: tuple[Sample, ...]
    marks: dict[str, float]
    """Seconds at which each mark was first seen; those that never were are missing."""
    output: str

    def highest(self, start: str | None = None, end: str | None = None) -> int:
        """Returns the peak of anonymous memory between two marks, or from the beginning, or to the end."""
        return max((sample.anonymous for sample in self._between(start, end)), default=0)

    def last_before(self, mark: str) -> int:
        """Returns the anonymous memory at the last look before a mark."""
        return [sample.anonymous for sample in self._between(None, mark)][-1]

    @property
    def highest_resident(self) -> int:
        """The peak of what was resident, with pages of mapped files."""
        return max(sample.resident for sample in self.samples)

    def _between(self, start: str | None, end: str | None) -> Iterator[Sample]:
        first = 0.0 if start is None else self.marks[start]
        last = float("inf") if end is None else self.marks[end]
        return (sample for sample in self.samples if first <= sample.seconds <= last)


def watch(
    command: Sequence[str],
    lines: Mapping[str, str] | None = None,
    files: Mapping[str, Path] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Watched:
    """Runs a command to its end and looks at its memory all the while.

    Args:
        command (`Sequence[str]`):
            The command.
        lines (`Mapping[str, str]`, *optional*):
            Marks by name: how the line of output begins that sets each.
        files (`Mapping[str, Path]`, *optional*):
            Marks by name: the file or folder whose appearance sets each.
        environment (`Mapping[str, str]`, *optional*):
            Variables beside those of this process.

    Raises:
        subprocess.CalledProcessError: if it fails, with its output.
    """
    marks: dict[str, float] = {}
    output: list[str] = []
    samples: list[Sample] = []
    start = time.perf_counter()

    def read(stream) -> None:
        for line in stream:
            output.append(line)
            for name, beginning in (lines or {}).items():
                if line.startswith(beginning):
                    marks.setdefault(name, time.perf_counter() - start)

    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **(environment or {})}
        ) as process:
            reader = threading.Thread(target=read, args=(process.stdout,))
            reader.start()
            while process.poll() is None:
                samples.append(Sample(time.perf_counter() - start, *memory_of(process.pid)))
                for name, path in (files or {}).items():
                    if name not in marks and path.exists():
                        marks[name] = time.perf_counter() - start
                time.sleep(INTERVAL)
            reader.join()
        errors.seek(0)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, list(command), "".join(output), errors.read())
    return Watched(tuple(samples), marks, "".join(output))


def memory_of(pid: int) -> tuple[int, int]:
    """Returns the anonymous memory of a process and all its children, and the height of what was resident."""
    found = [_status(one) for one in (pid, *_children(pid))]
    # A child that is about to run a program of its own still shares all memory with its parent, and says the same.
    own = [status for number, status in enumerate(found) if status not in found[:number]]
    anonymous = sum(status.get("RssAnon", 0) + status.get("RssShmem", 0) for status in own)
    return anonymous, sum(status.get("VmHWM", 0) for status in own)


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:  # It has just ended.
        return []


def _status(pid: int) -> dict[str, int]:
    """Returns the sizes that the system tells of a process, in bytes; none where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    split = (line.split() for line in lines)
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in split if words[0].rstrip(":") in _SIZES}
