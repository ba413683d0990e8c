"""What an image processor does, as steps that a person can follow without transformers, and how closely they agree.

Knows how each processor of transformers and timm's transform name their settings, and which ones they use. Steps are
never believed: they are carried out by `hf_transfer.publishing.export_reader` and held against the processor itself.
Does not know models or formats.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from transformers import BaseImageProcessor

from hf_transfer.data.processor_facts import processor_facts
from hf_transfer.data.transforms import build_eval_transform
from hf_transfer.publishing.export_reader import pixel_values

Steps = list[dict[str, Any]]

MOST_GREY_LEVELS = 3.0
"""Steps that are off by more, at any pixel, are not the processor's. Where a CPU resamples otherwise than the one that
the weights were taken from, 1 or 2 are to be expected."""
_ROUNDING = 0.01
"""Grey levels; less than this is the rounding of float32."""
_OPENING = "apply the EXIF orientation, put transparent parts on white, convert to 8 bits of red, green and blue"


@dataclass(frozen=True)
class Fidelity:
    """How the steps agree with the processor, on pictures."""

    num_pictures: int
    exact: bool
    """Whether nothing differs but the last digits of float32."""
    max_grey_levels: float | None
    """Largest difference of a value, in units of one step of an 8-bit pixel; `None` where there are no steps."""
    share_that_differs: float | None
    reason: str


def preprocessing_steps(image_processor: BaseImageProcessor) -> Steps | None:
    """Returns the steps that a processor's settings stand for, or `None` where this module does not know its kind.

    Args:
        image_processor (`BaseImageProcessor`):
            transformers' own or timm's wrapper.
    """
    processor: Any = image_processor  # neither `data_config` nor `backend` is in the base class's type hints
    kind = type(processor).__name__.removesuffix("Fast").removesuffix("Pil")
    if kind == "TimmWrapperImageProcessor":
        return _timm_steps(processor.data_config)
    settings = processor.to_dict()
    shapes = _SHAPES.get(kind, _plain_shapes)(settings)
    if shapes is None:
        return None
    arithmetic = "torchvision" if processor.backend == "torchvision" else "pillow"
    shapes = [step | {"arithmetic": arithmetic} if "resample" in step else step for step in shapes]
    return [*shapes, *_numbers(kind, settings)]


def measure_fidelity(
    image_processor: BaseImageProcessor, steps: Steps | None, images: Sequence[Image.Image]
) -> Fidelity:
    """Carries the steps out on pictures and compares every value with the processor's.

    Args:
        image_processor (`BaseImageProcessor`):
            The one that the steps claim to describe.
        steps (`list[dict]`, *optional*):
            What `preprocessing_steps` returned.
        images (`Sequence[PIL.Image.Image]`):
            In mode `RGB`; further pictures of awkward shapes are made here.
    """
    name = type(image_processor).__name__
    trials = [*images, *awkward_pictures()]
    if steps is None:
        reason = f"{name} does more than the steps known here can say; use transformers with `settings`."
        return Fidelity(0, False, None, None, reason)
    gain = np.abs(np.array(processor_facts(image_processor).gain)).reshape(3, 1, 1)
    transform = build_eval_transform(image_processor)
    largest, differing, total = 0.0, 0, 0
    for image in trials:
        wanted, found = transform(image).numpy(), pixel_values(image, steps)
        if wanted.shape != found.shape:
            reason = f"The steps give {found.shape}, {name} {wanted.shape}; use transformers with `settings`."
            return Fidelity(len(trials), False, None, None, reason)
        levels = np.abs(found.astype(np.float64) - wanted) / gain
        largest = max(largest, float(levels.max()))
        differing += int((levels > _ROUNDING).sum())
        total += levels.size
    return _judged(name, len(trials), largest, differing / total)


def _judged(name: str, num_pictures: int, largest: float, share: float) -> Fidelity:
    if largest <= _ROUNDING:
        return Fidelity(num_pictures, True, largest, share, "the steps give the processor's numbers")
    if largest <= MOST_GREY_LEVELS:
        reason = f"{name} rounds otherwise when it resizes, on this machine"
        return Fidelity(num_pictures, False, largest, share, reason)
    reason = (
        f"The steps known here are off by {largest:.0f} grey levels from {name}; use transformers with `settings`."
    )
    return Fidelity(num_pictures, False, largest, share, reason)


def sidecar(
    image_processor: BaseImageProcessor,
    label_names: Sequence[str],
    model_file: str,
    input_shape: tuple[int, int, int],
    images: Sequence[Image.Image],
) -> dict[str, Any]:
    """Returns the contents of `preprocessing.json`.

    Args:
        image_processor (`BaseImageProcessor`):
            The model's own.
        label_names (`Sequence[str]`):
            In the order of the logits.
        model_file (`str`):
            Name of the exported file beside it.
        input_shape (`tuple[int, int, int]`):
            Channels, height, width.
        images (`Sequence[PIL.Image.Image]`):
            Pictures to measure the steps on.
    """
    steps = preprocessing_steps(image_processor)
    fidelity = measure_fidelity(image_processor, steps, images)
    usable = fidelity.max_grey_levels is not None and fidelity.max_grey_levels <= MOST_GREY_LEVELS
    # Colours of the channels, measured: RGB, or BGR for processors that turn them round.
    channels = "".join("RGB"[source] for source in processor_facts(image_processor).channels)
    return {
        "schema_version": 1,
        "model_file": model_file,
        "input": {
            "name": "pixel_values",
            "dtype": "float32",
            "shape": ["batch", *input_shape],
            "layout": "batch, channel, row, column",
            "channel_order": channels,
        },
        "output": {"name": "logits", "dtype": "float32", "shape": ["batch", len(label_names)], "scores": "softmax"},
        "labels": list(label_names),
        "open": _OPENING,
        "steps": steps if usable else None,
        "fidelity": fidelity,
        "processor": type(image_processor).__name__,
        "settings": image_processor.to_dict(),
    }


def awkward_pictures() -> list[Image.Image]:
    """Returns noise that is wide, high, small, square and odd-sized: what rounding of sizes is tried on."""
    generator = np.random.default_rng(0)
    sizes = ((301, 640), (640, 303), (31, 45), (224, 224), (257, 383))
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def _resample(settings: dict[str, Any]) -> str:
    return Image.Resampling(int(settings.get("resample", Image.Resampling.BILINEAR))).name.lower()


def _shorter_side(to: int, settings: dict[str, Any]) -> dict[str, Any]:
    return {"do": "resize_shorter_side", "to": to, "resample": _resample(settings)}


def _exact_size(height: int, width: int, settings: dict[str, Any]) -> dict[str, Any]:
    return {"do": "resize", "height": height, "width": width, "resample": _resample(settings)}


def _crop(height: int, width: int, offset: str = "down") -> dict[str, Any]:
    return {"do": "centre_crop", "height": height, "width": width, "offset": offset}


def _own_crop(settings: dict[str, Any]) -> Steps:
    crop = settings.get("crop_size")
    return [_crop(crop["height"], crop["width"])] if settings.get("do_center_crop") and crop else []


def _resized(size: dict[str, Any], settings: dict[str, Any], scale: Callable[[int], int] = int) -> Steps | None:
    """The resize of one step; `None` for sizes that depend on the picture in another way."""
    given = {key for key, value in size.items() if value is not None}
    if given == {"shortest_edge"}:
        return [_shorter_side(scale(size["shortest_edge"]), settings)]
    if given == {"height", "width"}:
        return [_exact_size(size["height"], size["width"], settings)]
    return None


def _plain_shapes(settings: dict[str, Any]) -> Steps | None:
    if settings.get("do_pad") or settings.get("size_divisor"):
        return None
    resized = _resized(settings["size"], settings) if settings.get("do_resize") else []
    return None if resized is None else [*resized, *_own_crop(settings)]


def _convnext_shapes(settings: dict[str, Any]) -> Steps | None:
    if not settings.get("do_resize"):
        return _own_crop(settings)
    side = settings["size"].get("shortest_edge")
    if side is None:
        return None
    if side >= 384:
        return [_exact_size(side, side, settings), *_own_crop(settings)]
    return [_shorter_side(int(side / settings["crop_pct"]), settings), _crop(side, side), *_own_crop(settings)]


def _poolformer_shapes(settings: dict[str, Any]) -> Steps | None:
    size = {side: length for side, length in settings["size"].items() if length is not None}
    if settings.get("crop_pct") is None or not settings.get("do_resize"):
        return _plain_shapes(settings)
    if len(set(size.values())) != 1:
        return None
    return [_shorter_side(int(next(iter(size.values())) / settings["crop_pct"]), settings), *_own_crop(settings)]


def _levit_shapes(settings: dict[str, Any]) -> Steps | None:
    resized = _resized(settings["size"], settings, lambda side: int(256 / 224 * side))
    return None if resized is None or not settings.get("do_resize") else [*resized, *_own_crop(settings)]


def _perceiver_shapes(settings: dict[str, Any]) -> Steps | None:
    size, crop = settings["size"], settings["crop_size"]
    steps: Steps = []
    if settings.get("do_center_crop"):
        shares = {side: size[side] / crop[side] for side in ("height", "width")}
        steps.append({"do": "centre_crop_share", **shares, "offset": "down"})
    return [*steps, *(_resized(size, settings) or [])]


_SHAPES: dict[str, Callable[[dict[str, Any]], Steps | None]] = {
    "ConvNextImageProcessor": _convnext_shapes,
    "LevitImageProcessor": _levit_shapes,
    "PerceiverImageProcessor": _perceiver_shapes,
    "PoolFormerImageProcessor": _poolformer_shapes,
}
"""Processors whose sizes mean something else than in the others."""


def _numbers(kind: str, settings: dict[str, Any]) -> Steps:
    steps: Steps = []
    if settings.get("do_rescale"):
        steps.append({"do": "multiply", "by": settings["rescale_factor"]})
        if settings.get("rescale_offset"):
            steps.append({"do": "add", "number": -1.0})
    if settings.get("do_normalize") and kind != "MobileViTImageProcessor":  # which has the setting and ignores it
        steps.append({"do": "normalize", "mean": list(settings["image_mean"]), "std": list(settings["image_std"])})
    if kind == "EfficientNetImageProcessor" and settings.get("include_top"):
        steps.append({"do": "normalize", "mean": [0.0] * 3, "std": list(settings["image_std"])})
    if settings.get("do_flip_channel_order"):
        steps.append({"do": "reverse_channels"})
    return steps


def _timm_steps(settings: dict[str, Any]) -> Steps | None:
    height, width = settings["input_size"][1:]
    scaled = [math.floor(side / settings["crop_pct"]) for side in (height, width)]
    resample = {"resample": Image.Resampling[settings["interpolation"].upper()]}
    if settings["crop_mode"] == "squash":
        resized = _exact_size(scaled[0], scaled[1], resample)
    elif settings["crop_mode"] == "center" and scaled[0] == scaled[1]:
        resized = _shorter_side(scaled[0], resample)
    else:
        return None
    return [
        resized | {"arithmetic": "pillow"},
        _crop(height, width, "half to even"),
        {"do": "multiply", "by": 1 / 255},
        {"do": "normalize", "mean": list(settings["mean"]), "std": list(settings["std"])},
    ]
