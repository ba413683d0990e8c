"""Hashes of pictures and of whole data sets.

Knows contents, not paths: a picture that is renamed or moved keeps its hash. Does not decode anything.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import datasets

from hf_transfer.errors import UserError

_CHUNK = 1000


def content_hashes(images: datasets.Dataset) -> list[str]:
    """Returns the SHA-256 of the stored bytes of each picture.

    Args:
        images (`datasets.Dataset`):
            The column `image` of `{"bytes", "path"}`.

    Raises:
        UserError: if files do not exist or rows have no picture, naming the first.
    """
    hashes: list[str] = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(images), _CHUNK):
            chunk = images[start : start + _CHUNK]["image"]
            hashes += pool.map(_hash, chunk, range(start, start + len(chunk)))
    return hashes


def dataset_fingerprint(label_names: Sequence[str], splits: Mapping[str, tuple[Sequence[str], Sequence[int]]]) -> str:
    """Returns one SHA-256 over label names, splits, contents and labels, whatever the order of the rows."""
    digest = hashlib.sha256(repr(tuple(label_names)).encode())
    shown = [repr(name) for name in label_names]
    for split in sorted(splits):
        hashes, labels = splits[split]
        digest.update(f"\n{split}\n".encode())
        # Sorted by label, then by content, without a text for each row: those of a large data set would fill memory.
        order = sorted(range(len(hashes)), key=lambda row: shown[labels[row]])
        order.sort(key=hashes.__getitem__)
        for row in order:
            digest.update(f"{hashes[row]} {shown[labels[row]]}".encode())
    return digest.hexdigest()


def sequence_digest(hashes: Iterable[str], separator: str = "") -> str:
    """Returns the SHA-256 of hashes in their order, joined by a separator."""
    digest = hashlib.sha256()
    for number, content in enumerate(hashes):
        digest.update(f"{separator if number else ''}{content}".encode())
    return digest.hexdigest()


def _hash(image: dict | None, row: int) -> str:
    if image is None or (image["bytes"] is None and image["path"] is None):
        raise UserError(f"Row {row} of the data set has no picture (rows count from 0).", hint="remove such rows")
    if image["bytes"] is not None:
        return hashlib.sha256(image["bytes"]).hexdigest()
    try:
        with open(image["path"], "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"The picture {image['path']!r} cannot be opened: {error.strerror}.") from error
