"""Arrays of pictures in one mapped file: written once, checked whenever they are read.

Knows bytes, shapes and checksums. Does not know what the arrays show (`hf_transfer.data.decode_once`) or how much room
there is (`hf_transfer.cache_folder`).

A store is a folder: `rows.bin` holds the arrays one after the other, `index.safetensors` where each begins, its shape
and its xxHash, and `seal.json`, written last, the size of the first and a SHA-256 over the second and itself. The
folder gets its name when all of it is there. Rows lie as they are, without padding to one shape: pictures that are
small enough are kept pixel by pixel, which a fixed shape would not allow.
"""

import hashlib
import json
import shutil
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from safetensors.numpy import load_file, save_file

from hf_transfer.cache_folder import PARTIAL, SEAL

ROWS = "rows.bin"
INDEX = "index.safetensors"


class DamagedStore(Exception):
    """What is on the disk is not what was written there."""


class StoreTooLarge(Exception):
    """The arrays take more room than was allowed."""


class PictureStore:
    """The arrays of a finished store, read from a map of its file.

    Args:
        folder (`Path`):
            The store.

    Raises:
        DamagedStore: if a file is missing, cut off or changed. Rows are not read here but checked one by one later.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.seal = _read_seal(folder)
        index = load_file(folder / INDEX)
        self._offsets, self._shapes, self._checksums = index["offsets"], index["shapes"], index["checksums"]
        self._dtype = np.dtype(self.seal["dtype"])
        self._map: np.ndarray | None = None
        self._open()

    def __len__(self) -> int:
        return len(self._shapes)

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows."""
        return int(self.seal["bytes"])

    def row(self, number: int) -> np.ndarray | None:
        """Returns an array, or `None` if its bytes are no longer those that were written."""
        if self._map is None:
            return None
        raw = self._map[self._offsets[number] : self._offsets[number + 1]]
        if xxhash.xxh3_64_intdigest(raw.data) != self._checksums[number]:
            return None
        return raw.view(self._dtype).reshape(self._shapes[number])

    def _open(self) -> None:
        try:
            # Copy on write: torch warns of arrays that it must not write to. Nobody writes to these.
            self._map = (
                np.memmap(self.folder / ROWS, dtype=np.uint8, mode="c") if self.num_bytes else np.empty(0, "u1")
            )
        except OSError as error:
            raise DamagedStore(f"{self.folder / ROWS}: {error.strerror}") from error

    def __getstate__(self) -> dict[str, Any]:
        # A map travels to a worker process as a copy of all its bytes; the worker makes a map of its own.
        return self.__dict__ | {"_map": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        try:
            self._open()
        except DamagedStore:
            self._map = None  # every row then counts as damaged


def write_store(
    folder: Path, rows: Iterator[np.ndarray], dtype: str, facts: dict[str, Any], limit: int
) -> PictureStore:
    """Writes a store and gives it its name once all of it is on the disk.

    The caller holds the lock of `folder` and has made sure that there is no whole store of that name.

    Args:
        folder (`Path`):
            Its name.
        rows (`Iterator[np.ndarray]`):
            The arrays, of at most three dimensions.
        dtype (`str`):
            Of all of them.
        facts (`dict`):
            JSON values that are kept with it.
        limit (`int`):
            Bytes that the arrays may take.

    Raises:
        StoreTooLarge: if they take more.
        OSError: if they cannot be written. Nothing is left behind in either case.
    """
    partial = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        sizes, shapes, checksums = _write_rows(partial / ROWS, rows, np.dtype(dtype), limit)
        index = {
            "offsets": np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]),
            "shapes": shapes,
            "checksums": checksums,
        }
        save_file(index, partial / INDEX)
        seal = {"rows": len(sizes), "bytes": int(sizes.sum()), "dtype": dtype, "facts": facts}
        seal["sha256"] = _digest(partial, seal)
        (partial / SEAL).write_text(json.dumps(seal) + "\n", encoding="utf-8")
        if folder.exists():  # a damaged one
            (folder / SEAL).unlink(missing_ok=True)
            shutil.rmtree(folder)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return PictureStore(folder)


def _write_rows(
    path: Path, rows: Iterator[np.ndarray], dtype: np.dtype, limit: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the bytes, the shape and the checksum of each row."""
    # Numbers side by side: lists of Python's own would take some 200 bytes a picture.
    sizes, shapes, checksums = array("q"), array("q"), array("Q")
    total = 0
    # Written, not mapped: a map that outgrows the disk kills the process, a write raises.
    with path.open("wb") as file:
        for row in rows:
            raw = np.ascontiguousarray(row, dtype).data
            total += raw.nbytes
            if total > limit:
                raise StoreTooLarge
            file.write(raw)
            sizes.append(raw.nbytes)
            shapes.extend(row.shape)
            checksums.append(xxhash.xxh3_64_intdigest(raw))
    return (
        np.array(sizes, dtype=np.int64),
        np.array(shapes, dtype=np.int64).reshape(len(sizes), 3),
        np.array(checksums, dtype=np.uint64),
    )


def _read_seal(folder: Path) -> dict[str, Any]:
    try:
        seal = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        size = (folder / ROWS).stat().st_size
        written = seal.pop("sha256")
        if size != seal["bytes"] or _digest(folder, seal) != written:
            raise DamagedStore(f"{folder} is not as it was written")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedStore(f"{folder}: {error}") from error
    return seal


def _digest(folder: Path, seal: dict[str, Any]) -> str:
    """Returns the SHA-256 over the index and what the seal says."""
    return hashlib.sha256((folder / INDEX).read_bytes() + json.dumps(seal, sort_keys=True).encode()).hexdigest()
