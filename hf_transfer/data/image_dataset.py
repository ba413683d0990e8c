"""Pictures of a split as tensors, one at a time.

Knows how a visit number becomes a picture and a seed. Does not know what the transform does
(`hf_transfer.data.transforms`) or in which order visits come (`hf_transfer.data.sampling`).
"""

import random
from collections.abc import Callable
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
            Turns an RGB picture into a float tensor of shape `(channels, height, width)`.
        seed (`int`, *optional*):
            Seed of random transforms. The random numbers of a visit then depend on the seed and the visit alone, not
            on workers, processes or what ran before; `None` where the transform draws none.
    """

    def __init__(self, split: datasets.Dataset, transform: Callable[[Image.Image], torch.Tensor], seed: int | None):
        self.split = split
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, visit: int) -> dict[str, Any]:
        row = self.split[visit % len(self.split)]
        image = to_rgb(row["image"])
        pixel_values = self.transform(image) if self.seed is None else self._with_own_randomness(image, visit)
        return {"pixel_values": pixel_values, "labels": row["label"], "visit": visit}

    def _with_own_randomness(self, image: Image.Image, visit: int) -> torch.Tensor:
        # torchvision v2 draws from torch's global generator, and some transforms from Python's.
        seed = int(np.random.SeedSequence([self.seed or 0, visit]).generate_state(1, np.uint64)[0])
        python_state = random.getstate()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random.seed(seed)
            try:
                return self.transform(image)
            finally:
                random.setstate(python_state)
