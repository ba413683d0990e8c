"""The steps that vary a training picture, on arrays of 8-bit pixels: what each draws, and what it does then.

Knows crops, mirror images and colours of one picture, and how fast each can be had: torch resizes 8-bit pixels two to
three times faster than PIL, and brightness, contrast and saturation together are one 3x3 matrix
(`benchmarks/results/input.md`). Does not know policies (`hf_transfer.data.transforms`), nor how a whole batch is
varied by the same draws (`hf_transfer.data.batch_pixels`). Each picture draws for itself, never a batch in one draw:
its random numbers may depend on the visit alone.
"""

import math

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from hf_transfer.data.processor_facts import ProcessorFacts

Picture = np.ndarray | Image.Image
"""Pixels of shape `(height, width, 3)`, 8 bits each, or a picture in mode `RGB`."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge, in pixels."""

GREY = torch.tensor([0.299, 0.587, 0.114])
"""Luma of ITU-R BT.601, as PIL and torchvision have it."""
TORCH_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}
_SMALL = 64


class FrameCrop:
    """Cuts a random part of a picture, of the shape that evaluation sees, and resizes it to the processor's size.

    torchvision's `RandomResizedCrop` has one range of shapes for all pictures. A processor that squeezes whole
    pictures into a square shows the network squeezed things; crops of natural proportions would train it on others
    than it is judged on. Here the shape follows the processor: that of its output where it keeps proportions, that of
    the picture where it squeezes.

    Args:
        facts (`ProcessorFacts`):
            What the processor does.
        scale (`tuple[float, float]`):
            Range of the area, as a share of the largest box of that shape in the picture.
        ratio (`float`):
            Factor by which the shape may differ either way.
    """

    def __init__(self, facts: ProcessorFacts, scale: tuple[float, float], ratio: float):
        self.facts = facts
        self.scale = scale
        self.ratio = ratio

    def __call__(self, picture: Picture) -> torch.Tensor:
        """Returns 8-bit pixels of shape `(3, height, width)`."""
        pixels = np.array(picture) if isinstance(picture, Image.Image) else picture
        box = self.draw(pixels.shape[1], pixels.shape[0])
        mode = TORCH_MODES.get(self.facts.interpolation)
        if mode is None or cuts_between_pixels(box):
            return self._resize_with_pil(pixels, box)
        left, top, right, bottom = (round(edge) for edge in box)
        part = torch.from_numpy(pixels[top:bottom, left:right]).permute(2, 0, 1)[None]
        return interpolate(part, (self.facts.height, self.facts.width), mode=mode, antialias=True)[0]

    def draw(self, width: int, height: int) -> Box:
        """Draws the box of a picture of that size."""
        draws = torch.rand(4).tolist()
        shape = self.facts.width / self.facts.height if self.facts.keeps_aspect else width / height
        shape *= math.exp((2 * draws[0] - 1) * math.log(self.ratio))
        largest_width = min(width, height * shape)
        side = math.sqrt(self.scale[0] + draws[1] * (self.scale[1] - self.scale[0]))
        box_width = max(1.0, largest_width * side)
        box_height = max(1.0, largest_width / shape * side)
        left, top = draws[2] * (width - box_width), draws[3] * (height - box_height)
        return left, top, min(left + box_width, width), min(top + box_height, height)

    def _resize_with_pil(self, pixels: np.ndarray, box: Box) -> torch.Tensor:
        size = (self.facts.width, self.facts.height)
        image = Image.fromarray(pixels).resize(size, self.facts.interpolation, box=box, reducing_gap=3.0)
        return functional.pil_to_tensor(image)


def cuts_between_pixels(box: Box) -> bool:
    """Tells whether a box is too small to be cut at whole pixels, as torch does: PIL cuts between them."""
    return min(box[2] - box[0], box[3] - box[1]) < _SMALL


class Mirror:
    """Turns left into right, with a probability."""

    def __init__(self, probability: float):
        self.probability = probability

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Takes pixels of shape `(3, height, width)`."""
        return functional.horizontal_flip(pixels) if self.draw() else pixels

    def draw(self) -> bool:
        """Draws whether a picture is turned."""
        return bool(torch.rand(1) < self.probability)


class ColourJitter:
    """Changes brightness, contrast and saturation by random factors, in random order, as torchvision's does.

    Each of them is affine in the three colours of a pixel, and so are all three after one another: one matrix and one
    shift serve the whole picture. Pixels are cut off at black and white once, at the end, and rounded nowhere, which
    makes the result differ from torchvision's by about one level of 255.

    Args:
        strength (`float`):
            Factors are drawn from `1 - strength` to `1 + strength`.
    """

    def __init__(self, strength: float):
        self.strength = strength

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Takes 8-bit pixels of shape `(3, height, width)` and returns floating-point ones from 0 to 255."""
        planes = pixels.float().flatten(1)
        order, factors = self.draw()
        matrix, shift = self._matrix(planes.mean(1), order, factors)
        return torch.addmm(shift[:, None], matrix, planes).clamp_(0, 255).view(pixels.shape)

    def draw(self) -> tuple[list[int], list[float]]:
        """Draws the order of brightness (0), contrast (1) and saturation (2), and the factor of each."""
        order = torch.randperm(3).tolist()
        return order, (1 + self.strength * (2 * torch.rand(3) - 1)).tolist()

    @staticmethod
    def _matrix(mean: torch.Tensor, order: list[int], factors: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
        matrix, shift = torch.eye(3), torch.zeros(3)
        for kind in order:
            factor = factors[kind]
            if kind == 0:  # brightness: towards black
                matrix, shift = factor * matrix, factor * shift
            elif kind == 1:  # contrast: towards the mean grey of the picture as it is by now
                grey = GREY @ (matrix @ mean + shift)
                matrix, shift = factor * matrix, factor * shift + (1 - factor) * grey
            else:  # saturation: towards each pixel's own grey
                blend = factor * torch.eye(3) + (1 - factor) * GREY.expand(3, 3)
                matrix, shift = blend @ matrix, blend @ shift
        return matrix, shift


class Erasing(v2.RandomErasing):
    """Blanks a random box of a picture, with a probability."""

    def draw(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Draws the box (left, top, right, bottom) of a picture of that size; an empty one where nothing is blank."""
        blank = self(torch.ones(1, height, width))[0] == 0
        rows, columns = blank.any(1).nonzero(), blank.any(0).nonzero()
        if len(rows) == 0:
            return 0, 0, 0, 0
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class PixelMap:
    """Turns pixels into the numbers that the processor would turn them into, by the line measured for each channel."""

    def __init__(self, facts: ProcessorFacts):
        self.channels = list(facts.channels)
        self.gain = torch.tensor(facts.gain).view(3, 1, 1)
        self.offset = torch.tensor(facts.offset).view(3, 1, 1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Takes pixels of shape `(3, height, width)`, red first."""
        ordered = pixels if self.channels == [0, 1, 2] else pixels[self.channels]
        return ordered.float().mul(self.gain).add_(self.offset)
