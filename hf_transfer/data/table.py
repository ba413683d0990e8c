"""`RawTable`: pictures and labels as a source gave them, before anything is decided.

Knows nothing of where they came from or what becomes of them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import pyarrow as pa

STORED_IMAGE = datasets.Image(decode=False)


@dataclass(frozen=True)
class RawTable:
    """Pictures and labels of one split, row by row."""

    images: datasets.Dataset
    """One column, `image`, of `{"bytes": ..., "path": ...}` as stored."""
    labels: list[Any]
    """Names or integers, as they were found."""
    names: tuple[str, ...] | None = None
    """The names that the source itself declares, in its order; integers in `labels` index them."""

    def __len__(self) -> int:
        return len(self.labels)


RawSplits = dict[str, RawTable]
"""Tables by split, `train`, `validation` and `test`, or one called `all`."""


def stored_images(paths: Sequence[str] | None = None, contents: Sequence[bytes] | None = None) -> datasets.Dataset:
    """Makes the `images` of a `RawTable` from paths or from the contents of files."""
    paths, contents = paths or (), contents or ()
    # Column by column: a dict for each row would take some 300 bytes a picture.
    stored = pa.StructArray.from_arrays(
        [
            pa.array(itertools.chain(itertools.repeat(None, len(paths)), contents), pa.binary()),
            pa.array(itertools.chain(paths, itertools.repeat(None, len(contents))), pa.string()),
        ],
        ["bytes", "path"],
    )
    return datasets.Dataset.from_dict({"image": stored}, features=datasets.Features({"image": STORED_IMAGE}))
