"""What an image processor made of a picture, kept without losing a bit.

Knows that most processors end by mapping each 8-bit pixel to one number: then the number's place among the 256 says
all. Whether a processor does so is not read from its settings but tried, on every picture. Does not know files.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image


def value_table(transform: Callable[[Image.Image], torch.Tensor]) -> np.ndarray | None:
    """Returns the number that each level from 0 to 255 becomes in each channel, of shape `(3, 256)`.

    Returns:
        `np.ndarray` in float32; `None` if a plain grey picture does not come out as one number for each channel.
    """
    columns = []
    for level in range(256):
        pixels = transform(Image.new("RGB", (32, 32), (level, level, level)))
        if pixels.dtype != torch.float32 or pixels.ndim != 3 or pixels.shape[0] != 3:
            return None
        columns.append(pixels[:, pixels.shape[1] // 2, pixels.shape[2] // 2].numpy())
    return np.stack(columns, axis=1)


def to_levels(pixels: np.ndarray, table: np.ndarray) -> np.ndarray | None:
    """Returns the levels that the table turns into exactly these numbers, or `None` if there are none.

    Args:
        pixels (`np.ndarray` of shape `(3, height, width)`):
            What came out of the processor.
        table (`np.ndarray` of shape `(3, 256)`):
            From [`value_table`].
    """
    lowest, span = table[:, :1, None], (table[:, -1:] - table[:, :1])[..., None]
    if not span.all():
        return None
    levels = np.rint((pixels - lowest) / span * 255).clip(0, 255).astype(np.uint8)
    # As bits: -0.0 and 0.0 are equal as numbers.
    same = np.array_equal(from_levels(levels, table).view(np.int32), np.ascontiguousarray(pixels).view(np.int32))
    return levels if same else None


def from_levels(levels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Returns the numbers of 8-bit levels of shape `(3, height, width)`."""
    pixels = np.empty(levels.shape, np.float32)
    for channel, values in enumerate(table):
        np.take(values, levels[channel], out=pixels[channel], mode="clip")  # unlike the default, without a buffer
    return pixels
