"""Training pictures that are not varied yet, with what was drawn for them.

Where the device varies whole batches (`hf_transfer.data.batch_pixels`), a worker does what is left: it draws, cuts out
the pixels that the crop looks at, and lays the pictures of a batch beside each other. The draws are those of
`hf_transfer.data.pixel_steps`, by the same steps in the same order, so that a picture is varied alike either way.

Knows draws and 8-bit pixels. Does not know what becomes of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor

from hf_transfer.data.pixel_steps import TORCH_MODES, Box, Picture, cuts_between_pixels
from hf_transfer.data.processor_facts import ProcessorFacts, processor_facts
from hf_transfer.data.transforms import AugmentationSettings, own_steps, varies

SUPPORT = {Image.Resampling.BILINEAR: 1, Image.Resampling.BICUBIC: 2}
"""How many pixels either way a kernel reaches where a picture is not shrunk."""


@dataclass(frozen=True)
class DrawnPicture:
    """A training picture and the draws of a visit."""

    levels: np.ndarray
    """The pixels that the crop looks at, 8 bits each, of shape `(height, width, 3)`."""
    box: Box
    """The crop, in these pixels."""
    flipped: bool
    order: list[int]
    """Of brightness (0), contrast (1) and saturation (2)."""
    factors: list[float]
    """Of brightness, contrast and saturation; 1 leaves all as it is."""
    erased: tuple[int, int, int, int]
    """Left, top, right and bottom edge of the blank box, in the finished picture."""


def reason_against_device(image_processor: BaseImageProcessor, settings: AugmentationSettings) -> str | None:
    """Says why a policy is carried out picture by picture on the CPU; `None` where a device can do it."""
    if not varies(settings):
        return "pictures are not varied"
    if settings.auto_augment != "none":
        return f"{settings.auto_augment} takes other steps for each picture"
    if settings.rotation > 0:
        return "rotation works on single pictures"
    interpolation = processor_facts(image_processor).interpolation
    if interpolation not in TORCH_MODES:
        return f"{interpolation.name.lower()} resampling is PIL's alone"
    return None


class PictureDraws:
    """The transform of training pictures that a device varies: it draws, and leaves the pixels as they are.

    Args:
        facts (`ProcessorFacts`):
            What the processor does.
        settings (`AugmentationSettings`):
            What is drawn; [`reason_against_device`] has to be `None` for both.
    """

    def __init__(self, facts: ProcessorFacts, settings: AugmentationSettings):
        self.facts = facts
        self.steps = own_steps(facts, settings)

    def __call__(self, picture: Picture) -> DrawnPicture:
        levels = np.asarray(picture)
        height, width = levels.shape[:2]
        crop, mirror, jitter, erasing = self.steps
        box = crop.draw(width, height)
        flipped = mirror is not None and mirror.draw()
        order, factors = ([0, 1, 2], [1.0, 1.0, 1.0]) if jitter is None else jitter.draw()
        erased = (0, 0, 0, 0) if erasing is None else erasing.draw(self.facts.width, self.facts.height)
        left, top, right, bottom = self._window(box, width, height)
        if not cuts_between_pixels(box):
            box = (left, top, right, bottom)
        box = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
        return DrawnPicture(levels[top:bottom, left:right], box, flipped, order, factors, erased)

    def _window(self, box: Box, width: int, height: int) -> tuple[int, int, int, int]:
        """Returns the whole pixels that a crop looks at: its own, or those around them too where PIL would."""
        if not cuts_between_pixels(box):
            left, top, right, bottom = (round(edge) for edge in box)
            return left, top, right, bottom
        support = SUPPORT[self.facts.interpolation]
        across = math.ceil(support * max(1.0, (box[2] - box[0]) / self.facts.width))
        down = math.ceil(support * max(1.0, (box[3] - box[1]) / self.facts.height))
        return (
            max(0, math.floor(box[0]) - across),
            max(0, math.floor(box[1]) - down),
            min(width, math.ceil(box[2]) + across),
            min(height, math.ceil(box[3]) + down),
        )


def collate_pixels(pictures: Sequence[torch.Tensor | DrawnPicture]) -> dict[str, Any]:
    """Makes the part of a batch that shows something.

    Args:
        pictures (`Sequence`):
            What a data set gives as `pixel_values`: all of them tensors, or all of them drawn.

    Returns:
        `dict`: `pixel_values` of shape `(batch_size, channels, height, width)`, or `pictures`, the input of
        [`~hf_transfer.data.batch_pixels.BatchPixels`].
    """
    ready = [picture for picture in pictures if isinstance(picture, torch.Tensor)]
    if ready:
        return {"pixel_values": torch.stack(ready)}
    return {"pictures": _beside_each_other([picture for picture in pictures if isinstance(picture, DrawnPicture)])}


def _beside_each_other(pictures: Sequence[DrawnPicture]) -> dict[str, torch.Tensor]:
    """Fills pictures up to one shape; what was filled in is never looked at, but must be no NaN either."""
    sizes = torch.tensor([picture.levels.shape[:2] for picture in pictures])
    levels = torch.zeros(len(pictures), *sizes.amax(0).tolist(), 3, dtype=torch.uint8)
    filled = levels.numpy()
    for number, picture in enumerate(pictures):
        height, width = picture.levels.shape[:2]
        filled[number, :height, :width] = picture.levels
    return {
        "levels": levels,
        "sizes": sizes,
        "boxes": torch.tensor([picture.box for picture in pictures], dtype=torch.float32),
        "flipped": torch.tensor([picture.flipped for picture in pictures]),
        "order": torch.tensor([picture.order for picture in pictures]),
        "factors": torch.tensor([picture.factors for picture in pictures]),
        "erased": torch.tensor([picture.erased for picture in pictures]),
    }
