"""Kept inputs of the layers that learn: files of fixed shape, mapped into memory, whole or not there.

A store is a folder in the cache: one file for each inlet of the cut, with a row for every picture and view, and a seal
with their hashes, written last. Several processes fill rows of their own. Files take their whole room on the disk
before anything is computed, so that a full disk is noticed then and not in the middle.

Knows files. Does not know networks (`hf_transfer.training.prefix_cut`) or what a row means.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
import xxhash

from hf_transfer.cache_folder import PARTIAL, SEAL, mark_used
from hf_transfer.training.prefix_cut import Inlet

MEMORY = Path("/dev/shm")
"""Linux's file system in memory."""
_SPARE = 2
"""Times its size that has to be free for a store in memory: the training needs some as well."""


class PrefixStore:
    """The rows of one split.

    Args:
        folder (`Path`):
            Where the files are.
        inlets (`Sequence[Inlet]`):
            Shape and type of what is kept.
        rows (`int`):
            Number of rows.
        layout (`torch.memory_format`, *optional*, defaults to `torch.contiguous_format`):
            How feature maps lie in the files, and in batches of them.
        writable (`bool`, *optional*, defaults to `False`):
            Whether rows are to be written.
    """

    def __init__(
        self,
        folder: Path,
        inlets: Sequence[Inlet],
        rows: int,
        layout: torch.memory_format = torch.contiguous_format,
        writable: bool = False,
    ):
        self.folder = folder
        self.rows = rows
        self.tensors = [
            _rows_of(
                torch.from_file(
                    str(_file(folder, number)),
                    # Shared means that writes reach the file; without, changes are private and readers need no rights.
                    shared=writable,
                    size=rows * torch.Size(inlet.shape).numel(),
                    dtype=inlet.dtype,
                ),
                (rows, *inlet.shape),
                layout,
            )
            for number, inlet in enumerate(inlets)
        ]

    def write(self, rows: torch.Tensor, kept: Sequence[torch.Tensor]) -> None:
        """Writes rows, `kept` as `PrefixCut.collect` returns it."""
        for tensor, values in zip(self.tensors, kept, strict=True):
            tensor[rows] = values.to("cpu", tensor.dtype)

    def read(self, rows: torch.Tensor, device: torch.device) -> list[torch.Tensor]:
        """Reads rows, as `PrefixCut.fed_with` takes them."""
        return [
            tensor[rows.to(tensor.device)].to(device, non_blocking=True) if len(rows) else tensor[:0].to(device)
            for tensor in self.tensors
        ]

    def hold_on(self, device: torch.device) -> None:
        """Copies everything to a device that has room for it."""
        self.tensors = [tensor.to(device) for tensor in self.tensors]


def size_of_store(inlets: Sequence[Inlet], rows: int) -> int:
    """Returns the bytes that a store takes."""
    return rows * sum(inlet.num_bytes for inlet in inlets)


def partial_folder(folder: Path) -> Path:
    """Returns where a store is made before it is whole."""
    return folder.with_name(folder.name + PARTIAL)


def memory_folder() -> Path | None:
    """Returns a folder of this user alone whose files lie in memory; `None` where there is no place for one."""
    folder = MEMORY / f"hf_transfer-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    # Anybody may make a folder of that name first.
    return folder if folder.stat().st_uid == os.getuid() else None


def make_files(folder: Path, inlets: Sequence[Inlet], rows: int) -> None:
    """Makes the files of a store that is yet to be filled.

    Raises:
        OSError: if there is no room for them; nothing is left then.
    """
    partial = partial_folder(folder)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if folder.is_relative_to(MEMORY) and psutil.virtual_memory().available < _SPARE * size_of_store(inlets, rows):
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        partial.mkdir(parents=True)
        for number, inlet in enumerate(inlets):
            with _file(partial, number).open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, rows * inlet.num_bytes))
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def seal_store(folder: Path, inlets: Sequence[Inlet], rows: int) -> None:
    """Turns a filled folder into a store: the seal last, then the name, in one step each."""
    partial = partial_folder(folder)
    hashes = {_file(partial, number).name: _hash(_file(partial, number)) for number in range(len(inlets))}
    (partial / SEAL).write_text(json.dumps({"rows": rows, "files": hashes}, indent=1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def is_sealed(folder: Path, inlets: Sequence[Inlet], rows: int) -> bool:
    """Tells whether a store is whole, byte for byte; marks it as used."""
    try:
        seal = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        names = [_file(folder, number).name for number in range(len(inlets))]
        good = seal["rows"] == rows and sorted(seal["files"]) == sorted(names)
        good = good and all(_hash(folder / name) == seal["files"][name] for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if good:
        mark_used(folder)
    return good


def _rows_of(values: torch.Tensor, shape: tuple[int, ...], layout: torch.memory_format) -> torch.Tensor:
    """Returns values of a file as rows; what is indexed of feature maps lies as they do."""
    if layout != torch.channels_last or len(shape) != 4:
        return values.view(shape)
    rows, channels, height, width = shape
    return values.view(rows, height, width, channels).permute(0, 3, 1, 2)


def _file(folder: Path, number: int) -> Path:
    return folder / f"inlet_{number}.bin"


def _hash(path: Path) -> str:
    # Against accidents, not against malice: a cryptographic hash takes longer, and all of it is read before the first
    # step of a training.
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
