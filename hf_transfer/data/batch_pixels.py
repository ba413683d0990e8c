"""A batch of training pictures varied at once, on whatever device it lies.

Cropping and resizing are two matrix products for each picture, across and down, whose weights follow from the boxes:
the kernels of PIL and torch, stretched where a picture shrinks, normalised, and read backwards for a mirror image.
Between the two products and after them pixels are rounded to 8 bits, as PIL and torch do on the CPU; the result
differs from theirs by a level of 255 here and there, where a weight was rounded to the other side, and where Pillow
13, which cuts small pictures, goes down first because that is cheaper.

Knows batches of 8-bit pictures, their draws and the arithmetic. Does not know how anything is drawn
(`hf_transfer.data.drawn_pictures`) or what a single picture goes through (`hf_transfer.data.pixel_steps`).
"""

from collections.abc import Callable, Mapping

import torch
from PIL import Image

from hf_transfer.data.pixel_steps import GREY
from hf_transfer.data.processor_facts import ProcessorFacts

_FINEST = 2.0**-15
"""Weights are whole multiples of it, so that float32 adds up 8-bit pixels without any rounding: whatever the order,
and however far a batch was filled up, the sum is the same."""
_COARSE = 2.0**-8
"""Weights are split at it: both parts are exact in TF32, which has eleven bits, and so are their products with
pixels."""


