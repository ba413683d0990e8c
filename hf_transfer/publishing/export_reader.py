"""Predicts with an exported model from the files beside it: needs Pillow, numpy and onnxruntime (or torch for .pt2).

Usage:
    python predict.py PICTURE...

Copied beside every export as `predict.py`, so that a model can be used, and its pixels checked, where neither
transformers nor hf_transfer is installed. Reads `preprocessing.json` and nothing else; imports nothing of hf_transfer.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps


def open_picture(path: str | Path) -> Image.Image:
    """Opens a picture the right way up, transparent parts on white, in 8 bits of red, green and blue."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"{path} has more than 8 bits a channel: scale it to 8 bits first")
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
        return image.convert("RGB")


def pixel_values(image: Image.Image, steps: Sequence[dict[str, Any]]) -> np.ndarray:
    """Takes an RGB picture through the steps of `preprocessing.json`.

    Args:
        image (`PIL.Image.Image`):
            In mode `RGB`.
        steps (`Sequence[dict]`):
            `preprocessing.json`'s `steps`; those that change the size come before those that change numbers.

    Returns:
        `numpy.ndarray`: float32, of shape `(3, height, width)`.
    """
    for step in steps:
        if step["do"] in _SHAPES:
            image = _SHAPES[step["do"]](image, step)
    values = np.asarray(image, dtype=np.float32)
    for step in steps:
        if step["do"] in _NUMBERS:
            values = _NUMBERS[step["do"]](values, step)
        elif step["do"] not in _SHAPES:
            raise ValueError(f"unknown step {step['do']!r}: this predict.py is older than the export")
    return np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32)


def _resize(image: Image.Image, step: dict[str, Any]) -> Image.Image:
    return _resized(image, step["width"], step["height"], step)


def _resize_shorter_side(image: Image.Image, step: dict[str, Any]) -> Image.Image:
    shorter, longer = sorted(image.size)
    scaled = int(step["to"] * longer / shorter)  # cut off, not rounded
    width, height = (step["to"], scaled) if image.width <= image.height else (scaled, step["to"])
    return _resized(image, width, height, step)


def _resized(image: Image.Image, width: int, height: int, step: dict[str, Any]) -> Image.Image:
    if step["arithmetic"] == "torchvision" and step["resample"] == "nearest":
        rows, columns = _nearest(image.height, height), _nearest(image.width, width)
        return Image.fromarray(np.asarray(image)[rows][:, columns])
    if step["arithmetic"] == "pillow" or step["resample"] not in _KERNELS:
        return image.resize((width, height), Image.Resampling[step["resample"].upper()])
    values = np.asarray(image).astype(np.int64)
    if width != image.width:
        weights, bits = _weights(image.width, width, step["resample"])
        values = _weighted(weights, values.transpose(1, 0, 2), bits).transpose(1, 0, 2)
    if height != image.height:
        weights, bits = _weights(image.height, height, step["resample"])
        values = _weighted(weights, values, bits)
    return Image.fromarray(values.astype(np.uint8))


def _nearest(old: int, new: int) -> np.ndarray:
    # torch's `nearest-exact`, in single precision as there: Pillow decides otherwise where two pixels are as near.
    places = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * (np.float32(old) / np.float32(new))
    return np.minimum(places.astype(np.int64), old - 1)


def _weights(old: int, new: int, resample: str) -> tuple[np.ndarray, int]:
    """Returns the weights of resampling as whole numbers of shape `(new, old)`, and how many bits are fractions.

    Pillow and torchvision (on CPUs, for 8-bit pictures) use the same filters with antialiasing; the one rounds weights
    to 22 bits, the other to as many as fit into 16 with their sign, and each rounds after the rows and after the
    columns.
    """
    reach, kernel = _KERNELS[resample]
    scale = old / new
    stretch = max(scale, 1.0)
    weights = np.zeros((new, old))
    for index in range(new):
        centre = scale * (index + 0.5)
        first = max(int(centre - reach * stretch + 0.5), 0)
        last = min(int(centre + reach * stretch + 0.5), old)
        heights = kernel(np.abs(np.arange(first, last) - centre + 0.5) / stretch)
        weights[index, first:last] = heights / heights.sum()
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * 2 ** (bits + 1)) < 2**15:
        bits += 1
    return np.trunc(weights * 2**bits + np.copysign(0.5, weights)), bits


