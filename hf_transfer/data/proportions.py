"""Whether pictures keep their proportions on the way into the network.

Many checkpoints carry a processor that squeezes any picture into a square, although they were pretrained on crops of
natural proportions. On the photos of clothing10 (3:4) frozen ViT features are better without the squeeze
(`benchmarks/results/proportions.md`). The processor chosen here is the one that is saved with the model, so that
whoever uses the model sees the same pixels.

Knows processors and sizes of pictures. Does not make any pixels itself.
"""

import io
import statistics
from dataclasses import dataclass
from typing import Any

import datasets
from PIL import Image
from transformers import BaseImageProcessor
from transformers.utils import logging

from hf_transfer.data.processor_facts import processor_facts
from hf_transfer.errors import UserError

NEARLY_SQUARE = 1.1
"""Longer by shorter side below which squeezing changes less than random crops do."""
TOO_LONG = 1.5
"""Longer by shorter side above which a centre crop would lose more than a third of the picture."""
PRETRAINED_ON_SQUEEZED = ("Siglip",)
"""SigLIP's own pretraining squeezes (big_vision, configs/proj/image_text/siglip_replication.py: `resize(224)`)."""
_SAMPLE = 256


@dataclass(frozen=True)
class ProcessorChoice:
    """The processor of a run and why."""

    image_processor: BaseImageProcessor
    reason: str


def choose_proportions(
    image_processor: BaseImageProcessor, pictures: datasets.Dataset, wanted: str, keep_head: bool = False
) -> ProcessorChoice:
    """Decides whether pictures are squeezed as the checkpoint's processor does, or cropped in their proportions.

    Args:
        image_processor (`BaseImageProcessor`):
            The checkpoint's own; never changed.
        pictures (`datasets.Dataset`):
            The training split, with the column `image` as `ImageData` holds it.
        wanted (`str`):
            `checkpoint` leaves the processor alone, `keep` keeps proportions, `auto` keeps them where the pictures are
            longer than wide (or the other way round) without being so long that a crop would lose much.
        keep_head (`bool`, *optional*, defaults to `False`):
            Whether the checkpoint's head stays, which was trained with the checkpoint's processor.

    Returns:
        [`ProcessorChoice`]: the processor to use and save, and the reason.

    Raises:
        UserError: if `keep` is asked of a processor that cannot crop.
    """
    own = ProcessorChoice(image_processor, "the checkpoint's own, unchanged")
    if wanted == "checkpoint" or processor_facts(image_processor).keeps_aspect:
        return own
    if wanted == "auto":
        length = _median_length(pictures)
        squeezed_before = type(image_processor).__name__.startswith(PRETRAINED_ON_SQUEEZED)
        if keep_head or squeezed_before or not NEARLY_SQUARE <= length <= TOO_LONG:
            return own
    cropping = _cropping(image_processor)
    if cropping is not None:
        return ProcessorChoice(cropping, "proportions kept; --proportions checkpoint would squeeze as it does")
    if wanted == "auto":
        return own
    raise UserError(
        f"--proportions keep: {type(image_processor).__name__} cannot crop, it only squeezes.",
        allowed="auto, checkpoint",
        hint="--proportions checkpoint",
    )


def _cropping(image_processor: BaseImageProcessor) -> BaseImageProcessor | None:
    """Returns the same processor with the shorter side resized and the centre cropped; `None` where it cannot."""
    facts = processor_facts(image_processor)
    if facts.height != facts.width:
        return None
    side = facts.height
    settings: dict[str, Any] = {
        **image_processor.to_dict(),
        "size": {"shortest_edge": side},
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
    }
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # it would print the whole processor
    try:
        cropping = type(image_processor).from_dict(settings)
        changed = processor_facts(cropping)
    except (UserError, ValueError, TypeError, KeyError):
        # Processors name and check their sizes each in a way of their own; one that does not take these cannot crop.
        return None
    finally:
        logging.set_verbosity(before)
    return cropping if changed.keeps_aspect and (changed.height, changed.width) == (side, side) else None


def _median_length(pictures: datasets.Dataset) -> float:
    """Returns the median of longer by shorter side over an even sample of the pictures."""
    step = max(1, len(pictures) // _SAMPLE)
    sizes = [_size(row["image"]) for row in pictures.select(range(0, len(pictures), step))]
    return statistics.median(max(size) / min(size) for size in sizes)


def _size(stored: dict[str, Any]) -> tuple[int, int]:
    """Reads width and height of a picture from its header."""
    source = stored["path"] if stored.get("bytes") is None else io.BytesIO(stored["bytes"])
    try:
        with Image.open(source) as image:
            return image.size
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"The picture {stored.get('path')!r} cannot be read: {error}") from error
