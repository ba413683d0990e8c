"""What is kept of a picture that is decoded once.

Knows two kinds. Of training pictures, which look different at each visit, the pixels before augmentation are kept; of
evaluation pictures, and of training pictures that are never varied, what the processor made of them, bit for bit.
Does not know where rows lie (`hf_transfer.data.picture_store`) or whether they are kept at all
(`hf_transfer.data.decode_once`).
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import datasets
import numpy as np
import PIL
import torch
import torchvision
import transformers
from PIL import Image
from tqdm import tqdm
from transformers import BaseImageProcessor

from hf_transfer.data.exact_pixels import to_levels, value_table
from hf_transfer.data.images import to_rgb
from hf_transfer.data.picture_store import PictureStore
from hf_transfer.data.picture_threads import on_all_cores
from hf_transfer.data.stored_pictures import StoredPictures, StoredPixels
from hf_transfer.data.training_pictures import FILTER, SLACK, TrainingPictures, training_picture
from hf_transfer.data.transforms import build_eval_transform

FORMAT = 2
"""Raised whenever the same settings would lead to other rows."""
_CHUNK = 64


class NotExact(Exception):
    """The 256 levels do not lead to the numbers of a picture."""


class Kept(Protocol):
    """What is kept of each picture of a split."""

    dtype: str

    def settings(self) -> dict[str, Any]:
        """Returns all that rows depend on, beside the pictures' files."""

    def facts(self) -> dict[str, Any]:
        """Returns what has to be kept beside the rows, as JSON values."""

    def row_bytes(self, width: int, height: int) -> int:
        """Returns the bytes of the row of a picture of that size."""

    def make(self, image: Any) -> np.ndarray:
        """Makes the row of a stored picture."""

    def reader(self, store: PictureStore, split: datasets.Dataset) -> Callable[[int], Any]:
        """Returns what reads rows back."""


class KeptPictures:
    """Pixels of training pictures before they are varied, of shape `(height, width, 3)`."""

    dtype = "uint8"

    def __init__(self, side: int):
        self.side = side

    def settings(self) -> dict[str, Any]:
        return {"kept": "pictures", "side": self.side, "slack": SLACK, "filter": FILTER.name, **_versions()}

    def facts(self) -> dict[str, Any]:
        return {}

    def row_bytes(self, width: int, height: int) -> int:
        shorter = min(width, height)
        scale = 1.0 if shorter <= SLACK * self.side else self.side / shorter
        return round(3 * width * scale * height * scale)

    def make(self, image: Any) -> np.ndarray:
        return np.asarray(training_picture(image, self.side))

    def reader(self, store: PictureStore, split: datasets.Dataset) -> StoredPictures:
        return StoredPictures(store, TrainingPictures(split, self.side))


class KeptPixels:
    """What the processor makes of pictures, of shape `(3, height, width)`.

    Args:
        image_processor (`BaseImageProcessor`):
            The processor.
        as_levels (`bool`):
            Whether its numbers are kept as one of 256 levels each, in a quarter of the bytes. It is tried on every
            picture: [`NotExact`] is raised for the first that does not come back bit for bit.
    """

    def __init__(self, image_processor: BaseImageProcessor, as_levels: bool):
        self.image_processor = image_processor
        self.transform = build_eval_transform(image_processor)
        self.as_levels = as_levels
        self.dtype = "uint8" if as_levels else "float32"

    def settings(self) -> dict[str, Any]:
        processor = self.image_processor.to_json_string()
        return {"kept": "pixels", "dtype": self.dtype, "processor": processor, **_versions()}

    @functools.cached_property
    def table(self) -> np.ndarray | None:
        """The number that each level stands for; `None` where floats are kept."""
        table = value_table(self.transform) if self.as_levels else None
        if self.as_levels and table is None:
            raise NotExact
        return table

    def facts(self) -> dict[str, Any]:
        return {"table": None if self.table is None else self.table.tolist()}

    @functools.cached_property
    def _numbers(self) -> int:
        return self.transform(Image.new("RGB", (32, 32))).numel()

    def row_bytes(self, width: int, height: int) -> int:
        return self._numbers * np.dtype(self.dtype).itemsize

    def make(self, image: Any) -> np.ndarray:
        pixels = self.transform(to_rgb(image)).numpy()
        if pixels.dtype != np.float32:
            raise NotExact
        if self.table is None:
            return pixels
        levels = to_levels(pixels, self.table)
        if levels is None:
            raise NotExact
        return levels

    def reader(self, store: PictureStore, split: datasets.Dataset) -> StoredPixels:
        table = store.seal["facts"]["table"]
        original = ProcessedPictures(split, self.transform)
        levels = None if table is None else np.array(table, np.float32)
        return StoredPixels(store, original, levels, self.image_processor.to_json_string())


class ProcessedPictures:
    """The processor's output for the pictures of a split, made anew at each visit."""

    def __init__(self, split: datasets.Dataset, transform: Callable[[Image.Image], torch.Tensor]):
        self.split = split
        self.transform = transform

    def __call__(self, row: int) -> torch.Tensor:
        return self.transform(to_rgb(self.split[row]["image"]))


def rows(kept: Kept, split: datasets.Dataset, what: str) -> Iterator[np.ndarray]:
    """Makes the rows of a split, in order, on all cores.

    Raises:
        UserError: for the first picture that cannot be read.
    """
    made = on_all_cores(kept.make, _images(split.select_columns("image")))
    yield from tqdm(made, desc=what, total=len(split), leave=False, disable=None)


def _images(split: datasets.Dataset) -> Iterator[Any]:
    """Yields the pictures of a split as they are stored; some at a time, which is sooner than one by one."""
    for start in range(0, len(split), _CHUNK):
        yield from split[start : start + _CHUNK]["image"]


def _versions() -> dict[str, Any]:
    modules = {"PIL": PIL, "torch": torch, "torchvision": torchvision, "transformers": transformers}
    return {"format": FORMAT} | {name: module.__version__ for name, module in modules.items()}
