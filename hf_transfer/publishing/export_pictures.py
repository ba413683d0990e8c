"""Which pictures an export is checked with: the user's own, a data set's test split, or, without any, made ones.

Knows where they come from and how that is told. Does not know what is done with them.
"""

from argparse import Namespace
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from hf_transfer.errors import UserError

MADE_PICTURES = 16


@dataclass(frozen=True)
class TrialPictures:
    """Pictures in mode `RGB`, and what they are."""

    images: tuple[Image.Image, ...]
    kind: str
    """`images`, `dataset` or `generated`."""
    told: str
    """In words, for the report."""
    notes: tuple[str, ...] = ()


def find_trial_pictures(options: Namespace, run: dict[str, Any] | None) -> TrialPictures:
    """Finds the pictures that a command line asks for, else those that the run was tested on.

    Args:
        options (`Namespace`):
            `model`, `dataset`, `images` and `num_images`.
        run (`dict`, *optional*):
            The `run.json` of the model.

    Raises:
        [`~hf_transfer.errors.UserError`]: where pictures that were asked for cannot be read.
    """
    if options.images:
        return _user_images(options.images, options.num_images)
    if options.dataset:
        return _test_split(options, run)
    if run is None or not run.get("config", {}).get("dataset"):
        return _made("no pictures were given")
    try:
        return _test_split(options, run)
    except UserError as error:
        # Nobody asked for this data set in this command; that it has moved must not stop the export.
        return _made(f"the run's data set cannot be read any more ({error.given})")


def _user_images(paths: list[str], limit: int) -> TrialPictures:
    from hf_transfer.data.images import to_rgb
    from hf_transfer.evaluation.prediction import find_pictures

    files = find_pictures(paths)
    chosen = [files[index] for index in evenly(len(files), limit)]
    images = tuple(to_rgb(file) for file in chosen)
    return TrialPictures(images, "images", f"{len(images)} of {len(files)} picture(s) given")


def _test_split(options: Namespace, run: dict[str, Any] | None) -> TrialPictures:
    from hf_transfer.data.images import to_rgb
    from hf_transfer.data.loading import load_image_data
    from hf_transfer.evaluation.saved_run import changed_data_note, data_config

    config = data_config(options, run)
    data = load_image_data(config)
    note = changed_data_note(run, config, data)
    images = tuple(to_rgb(data.test[index]["image"]) for index in evenly(len(data.test), options.num_images))
    told = f"{len(images)} of the {len(data.test)} test pictures of {data.name}"
    return TrialPictures(images, "dataset", told, (note,) if note else ())


def _made(why: str) -> TrialPictures:
    return TrialPictures(
        made_pictures(MADE_PICTURES),
        "generated",
        f"{MADE_PICTURES} pictures made by a random generator",
        (f"checked on made pictures, not on real ones: {why}. --images or --dataset gives real ones",),
    )


def made_pictures(count: int) -> tuple[Image.Image, ...]:
    """Returns pictures of soft random shapes and colours, of several sizes; the same ones every time."""
    generator = np.random.default_rng(0)
    pictures = []
    for index in range(count):
        coarse = generator.integers(0, 256, (4 + index % 5, 4 + index % 3, 3), dtype=np.uint8)
        soft = Image.fromarray(coarse).resize(
            (200 + 37 * (index % 4), 180 + 23 * (index % 5)), Image.Resampling.BICUBIC
        )
        noise = generator.normal(0, 12, (soft.height, soft.width, 3))
        pictures.append(Image.fromarray(np.clip(np.asarray(soft) + noise, 0, 255).astype(np.uint8)))
    return tuple(pictures)


def evenly(total: int, limit: int) -> list[int]:
    """Returns at most `limit` indices, spread evenly over `total`: pictures often come sorted by class."""
    count = min(total, limit)
    return [index * total // count for index in range(count)]
