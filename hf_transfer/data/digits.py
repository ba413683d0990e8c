"""The handwritten digits that scikit-learn installs: real scans that need no download.

1,797 grey scans of 8x8 pixels, 10 classes (E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
Machine Learning Repository, 1998, doi:10.24432/C50P49; CC BY 4.0). Does not know how they are split.
"""

import io

import numpy as np
from PIL import Image

NAME = "digits"


def load_digit_scans() -> tuple[list[bytes], list[str]]:
    """Returns the scans as PNG files and their labels, `0` to `9`."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    # Grey levels run from 0 to 16.
    pictures = [_png((pixels / 16 * 255).round().astype(np.uint8)) for pixels in scans.images]
    return pictures, [str(label) for label in scans.target]


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
