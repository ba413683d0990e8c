"""What an image processor does to a picture, measured on probe pictures rather than read from its attributes.

Every family names its settings differently (`size`, `crop_size`, `crop_pct`, `do_center_crop`, `rescale_offset`,
`do_flip_channel_order`; timm's wrapper has none of them), and a setting may be there without being used. What comes
out of a ramp and of plain colours cannot be misread: the output size, the part of the picture that is kept, and the
line that maps a pixel to a number. Only the interpolation is read, since training may use another one without harm.

Does not augment anything (`hf_transfer.data.transforms`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor

from hf_transfer.errors import UserError

_WIDE, _HIGH = 400, 200
_COLOURS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 64, 192))


@dataclass(frozen=True)
class ProcessorFacts:
    """What training augmentation has to know of a processor."""

    height: int
    width: int
    keeps_aspect: bool
    """Whether shapes stay as they are and the edges of the picture are cut off, or the whole picture is squeezed."""
    kept: float
    """Share of the shorter side that evaluation sees."""
    channels: tuple[int, int, int]
    """For each output channel, the channel of the RGB picture that it comes from."""
    gain: tuple[float, float, float]
    """`output = gain * pixel + offset`, for pixels from 0 to 255."""
    offset: tuple[float, float, float]
    interpolation: Image.Resampling

    @property
    def neutral_colour(self) -> tuple[int, int, int]:
        """The RGB colour that becomes zero, or the nearest there is: what empty corners are filled with."""
        colour = [0, 0, 0]
        for source, gain, offset in zip(self.channels, self.gain, self.offset, strict=True):
            colour[source] = round(min(255.0, max(0.0, -offset / gain)))
        return (colour[0], colour[1], colour[2])


def processor_facts(image_processor: BaseImageProcessor) -> ProcessorFacts:
    """Measures an image processor.

    Args:
        image_processor (`BaseImageProcessor`):
            Any processor whose output is one picture of three channels and a fixed size.

    Returns:
        `ProcessorFacts`

    Raises:
        UserError: if its output is something else.
    """
    wide, high = _ramp(_WIDE, _HIGH), _ramp(_HIGH, _WIDE)
    values = _pixels(image_processor, wide)
    if values.shape != _pixels(image_processor, high).shape:
        raise UserError(
            f"{type(image_processor).__name__} gives tensors of different sizes for pictures of different shapes: "
            f"{tuple(values.shape)} and {tuple(_pixels(image_processor, high).shape)}, which cannot form a batch.",
            "a processor with a fixed output size",
            "set `size` to a height and a width, or `do_center_crop`, in preprocessor_config.json",
        )
    channels, gain, offset = _pixel_map(image_processor)
    ramp = {source: (values[index] - offset[index]) / gain[index] / 255 for index, source in enumerate(channels)}
    across, down = _extent(ramp[0], axis=1), _extent(ramp[1], axis=0)
    # On a picture twice as wide as high, cutting a centre of unchanged shape keeps twice as much of the height.
    keeps_aspect = across < 0.75 * down
    return ProcessorFacts(
        height=values.shape[1],
        width=values.shape[2],
        keeps_aspect=keeps_aspect,
        kept=min(1.0, down),
        channels=channels,
        gain=gain,
        offset=offset,
        interpolation=_interpolation(image_processor),
    )


def _pixels(image_processor: BaseImageProcessor, image: Image.Image) -> torch.Tensor:
    """Returns the processor's tensor of shape `(3, height, width)` for one picture."""
    output = image_processor(images=image, return_tensors="pt")
    pixels = output.get("pixel_values")
    if not torch.is_tensor(pixels) or pixels.ndim != 4 or pixels.shape[:2] != (1, 3):
        found = {key: tuple(value.shape) for key, value in output.items() if torch.is_tensor(value)}
        raise UserError(
            f"{type(image_processor).__name__} does not turn a picture into one tensor of three colour channels; "
            f"it gives {found}.",
            "processors with `pixel_values` of shape (1, 3, height, width)",
        )
    return pixels[0].float()


def _pixel_map(processor: BaseImageProcessor) -> tuple[tuple, tuple, tuple]:
    """Finds, for each output channel, its source channel, gain and offset, and checks them on a fifth colour."""
    plain = [_centre(_pixels(processor, Image.new("RGB", (64, 64), colour))).mean((1, 2)) for colour in _COLOURS]
    black, primaries, check = plain[0], plain[1:4], plain[4]
    rise = torch.stack([(value - black) / 255 for value in primaries])
    channels = tuple(int(index) for index in rise.abs().argmax(0))
    gain = tuple(float(rise[source, index]) for index, source in enumerate(channels))
    offset = tuple(float(value) for value in black)
    predicted = torch.tensor(
        [gain[index] * _COLOURS[4][source] + offset[index] for index, source in enumerate(channels)]
    )
    if sorted(channels) != [0, 1, 2] or not torch.allclose(predicted, check, atol=1e-3):
        raise UserError(
            f"{type(processor).__name__} does more to a pixel than scale and shift it, so training pictures cannot be "
            "prepared in the same way.",
            "processors that rescale and normalise",
            "--augmentation none, which uses the processor itself for training too",
        )
    return channels, gain, offset


def _centre(pixels: torch.Tensor) -> torch.Tensor:
    """Returns the inner half of a picture, which no processor pads."""
    height, width = pixels.shape[1:]
    return pixels[:, height // 4 : height - height // 4, width // 4 : width - width // 4]


def _ramp(width: int, height: int) -> Image.Image:
    """Returns a picture whose red rises from left to right and whose green rises from top to bottom."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.zeros_like(red)], axis=-1).round().astype(np.uint8))


def _extent(ramp: torch.Tensor, axis: int) -> float:
    """Returns the share of a ramp from 0 to 1 that is visible along an axis, from the slope of its inner half."""
    profile = ramp.mean(1 - axis)
    quarter = len(profile) // 4
    inner = profile[quarter : len(profile) - quarter]
    return float((inner[-1] - inner[0]) / (len(inner) - 1) * len(profile))


def _interpolation(processor: BaseImageProcessor) -> Image.Resampling:
    """Returns how the processor resizes; bicubic where it does not say, as in timm."""
    settings = getattr(processor, "data_config", {}) or {}
    named = settings.get("interpolation", getattr(processor, "resample", None))
    if isinstance(named, str):
        return Image.Resampling.__members__.get(named.upper(), Image.Resampling.BICUBIC)
    return Image.Resampling.BICUBIC if named is None else Image.Resampling(int(named))
