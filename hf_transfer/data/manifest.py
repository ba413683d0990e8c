"""The manifest: one line for each picture of a run, with its split, file, label and SHA-256.

Knows how it is written and read, what its hashes are, and which pictures occur twice. The hashes of the pictures were
made when the data was loaded; nothing is read again. Does not know what a run does with it
(`hf_transfer.publishing.lineage`).
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

from hf_transfer.data import archives
from hf_transfer.data.fingerprint import dataset_fingerprint
from hf_transfer.data.image_data import SPLIT_NAMES, ImageData


@dataclass(frozen=True)
class ManifestRow:
    """One picture."""

    split: str
    file: str
    """Relative to the data set; `row 3` (counted from 0, in this split) where the picture is no file of its own."""
    label: str
    sha256: str
    """Of the picture's file, as it was stored."""


def manifest_rows(data: ImageData) -> Iterator[ManifestRow]:
    """Returns a row for each picture, split by split, in the order in which the run holds them."""
    root = _root(data)
    for split in SPLIT_NAMES:
        pictures = data.split(split)
        # Flattened, the paths are had without the pictures' bytes, which may be gigabytes.
        paths = pictures.flatten().select_columns(["image.path"])["image.path"]
        for number, (path, label, content) in enumerate(
            zip(paths, pictures["label"], data.content_hashes[split], strict=True)
        ):
            yield ManifestRow(split, _shown(path, root) or f"row {number}", data.label_names[label], content)


def manifest_lines(rows: Iterable[ManifestRow]) -> Iterator[str]:
    """Returns the rows as lines of JSON; ASCII, since file names need not be text in any encoding."""
    for row in rows:
        yield json.dumps(asdict(row)) + "\n"


def read_manifest(path: Path) -> list[ManifestRow]:
    """Reads a manifest.

    Raises:
        ValueError: for a line that is none of a manifest, naming it.
    """
    rows = []
    with path.open(encoding="ascii", errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                rows.append(ManifestRow(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise ValueError(f"line {number} is damaged") from error
    return rows


def split_hashes(rows: Iterable[ManifestRow]) -> dict[str, str]:
    """Returns, for each split, the SHA-256 of its lines of the manifest, as they stand."""
    digests = {split: hashlib.sha256() for split in SPLIT_NAMES}
    for row in rows:
        if row.split in digests:
            digests[row.split].update(next(manifest_lines((row,))).encode("ascii"))
    return {split: digest.hexdigest() for split, digest in digests.items()}


def manifest_fingerprint(rows: Sequence[ManifestRow], label_names: Sequence[str]) -> str:
    """Returns the fingerprint of the data set that a manifest describes.

    Raises:
        KeyError: for a label that is not among `label_names`.
    """
    numbers = {name: number for number, name in enumerate(label_names)}
    chosen: dict[str, tuple[list[str], list[int]]] = {split: ([], []) for split in SPLIT_NAMES}
    for row in rows:
        hashes, labels = chosen.setdefault(row.split, ([], []))
        hashes.append(row.sha256)
        labels.append(numbers[row.label])
    return dataset_fingerprint(label_names, chosen)


def duplicates(hashes: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """Counts pictures that are the same byte for byte.

    Args:
        hashes (`Mapping[str, Sequence[str]]`):
            For each split the SHA-256 of its pictures.

    Returns:
        `dict`: under `within`, for each split, how many of its pictures repeat one before them; under `across`, for
        two splits such as `test in train`, how many pictures of the first are in the second too.
    """
    repeated = {split: sum(count - 1 for count in Counter(hashes[split]).values()) for split in hashes}
    shared = {}
    for earlier, later in combinations([split for split in SPLIT_NAMES if split in hashes], 2):
        known = set(hashes[earlier])
        shared[f"{later} in {earlier}"] = sum(content in known for content in hashes[later])
    return {"within": repeated, "across": shared}


def _root(data: ImageData) -> Path | None:
    """Returns the folder that files are named relative to."""
    path = Path(os.path.expanduser(data.name))
    return {"imagefolder": path, "table": path.parent}.get(data.kind)


def _shown(path: str | None, root: Path | None) -> str | None:
    """Returns a path below the data set's folder, and the bare name of a file that lies elsewhere."""
    if not path:
        return None
    parts = Path(path).parts
    if archives.FOLDER in parts:
        # Below it, a folder called by the archive's hash holds what was unpacked.
        return "/".join(parts[parts.index(archives.FOLDER) + 2 :])
    if root is not None:
        relative = os.path.relpath(path, root)
        if not relative.startswith(os.pardir):
            return Path(relative).as_posix()
    return parts[-1]
