"""Small pictures with contents of their own, and folders of them."""

import io
from collections.abc import Mapping
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from hf_transfer.config import FinetuneConfig


def png(number: int) -> bytes:
    """Returns a PNG file of 6x5 pixels; equal numbers give equal bytes."""
    pixels = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def write_folder(root: Path, counts: Mapping[str, int], start: int = 0) -> Path:
    """Writes pictures of different contents, `{"train/cat": 3}` for three in that folder; 0 makes it empty."""
    number = start
    for name, count in counts.items():
        folder = root / name
        folder.mkdir(parents=True)
        for index in range(count):
            (folder / f"{index}.png").write_bytes(png(number))
            number += 1
    return root


def config_for(dataset: Path | str, **settings) -> FinetuneConfig:
    """Returns a configuration that asks for a data set; the checkpoint is never looked at."""
    return FinetuneConfig(model="none", dataset=str(dataset), **settings)


def contents(split: datasets.Dataset) -> set[bytes]:
    """Returns the files of a split."""
    return {image["bytes"] or Path(image["path"]).read_bytes() for image in split["image"]}
