"""Pictures that look a little like photographs: smooth, with detail, as JPEG files of any size."""

import io

import datasets
import numpy as np
from PIL import Image

from hf_transfer.data.table import STORED_IMAGE


def photo(number: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    """Returns a picture of clouds of several sizes; equal numbers and sizes give equal pictures."""
    generator = np.random.default_rng(number)
    layers = np.zeros((size[1], size[0], 3))
    for cells, weight in ((3, 0.5), (12, 0.3), (40, 0.2)):
        coarse = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        layers += weight * np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))
    return Image.fromarray(layers.clip(0, 255).astype(np.uint8))


def jpeg(number: int, size: tuple[int, int] = (90, 70), orientation: int | None = None) -> bytes:
    """Returns the file of a photo, turned by its EXIF entry if there is one."""
    buffer, exif = io.BytesIO(), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    photo(number, size).save(buffer, format="JPEG", quality=92, exif=exif)
    return buffer.getvalue()


def split_of(files: list[bytes]) -> datasets.Dataset:
    """Returns a split of these files, each with the label of its row modulo three."""
    features = datasets.Features({"image": STORED_IMAGE, "label": datasets.Value("int64")})
    rows = [{"bytes": file, "path": None} for file in files]
    return datasets.Dataset.from_dict({"image": rows, "label": [i % 3 for i in range(len(files))]}, features=features)
