"""A .zip or .tar of pictures as a folder.

Knows how to unpack an archive safely and once: the folder's name is the hash of the archive's contents. Does not look
at what is inside.
"""

import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

import datasets

from hf_transfer.errors import UserError

# RuntimeError is what zipfile raises for a password, and a subclass of it for an unknown compression.
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
FOLDER = "hf_transfer-archives"


def is_archive(path: Path) -> bool:
    """Tells by its name whether a file is an archive that can be unpacked."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(path: Path) -> Path:
    """Unpacks an archive into the cache of `datasets` and returns the folder.

    Several processes may do so at once: each unpacks into a folder of its own, and the first to finish names it.

    Args:
        path (`Path`):
            The archive.

    Raises:
        UserError: if the archive is broken or would write outside of its folder.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    target = Path(datasets.config.HF_DATASETS_CACHE) / FOLDER / digest
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        _extract(path, temporary)
        os.replace(temporary, target)
    except _BROKEN as error:
        if not target.is_dir():
            raise UserError(f"The archive {path} cannot be unpacked: {error}", ", ".join(SUFFIXES)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _extract(path: Path, folder: Path) -> None:
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                # zipfile drops `..` and leading slashes by itself; links are the other way out of the folder.
                if not stat.S_ISLNK(member.external_attr >> 16):
                    archive.extract(member, folder)
    else:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
            _check_nothing_left(archive)


def _check_nothing_left(archive: tarfile.TarFile) -> None:
    """Makes sure that all members were seen: tarfile takes a damaged header for the end of the archive."""
    stream = archive.fileobj
    if stream is None:
        raise tarfile.ReadError("it was closed too early")
    stream.seek(archive.offset)
    while chunk := stream.read(2**20):
        if chunk.strip(b"\0"):
            raise tarfile.ReadError(f"damaged after byte {archive.offset}")
