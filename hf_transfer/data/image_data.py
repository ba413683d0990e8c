"""`ImageData`: the pictures of one run, split, labelled and fingerprinted.

Knows the shape in which every later stage receives the data. Does not know where pictures come from
(`hf_transfer.data.sources`), how splits are made (`hf_transfer.data.splits`) or how pictures become tensors
(`hf_transfer.data.transforms`).
"""

from collections import Counter
from dataclasses import dataclass, field

import datasets

SPLIT_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class ImageData:
    """Train, validation and test pictures with one list of labels.

    Each split is a `datasets.Dataset` with the columns `image` (`datasets.Image(decode=False)`: bytes or a path, as it
    was stored) and `label` (an integer that indexes `label_names`, whichever split it is in).
    """

    name: str
    """What the user gave as --dataset."""
    kind: str
    """`digits`, `hub`, `imagefolder`, `archive` or `table`."""
    train: datasets.Dataset
    validation: datasets.Dataset
    test: datasets.Dataset
    label_names: tuple[str, ...]
    split_methods: dict[str, str]
    """For each split, in words: as given, or how it was made."""
    fingerprint: str
    """SHA-256 over labels, splits and the contents of all pictures; independent of path and order."""
    revision: str | None = None
    """The commit of a Hub data set."""
    notes: tuple[str, ...] = field(default=())
    """What was noticed or decided on the way, a sentence each."""
    content_hashes: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    """For each split, the SHA-256 of each picture's file, row by row."""

    def split(self, name: str) -> datasets.Dataset:
        """Returns the split called `train`, `validation` or `test`."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def class_counts(self, name: str) -> tuple[int, ...]:
        """Returns the number of pictures of each class in a split, in the order of `label_names`."""
        counts = Counter(self.split(name)["label"])
        return tuple(counts.get(index, 0) for index in range(len(self.label_names)))
