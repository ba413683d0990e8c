"""The folder of things that can be computed again, and how much of a disk they may take.

Knows where it is, sizes as people write them, and what goes first when room is needed. Does not know what is kept in
it: a thing is a folder with a seal, written last, whose time says when it was last used.
"""

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from hf_transfer.errors import UserError

SEAL = "seal.json"
"""Written last of all files of a thing: what has one is whole."""
PARTIAL = ".partial"
DEFAULT_LIMIT = "20GB"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def cache_folder(given: str | None) -> Path:
    """Returns the folder that the user named, or one beside what Hugging Face's libraries keep.

    Raises:
        UserError: if the user named one that cannot be written to.
    """
    if given is None:
        from huggingface_hub import constants

        return Path(constants.HF_HOME) / "hf_transfer"
    folder = Path(given).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"--cache_dir {given}: nothing can be written there ({error.strerror}).", "a folder that can be written to"
        ) from error
    return folder


def parse_size(text: str | None, flag: str = "--cache_limit") -> int:
    """Turns `20GB` into bytes; units are powers of ten, as disks are sold.

    Raises:
        UserError: if it is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", (text or DEFAULT_LIMIT).upper())
    if match is None:
        raise UserError(f"{flag} {text}", "a number of bytes, or of KB, MB, GB or TB", f"{flag} {DEFAULT_LIMIT}")
    return int(float(match[1]) * _UNITS[match[2]])


def shown_size(num_bytes: float) -> str:
    """Returns a size as people read it."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes:.0f} bytes"


def things_in(folder: Path) -> list[Path]:
    """Returns the whole things in a folder of the cache, the one that was used longest ago first."""
    seals = []
    for seal in folder.glob(f"*/{SEAL}"):
        with contextlib.suppress(FileNotFoundError):  # another run has just removed it
            seals.append((seal.stat().st_mtime, seal.parent))
    return [thing for _, thing in sorted(seals)]


def size_of(thing: Path) -> int:
    """Returns the bytes that a thing takes."""
    total = 0
    for path in thing.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def mark_used(thing: Path) -> None:
    """Notes that a thing is in use now, where the cache may be written to."""
    with contextlib.suppress(OSError):
        os.utime(thing / SEAL)


def make_room(folder: Path, needed: int, limit: int) -> None:
    """Removes what was used longest ago until `needed` bytes fit into the limit, and what killed runs left half made.

    A run that has a removed thing open goes on reading it, and what opens it later computes it again.
    """
    for partial in folder.glob(f"*{PARTIAL}"):
        lock = lock_of(partial.with_suffix(""))
        with contextlib.suppress(Timeout), lock.acquire(timeout=0):
            shutil.rmtree(partial, ignore_errors=True)
    things = things_in(folder)
    sizes = {thing: size_of(thing) for thing in things}
    taken = sum(sizes.values())
    for thing in things:
        if taken + needed <= limit:
            return
        # The seal first: what is half removed must not look whole.
        (thing / SEAL).unlink(missing_ok=True)
        shutil.rmtree(thing, ignore_errors=True)
        taken -= sizes[thing]


def lock_of(thing: Path) -> FileLock:
    """Returns the lock that whoever makes a thing has to hold; the system lets it go when a process is killed."""
    return FileLock(thing.with_name(f"{thing.name}.lock"))
