"""The pictures that ours and its peers share: the same files in the same splits for all.

Our loader reads a data set once, and its splits are written out as a folder of class folders for each split, which all
contenders read, and as `files.csv`, by which test predictions are judged. Knows nothing of networks.
"""

import csv
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import Dataset

SPLITS = ("train", "validation", "test")
PICTURES, LIST = "pictures", "files.csv"
SCRATCH = Path(tempfile.gettempdir()) / "hf_transfer_peers"
"""Where pictures, caches and runs go, unless the user says otherwise."""


class ListedFile(NamedTuple):
    """A line of the list."""

    split: str
    file: str
    """Below the folder of pictures, with slashes."""
    label: str
    sha256: str


@dataclass(frozen=True)
class Files:
    """The pictures of a data set, split by split."""

    folder: Path
    """Holds `train`, `validation` and `test`, each with a folder for every class."""
    label_names: tuple[str, ...]
    """Sorted: the number of a label is its place here."""
    rows: dict[str, tuple[tuple[Path, int], ...]]
    """For each split the pictures with their labels, in the order of predictions."""
    fingerprint: str
    """SHA-256 over the list of files, which holds the hash of each picture."""

    def labels(self, split: str) -> list[int]:
        """Returns the labels of a split, in the order of its pictures."""
        return [label for _, label in self.rows[split]]

    def sizes(self) -> dict[str, int]:
        """Returns the number of pictures of each split."""
        return {split: len(self.rows[split]) for split in SPLITS}


class PictureFiles(Dataset):
    """Pictures of a split and their labels, opened anew at each visit, as the documentation of the peers shows it."""

    def __init__(self, rows: Sequence[tuple[Path, int]], transform=None):
        self.rows = rows
        self.transform = transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple:
        # Not at the top: whoever reads only the list should not wait for it.
        from PIL import Image

        path, label = self.rows[index]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


def shared_files(dataset: Path, scratch: Path, max_images: int | None = None) -> Path:
    """Writes the splits of a data set below `scratch`, unless they are there, and returns their folder.

    Args:
        dataset (`Path`):
            What a user would give as --dataset.
        scratch (`Path`):
            Where there is room for a copy of the pictures.
        max_images (`int`, *optional*):
            Keep about this many pictures of each split, as many of each class.
    """
    folder = scratch / (dataset.stem if max_images is None else f"{dataset.stem}-{max_images}")
    if folder.exists():
        return folder
    scratch.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=scratch))
    write_list(unfinished, _written(dataset, unfinished / PICTURES, max_images))
    os.replace(unfinished, folder)
    return folder


def read_files(folder: Path) -> Files:
    """Reads what [`shared_files`] wrote."""
    lines = read_list(folder)
    names = tuple(sorted({line.label for line in lines}))
    rows = {
        split: tuple((folder / PICTURES / one.file, names.index(one.label)) for one in lines if one.split == split)
        for split in SPLITS
    }
    fingerprint = hashlib.sha256((folder / LIST).read_text(encoding="utf-8").encode()).hexdigest()
    return Files(folder / PICTURES, names, rows, fingerprint)


def write_list(folder: Path, lines: Iterable[ListedFile]) -> None:
    """Writes the list of a folder's files, in order."""
    with (folder / LIST).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(sorted(lines))


def read_list(folder: Path) -> list[ListedFile]:
    """Reads what [`write_list`] wrote."""
    with (folder / LIST).open(newline="", encoding="utf-8") as file:
        return [ListedFile(*line) for line in csv.reader(file)]


def _written(dataset: Path, target: Path, max_images: int | None) -> list[ListedFile]:
    """Copies the pictures and returns what is listed of each."""
    # Only here: whoever reads what was written need not wait for the import.
    from hf_transfer.config import FinetuneConfig
    from hf_transfer.data.loading import load_image_data

    data = load_image_data(FinetuneConfig(model="none", dataset=str(dataset)))
    lines = []
    for split in SPLITS:
        labels = data.split(split)["label"]
        for row in _kept(labels, max_images):
            image, label = data.split(split)[row]["image"], data.label_names[labels[row]]
            name = Path(split) / label / f"{row:05d}{Path(image['path'] or '').suffix or '.jpg'}"
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if image["bytes"] is None:
                shutil.copyfile(image["path"], target / name)
            else:
                (target / name).write_bytes(image["bytes"])
            lines.append(ListedFile(split, name.as_posix(), label, data.content_hashes[split][row]))
    return lines


def _kept(labels: Sequence[int], max_images: int | None) -> list[int]:
    """Returns the rows to keep: the first of each class until there are enough, and at least one of each."""
    if max_images is None:
        return list(range(len(labels)))
    each = max(1, max_images // len(set(labels)))
    seen: dict[int, int] = {}
    kept = []
    for row, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= each:
            kept.append(row)
    return kept
