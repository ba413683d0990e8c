"""Photo-like JPEGs that are made up, and how fast this machine reads such files.

Every picture is a landscape of random shades of all sizes, as photographs have them, in the hue of its class, with
edges and grain; its bytes follow from split, class and number alone. Knows Pillow and numpy, so that processes that
make or read pictures start quickly.
"""

import colorsys
import multiprocessing
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from gpu_plan import Size
from PIL import Image, ImageDraw

QUALITY = 90
_CHUNK = 16


def class_name(number: int) -> str:
    """Returns the folder of a class."""
    return f"class_{number:03d}"


def class_hue(number: int, classes: int) -> float:
    """Returns the hue, from 0 to 1, that pictures of a class have on the whole."""
    return number / classes


def cores() -> int:
    """Returns the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_pictures(folder: Path, size: Size, processes: int | None = None) -> Path:
    """Writes `train`, `validation` and `test` with a folder for each class, unless they are there already.

    Args:
        folder (`Path`):
            Where there is room; pictures of each size have a folder of their own in it.
        size ([`Size`]):
            How many, and how large.
        processes (`int`, *optional*):
            One for each core when left out.

    Returns:
        `Path`: the folder that holds the splits.
    """
    width, height = size.picture
    counts = f"{size.classes}x{size.train_per_class}+{size.other_per_class}"
    target = folder / f"pictures-{counts}-{width}x{height}-q{QUALITY}"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder))
    wanted = []
    per_class = {"train": size.train_per_class, "validation": size.other_per_class, "test": size.other_per_class}
    for split, count in per_class.items():
        for label in range(size.classes):
            place = unfinished / split / class_name(label)
            place.mkdir(parents=True)
            hue, numbers = class_hue(label, size.classes), range(count)
            wanted += [(place / f"{n:04d}.jpg", size.picture, hue, (split, label, n)) for n in numbers]
    with _mapping(processes) as mapped:
        for _ in mapped(_write, wanted, chunksize=_CHUNK):
            pass
    os.replace(unfinished, target)
    return target


def picture(size: tuple[int, int], hue: float, key: tuple[str, int, int]) -> Image.Image:
    """Returns one picture; the key, which is split, class and number, decides on all that is random in it."""
    split, label, number = key
    generator = np.random.default_rng([zlib.crc32(split.encode()), label, number])
    width, height = size
    shades = np.zeros((height, width), np.float32)
    cells = 4
    while cells < max(size):
        # The finer, the fainter: the spectrum of photographs.
        shades += _layer(generator, size, cells, "L") * (1.2 / cells**0.6)
        cells *= 2
    colour = np.array(colorsys.hsv_to_rgb(hue, 0.6, 0.6), np.float32) * 255
    tones = colour + 0.5 * _layer(generator, size, 3, "RGB")
    canvas = Image.fromarray(np.clip(tones + shades[:, :, None], 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    for _ in range(8):
        left, top = int(generator.integers(width)), int(generator.integers(height))
        box = (left, top, left + int(generator.integers(4, width // 3)), top + int(generator.integers(4, height // 3)))
        tint = colorsys.hsv_to_rgb(hue, float(generator.uniform(0.3, 0.9)), float(generator.uniform(0.3, 1.0)))
        pen.ellipse(box, outline=tuple(round(255 * part) for part in tint), width=3)
    grain = 4 * generator.standard_normal((height, width, 1), np.float32)
    return Image.fromarray(np.clip(np.asarray(canvas) + grain, 0, 255).astype(np.uint8))


def _layer(generator: np.random.Generator, size: tuple[int, int], cells: int, mode: str) -> np.ndarray:
    """Returns blots of one size, from -127 to 128."""
    shape = (max(2, cells * size[1] // size[0]), cells, *((3,) if mode == "RGB" else ()))
    blots = Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(blots, np.float32) - 127


def decoding_rate(files: Sequence[Path], side: int, processes: int | None = None) -> dict:
    """Measures how many pictures a second all cores decode and resize, each to a square, doing nothing else.

    Args:
        files (`Sequence[Path]`):
            JPEGs; each is read once, and some of them before that to start the processes.
        side (`int`):
            Of the square.
        processes (`int`, *optional*):
            One for each core when left out.

    Returns:
        `dict`: pictures, seconds and their rate.
    """
    work = [(path, side) for path in files]
    with _mapping(processes) as mapped:
        list(mapped(_read, work[: 4 * _CHUNK * (processes or cores())], chunksize=1))
        start = time.perf_counter()
        for _ in mapped(_read, work, chunksize=_CHUNK):
            pass
        seconds = time.perf_counter() - start
    return {"pictures": len(work), "seconds": seconds, "rate": len(work) / seconds}


def _write(wanted: tuple[Path, tuple[int, int], float, tuple[str, int, int]]) -> None:
    path, size, hue, key = wanted
    picture(size, hue, key).save(path, quality=QUALITY)


def _read(work: tuple[Path, int]) -> int:
    path, side = work
    with Image.open(path) as opened:
        whole = opened.convert("RGB")
    shorter = min(whole.size)
    left, top = (whole.width - shorter) // 2, (whole.height - shorter) // 2
    square = whole.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + shorter, top + shorter))
    return square.width


@contextmanager
def _mapping(processes: int | None) -> Iterator[Callable]:
    """Gives a `map` that works in so many processes, or in this one."""
    if processes == 1:
        yield lambda function, work, chunksize: map(function, work)
        return
    # A fork of a process that has threads can stand still.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes or cores(), mp_context=context) as pool:
        yield pool.map
