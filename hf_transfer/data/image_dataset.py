"""Pictures of a split as tensors, one at a time.

Knows how a visit number becomes a picture and a seed. Does not know what the transform does
(`hf_transfer.data.transforms`) or in which order visits come (`hf_transfer.data.sampling`).
"""

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from hf_transfer.data.images import to_rgb


class ImageClassificationDataset(Dataset):
    """Pixel values and labels of a split.

    Args:
        split (`datasets.Dataset`):
            Columns `image` (`datasets.Image(decode=False)`) and `label`.
        transform (`Callable`):
            Turns an RGB picture into a float tensor of shape `(channels, height, width)`, or into a `DrawnPicture`.
        seed (`int`, *optional*):
            Seed of random transforms. The random numbers of a visit then depend on the seed and the visit alone, not
            on workers, processes or what ran before; `None` where the transform draws none.
        pictures (`Callable`, *optional*):
            Returns the picture of a row for the transform; by default it is opened anew at each visit.
    """

    def __init__(
        self,
        split: datasets.Dataset,
        transform: Callable[[Any], Any],
        seed: int | None,
        pictures: Callable[[int], Any] | None = None,
    ):
        self.split = split
        self.transform = transform
        self.seed = seed
        self.pictures = self._open if pictures is None else pictures
        self.labels = np.asarray(split["label"], dtype=np.int64)

    def with_transform(self, transform: Callable[[Any], Any], seed: int | None) -> "ImageClassificationDataset":
        """Returns the same pictures, which come from the same place, with another transform."""
        other = copy.copy(self)  # with the same labels, which are not read again
        other.transform, other.seed = transform, seed
        return other

    def __len__(self) -> int:
        return len(self.split)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Goes through the pictures once; a visit beyond the last is no error, so nothing else would end it."""
        return (self[visit] for visit in range(len(self)))

    def __getitem__(self, visit: int) -> dict[str, Any]:
        row = visit % len(self.split)
        picture = self.pictures(row)
        pixel_values = self.transform(picture) if self.seed is None else self._with_own_randomness(picture, visit)
        return {"pixel_values": pixel_values, "labels": int(self.labels[row]), "visit": visit}

    def _open(self, row: int) -> Image.Image:
        return to_rgb(self.split[row]["image"])

    def _with_own_randomness(self, picture: Any, visit: int) -> Any:
        # torchvision v2 draws from torch's global generator, and some transforms from Python's. Only the CPU's is
        # seeded: `torch.manual_seed` asks after every kind of device, which takes as long as a resize.
        seed = int(np.random.SeedSequence([self.seed or 0, visit]).generate_state(1, np.uint64)[0])
        torch_state, python_state = torch.get_rng_state(), random.getstate()
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        try:
            return self.transform(picture)
        finally:
            torch.set_rng_state(torch_state)
            random.setstate(python_state)
