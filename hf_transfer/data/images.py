"""Any picture that PIL opens as an RGB picture the right way up.

PIL decodes, as it does for `transformers.pipeline`, whose pixels evaluation has to show. torchvision decodes JPEG
files to the same pixels sooner (`benchmarks/results/input.md`), but its decoders are deprecated since 0.29.

Knows colour modes, transparency and EXIF orientation. Does not know sizes or tensors (`hf_transfer.data.transforms`).
"""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from hf_transfer.errors import UserError

_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, RuntimeError, struct.error)


def to_rgb(image: bytes | str | Path | dict[str, Any] | Image.Image, enough: int | None = None) -> Image.Image:
    """Opens a picture and turns it into RGB.

    The EXIF orientation is applied; transparent parts become white, as on a page; 16-bit grey is scaled to 8 bits
    rather than cut off at 255, which is what PIL's own conversion does; of several frames the first is taken.

    Args:
        image (`bytes`, `str`, `Path`, `dict` or `PIL.Image.Image`):
            The file's contents, its path, `{"bytes": ..., "path": ...}` as `datasets` stores it, or an opened picture.
        enough (`int`, *optional*):
            Shorter side, in pixels, that is wanted. A JPEG of four times that or more may then be decoded at a half,
            a quarter or an eighth of its size, but no smaller than twice what is wanted.

    Returns:
        `PIL.Image.Image`: in mode `RGB`.

    Raises:
        UserError: if the picture cannot be read, naming the file.
    """
    if isinstance(image, Image.Image):
        return _convert(image)
    source, name = _source(image)
    try:
        with Image.open(source) as opened:
            if enough is not None:
                shorter = min(opened.size)
                opened.draft(None, (2 * enough * opened.width // shorter, 2 * enough * opened.height // shorter))
            return _convert(opened)
    except FileNotFoundError as error:
        raise UserError(f"The picture {name} does not exist.") from error
    # A class per format: SyntaxError for a broken PNG, RuntimeError for AVIF, NotImplementedError for rare DDS kinds.
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise UserError(
            f"The picture {name} cannot be read: {error}",
            hint="remove or replace the file; a picture that cannot be read is never replaced by a blank one",
        ) from error


def picture_size(image: dict[str, Any]) -> tuple[int, int] | None:
    """Returns width and height by the file's head, as it lies there; `None` for one that cannot be read."""
    source, _ = _source(image)
    try:
        with Image.open(source) as opened:
            return opened.size
    except (*_BROKEN, Image.DecompressionBombError):
        return None


def _source(image: bytes | str | Path | dict[str, Any]) -> tuple[Any, str]:
    """Returns what PIL opens and the name for messages."""
    if isinstance(image, dict):
        if image.get("bytes") is not None:
            return io.BytesIO(image["bytes"]), repr(image.get("path") or "in the data set")
        return image["path"], repr(image["path"])
    if isinstance(image, bytes):
        return io.BytesIO(image), "in the data set"
    return image, repr(str(image))


def _convert(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP_GREY:
        values = np.asarray(image).astype(np.float64)
        # A PNG may name one grey level that stands for nothing.
        values[values == image.info.get("transparency")] = 65535.0
        return _scaled_grey(values, 65535.0)
    if image.mode == "F":
        # Floating-point pictures have no agreed range: 0 to 1 where nothing is brighter, else 0 to the brightest.
        values = np.asarray(image).astype(np.float64)
        highest = float(values.max(initial=1.0, where=np.isfinite(values)))
        return _scaled_grey(np.nan_to_num(values, posinf=highest), highest)
    if image.mode == "La":
        image = image.convert("LA")  # the only way there is
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _scaled_grey(values: np.ndarray, highest: float) -> Image.Image:
    scaled = np.clip(values / highest * 255.0, 0, 255).round().astype(np.uint8)
    return Image.fromarray(scaled).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    page = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(page, image).convert("RGB")