def _weighted(weights: np.ndarray, values: np.ndarray, bits: int) -> np.ndarray:
    # Whole numbers below 2 ** 53, which doubles multiply and add exactly, and faster than integers.
    sums = np.tensordot(weights, values.astype(np.float64), 1).astype(np.int64)
    return np.clip((sums + 2 ** (bits - 1)) >> bits, 0, 255)


def _bilinear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - distance, 0.0)


def _bicubic(distance: np.ndarray) -> np.ndarray:
    # Keys' kernel with a = -0.5.
    near = (1.5 * distance - 2.5) * distance**2 + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def _lanczos(distance: np.ndarray) -> np.ndarray:
    return np.where(distance < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)


_KERNELS: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
    "bilinear": (1, _bilinear),
    "bicubic": (2, _bicubic),
    "lanczos": (3, _lanczos),
}


def _centre_crop(image: Image.Image, step: dict[str, Any]) -> Image.Image:
    left = _offset(image.width - step["width"], step["offset"])
    top = _offset(image.height - step["height"], step["offset"])
    # Outside of the picture Pillow fills with zeros, as the processors do.
    return image.crop((left, top, left + step["width"], top + step["height"]))


def _centre_crop_share(image: Image.Image, step: dict[str, Any]) -> Image.Image:
    shorter = min(image.size)
    sides = {"height": int(step["height"] * shorter), "width": int(step["width"] * shorter)}
    return _centre_crop(image, {**sides, "offset": step["offset"]})


def _offset(surplus: int, rounding: str) -> int:
    return round(surplus / 2) if rounding == "half to even" and surplus > 0 else int(surplus / 2)


def _multiply(values: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    return values * np.float32(step["by"])


def _add(values: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    return values + np.float32(step["number"])


def _normalize(values: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    return (values - np.float32(step["mean"])) / np.float32(step["std"])


def _reverse_channels(values: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    return values[:, :, ::-1]


_SHAPES: dict[str, Callable[[Image.Image, dict[str, Any]], Image.Image]] = {
    "resize": _resize,
    "resize_shorter_side": _resize_shorter_side,
    "centre_crop": _centre_crop,
    "centre_crop_share": _centre_crop_share,
}
_NUMBERS: dict[str, Callable[[np.ndarray, dict[str, Any]], np.ndarray]] = {
    "multiply": _multiply,
    "add": _add,
    "normalize": _normalize,
    "reverse_channels": _reverse_channels,
}


def load_model(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from `pixel_values` of shape `(batch, 3, height, width)` to logits."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda batch: session.run(["logits"], {"pixel_values": batch})[0]
    import torch

    module = torch.export.load(str(path)).module()

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(batch)).numpy()

    return run


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities; in double precision, as `hf-transfer predict` computes them."""
    rises = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return rises / rises.sum(axis=-1, keepdims=True)


def main(paths: Sequence[str]) -> int:
    """Prints a line of JSON for each picture: file, label, score."""
    if not paths:
        print("usage: python predict.py PICTURE...", file=sys.stderr)
        return 2
    folder = Path(__file__).resolve().parent
    sidecar = json.loads((folder / "preprocessing.json").read_text(encoding="utf-8"))
    if sidecar["steps"] is None:
        print(f"error: {sidecar['fidelity']['reason']}", file=sys.stderr)
        return 2
    model = load_model(folder / sidecar["model_file"])
    for path in paths:
        logits = model(pixel_values(open_picture(path), sidecar["steps"])[None])[0]
        scores = softmax(logits)
        best = int(scores.argmax())
        print(json.dumps({"file": path, "label": sidecar["labels"][best], "score": float(scores[best])}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