class BatchPixels:
    """Varies batches of pictures by what was drawn for each of them.

    Args:
        facts (`ProcessorFacts`):
            What the processor does.
    """

    def __init__(self, facts: ProcessorFacts):
        self.shape = (3, facts.height, facts.width)
        self._kernel = _KERNELS[facts.interpolation]
        # Row `i` picks the channel that the processor puts at place `i`.
        self._channels = torch.eye(3)[list(facts.channels)]
        self._gain = torch.tensor(facts.gain).view(3, 1, 1)
        self._offset = torch.tensor(facts.offset).view(3, 1, 1)

    def __call__(self, pictures: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns pixel values of shape `(batch_size, 3, height, width)`.

        Args:
            pictures (`Mapping[str, torch.Tensor]`):
                From [`~hf_transfer.data.drawn_pictures.collate_pixels`], all on one device.
        """
        device = pictures["levels"].device
        self._move_to(device)
        # A training step may run this under autocast, whose eight bits are too few here.
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            levels = self._cropped(pictures)
            pixels = self._coloured(levels, pictures["order"], pictures["factors"])
            values = pixels.mul_(self._gain).add_(self._offset)
            return values.masked_fill_(self._blank(pictures["erased"]), 0.0)

    def _move_to(self, device: torch.device) -> None:
        if self._gain.device != device:
            self._channels, self._gain, self._offset = (
                tensor.to(device) for tensor in (self._channels, self._gain, self._offset)
            )

    def _cropped(self, pictures: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns levels of shape `(batch_size, height, 3, width)`."""
        levels, sizes, boxes = pictures["levels"], pictures["sizes"], pictures["boxes"]
        batch, rows, columns, _ = levels.shape
        _, height, width = self.shape
        across = resampling_weights(boxes[:, 0], boxes[:, 2], sizes[:, 1], columns, width, self._kernel)
        across = torch.where(pictures["flipped"][:, None, None], across.flip(1), across)
        down = resampling_weights(boxes[:, 1], boxes[:, 3], sizes[:, 0], rows, height, self._kernel)
        lines = levels.permute(0, 1, 3, 2).float().reshape(batch, rows * 3, columns)
        coarse, fine = _halves(across.mT)
        narrow = _to_levels(torch.baddbmm(torch.bmm(lines, fine), lines, coarse)).view(batch, rows, 3 * width)
        coarse, fine = _halves(down)
        return _to_levels(torch.baddbmm(torch.bmm(fine, narrow), coarse, narrow)).view(batch, height, 3, width)

    def _coloured(self, levels: torch.Tensor, order: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """Returns numbers from 0 to 255 of shape `(batch_size, 3, height, width)`, channels as the processor has."""
        matrix, shift = colour_matrices(levels.mean((1, 3)), order, factors)
        matrix, shift = self._channels @ matrix, shift @ self._channels.mT
        planes = levels.transpose(1, 2).flatten(2)
        return torch.baddbmm(shift[:, :, None], matrix, planes).clamp_(0, 255).view(-1, *self.shape)

    def _blank(self, erased: torch.Tensor) -> torch.Tensor:
        """Returns where a picture is blank, of shape `(batch_size, 1, height, width)`."""
        _, height, width = self.shape
        left, top, right, bottom = erased[:, :, None].unbind(1)
        columns, rows = torch.arange(width, device=erased.device), torch.arange(height, device=erased.device)
        across, down = (left <= columns) & (columns < right), (top <= rows) & (rows < bottom)
        return (down[:, :, None] & across[:, None, :])[:, None]


def resampling_weights(
    start: torch.Tensor, end: torch.Tensor, size: torch.Tensor, length: int, count: int, kernel: Callable
) -> torch.Tensor:
    """Returns how much each pixel of a line counts for each of those that it is resized to.

    Args:
        start (`torch.Tensor` of shape `(batch_size,)`):
            Where the part begins that is resized.
        end (`torch.Tensor` of shape `(batch_size,)`):
            Where it ends.
        size (`torch.Tensor` of shape `(batch_size,)`):
            How many pixels of the line there are; those beyond it count nothing.
        length (`int`):
            Pixels of a line, with those that were filled in.
        count (`int`):
            Pixels that the part is resized to.
        kernel (`Callable`):
            The weight at a distance.

    Returns:
        `torch.Tensor` of shape `(batch_size, count, length)`: they add up to one, but for their rounding.
    """
    places = torch.arange(max(length, count), device=start.device)
    middles = places + 0.5
    step = ((end - start) / count)[:, None]
    centres = start[:, None] + middles[:count] * step
    # Where a picture shrinks, the kernel grows by as much: that is the antialiasing.
    distances = (middles[:length] - centres[:, :, None]) / step.clamp(min=1.0)[:, :, None]
    weights = kernel(distances.abs()) * (places[:length] < size[:, None])[:, None, :]
    weights = weights / weights.sum(2, keepdim=True)
    return (weights / _FINEST).round_().mul_(_FINEST)


def colour_matrices(
    mean: torch.Tensor, order: torch.Tensor, factors: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the colour change of each picture, as [`~hf_transfer.data.pixel_steps.ColourJitter`] has it for one.

    Args:
        mean (`torch.Tensor` of shape `(batch_size, 3)`):
            Mean colour.
        order (`torch.Tensor` of shape `(batch_size, 3)`):
            Of brightness (0), contrast (1) and saturation (2).
        factors (`torch.Tensor` of shape `(batch_size, 3)`):
            Of these three.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: matrices of shape `(batch_size, 3, 3)`, shifts of shape `(batch_size, 3)`.
    """
    grey, unit = GREY.to(mean.device), torch.eye(3, device=mean.device)
    matrix, shift = unit.expand(len(mean), 3, 3), torch.zeros_like(mean)
    for place in range(3):
        kind = order[:, place, None]
        factor = factors.gather(1, kind)
        now = (matrix @ mean[:, :, None])[:, :, 0] + shift
        towards = torch.where(kind == 1, (1 - factor) * (now @ grey)[:, None], 0.0)
        own_grey = torch.where(kind == 2, 1 - factor, 0.0)[:, :, None] * grey.expand(3, 3)
        blend = factor[:, :, None] * unit + own_grey
        matrix, shift = blend @ matrix, (blend @ shift[:, :, None])[:, :, 0] + towards
    return matrix, shift


def _bilinear(distance: torch.Tensor) -> torch.Tensor:
    return (1 - distance).clamp_(min=0)


def _bicubic(distance: torch.Tensor) -> torch.Tensor:
    """Keys' kernel at a = -0.5, as PIL and torch have it where they antialias (Keys 1981)."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


_KERNELS = {Image.Resampling.BILINEAR: _bilinear, Image.Resampling.BICUBIC: _bicubic}


def _halves(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    coarse = (weights / _COARSE).round_().mul_(_COARSE)
    return coarse, weights - coarse


def _to_levels(values: torch.Tensor) -> torch.Tensor:
    """Rounds to 8 bits, halves upwards, as PIL and torch do."""
    return values.add_(0.5).floor_().clamp_(0, 255)
