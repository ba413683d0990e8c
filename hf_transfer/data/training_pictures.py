"""A training picture before it is varied: no larger than its smallest crop needs.

Knows how many pixels the network can see of a picture, and how the others are left out. Whether the result is kept
(`hf_transfer.data.decode_once`) or made anew at each visit, it is the same picture, so that a run with the cache and
one without, or one that was continued on another machine, train on the same pixels.
"""

import math
from typing import Any

import datasets
from PIL import Image

from hf_transfer.data.images import to_rgb
from hf_transfer.data.processor_facts import ProcessorFacts
from hf_transfer.data.transforms import AugmentationSettings

SLACK = 1.25
"""A picture is left as it is while its shorter side is at most this many times what is needed: resizing by less blurs
more than it saves."""
FILTER = Image.Resampling.LANCZOS
"""Twice resized is softer than once; of PIL's filters this one loses least (`benchmarks/results/input.md`)."""


def needed_side(facts: ProcessorFacts, settings: AugmentationSettings) -> int:
    """Returns the shorter side at which even the smallest crop has as many pixels as the network sees."""
    return math.ceil(max(facts.height, facts.width) / math.sqrt(settings.crop_scale[0]))


def training_picture(image: Any, side: int) -> Image.Image:
    """Opens a picture and shrinks it to the shorter side that is needed, if it is much larger; it never grows.

    Args:
        image (`bytes`, `str`, `Path`, `dict` or `PIL.Image.Image`):
            As for [`~hf_transfer.data.images.to_rgb`].
        side (`int`):
            From [`needed_side`].
    """
    picture = to_rgb(image, enough=side)
    shorter = min(picture.size)
    if shorter <= SLACK * side:
        return picture
    return picture.resize(
        (round(picture.width * side / shorter), round(picture.height * side / shorter)), FILTER, reducing_gap=1.5
    )


class TrainingPictures:
    """The training pictures of a split, made anew at each visit."""

    def __init__(self, split: datasets.Dataset, side: int):
        self.split = split
        self.side = side

    def __call__(self, row: int) -> Image.Image:
        return training_picture(self.split[row]["image"], self.side)
