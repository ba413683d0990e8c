"""What a training picture costs: decoding, varying, keeping; and what keeping it changes in its pixels.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/input.py

Takes pictures of clothing10 as they are, and mosaics of them as large photographs: every tile is sharp, so that they
lose more by shrinking than real ones. Figures are CPU milliseconds a picture in one thread, but for those of several
threads, which are of the clock on the wall; all are medians of interleaved rounds. simplejpeg is measured where it is
installed. Writes `benchmarks/results/input.md`.
"""

import importlib.util
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pipeline_runs import lab_note, made_here
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2
from written_table import table_head, table_row, write_lines

from hf_transfer.allocator import keep_freed_memory
from hf_transfer.config import FinetuneConfig
from hf_transfer.data.decode_once import decode_once
from hf_transfer.data.image_dataset import ImageClassificationDataset
from hf_transfer.data.images import to_rgb
from hf_transfer.data.loading import load_image_data
from hf_transfer.data.picture_threads import on_all_cores
from hf_transfer.data.processor_facts import processor_facts
from hf_transfer.data.training_pictures import needed_side, training_picture
from hf_transfer.data.transforms import POLICIES, build_eval_transform
from hf_transfer.environment import available_cores, package_versions
from hf_transfer.models.checkpoint import load_checkpoint

TABLE = Path(__file__).parent / "results" / "input.md"
CHECKPOINTS = ("vit_tiny_patch16_224", "mobilenet_v1_0.5_160")
ROUNDS, PICTURES, MOSAICS = 7, 200, 10
SIDE = 289
BOXES = ((0.0, 0.0, 1.0, 1.0), (0.1, 0.12, 0.9, 0.92))
"""Parts of a picture whose pixels are compared at 224x224, as shares of its width and height."""


def main() -> None:
    keep_freed_memory()  # as the commands do
    torch.set_num_threads(1)
    assets = Path(os.environ["HF_TRANSFER_ASSETS"])
    dataset = str(assets / "datasets" / "clothing10.tar")
    data = load_image_data(FinetuneConfig(model="none", dataset=dataset))
    step = len(data.train) // PICTURES
    files = [file_of(data.train[row * step]["image"]) for row in range(PICTURES)]
    large = mosaics(files)
    lines = ["# What a training picture costs", "", "## Decoding", ""]
    lines += table_head("decoder", "clothing10, ms", "2048x1536, ms", "pixels against PIL")
    lines += decoding(files, large)
    lines += ["", "## One visit, `light` augmentation", ""]
    lines += table_head("data set", *(f"{name}, ms" for name in CHECKPOINTS))
    columns = [visits(assets / "checkpoints" / name, dataset) for name in CHECKPOINTS]
    lines += [table_row(name, *(column[name] for column in columns)) for name in columns[0]]
    lines += ["", "## A batch of evaluation pictures, by the clock on the wall", ""]
    lines += table_head("threads", "clothing10, ms a picture", "2048x1536, ms a picture")
    lines += threads(assets / "checkpoints" / CHECKPOINTS[0], (files, large))
    lines += ["", "## Large pictures shrunk before they are varied", ""]
    lines += table_head("way to the shorter side", "ms", "mean difference", "99th percentile")
    lines += shrinking(large)
    lines += ["", *notes()]
    write_lines(TABLE, lines)


def file_of(image: dict) -> bytes:
    return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()


def mosaics(files: Sequence[bytes]) -> list[bytes]:
    """Returns JPEG files of 8x6 pictures each."""
    tiles = [to_rgb(file).resize((256, 256)) for file in files]
    generator = np.random.default_rng(0)
    results = []
    for _ in range(MOSAICS):
        mosaic, buffer = Image.new("RGB", (2048, 1536)), io.BytesIO()
        for place in range(48):
            mosaic.paste(tiles[int(generator.integers(len(tiles)))], (256 * (place % 8), 256 * (place // 8)))
        mosaic.save(buffer, format="JPEG", quality=90)
        results.append(buffer.getvalue())
    return results


def medians(
    cases: dict[str, Callable[[int], object]], count: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Returns milliseconds a call of each case, in turns; of the CPU unless another clock is given."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            start = clock()
            for number in range(count):
                case(number)
            taken[name].append((clock() - start) / count * 1000)
    return {name: statistics.median(values) for name, values in taken.items()}


def threads(checkpoint: Path, groups: Sequence[Sequence[bytes]]) -> list[str]:
    """Compares one thread with one for each core, as an evaluation on the CPU has them."""
    processor = load_checkpoint(str(checkpoint), label_names=["a", "b"]).image_processor
    transform = build_eval_transform(processor)

    def pixels(file: bytes) -> torch.Tensor:
        return transform(to_rgb(file))

    columns = []
    for group in groups:
        ways: dict[str, Callable[[int], object]] = {
            "1": lambda _, group=group: [pixels(file) for file in group],
            f"{available_cores()}, one for each core": lambda _, group=group: list(on_all_cores(pixels, group)),
        }
        batches = medians(ways, 1, time.perf_counter)
        columns.append({name: milliseconds / len(group) for name, milliseconds in batches.items()})
    return [table_row(name, *(f"{column[name]:.2f}" for column in columns)) for name in columns[0]]


def decoding(files: Sequence[bytes], large: Sequence[bytes]) -> list[str]:
    ways: dict[str, Callable[[bytes], np.ndarray]] = {
        "PIL": lambda file: np.asarray(Image.open(io.BytesIO(file)).convert("RGB")),
        "torchvision": lambda file: (
            decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8), ImageReadMode.RGB)
            .permute(1, 2, 0)
            .numpy()
        ),
    }
    if importlib.util.find_spec("simplejpeg"):
        import simplejpeg

        ways["simplejpeg"] = lambda file: simplejpeg.decode_jpeg(file, colorspace="RGB")
    times = []
    for group in (files, large):
        cases = {name: lambda number, way=way, group=group: way(group[number]) for name, way in ways.items()}
        times.append(medians(cases, len(group)))
    lines = []
    for name, way in ways.items():
        most = max(int(np.abs(way(f).astype(int) - ways["PIL"](f)).max()) for f in (*files, *large))
        words = "the same" if most == 0 else f"at most {most} levels off"
        lines.append(f"| {name} | {times[0][name]:.2f} | {times[1][name]:.1f} | {words} |")
    return lines


def visits(checkpoint: Path, dataset: str) -> dict[str, str]:
    """Measures a visit: as in transformers' example, decoded at each visit, and decoded once."""
    data = load_image_data(FinetuneConfig(model="none", dataset=dataset))
    processor = load_checkpoint(str(checkpoint), label_names=data.label_names).image_processor
    facts = processor_facts(processor)
    example = v2.Compose(
        [
            v2.RandomResizedCrop((facts.height, facts.width), scale=(0.6, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.1, 0.1, 0.1),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    with tempfile.TemporaryDirectory() as cache:
        made = {}
        for mode in ("off", "on"):
            config = FinetuneConfig(model="none", dataset=dataset, decoded_cache=mode, cache_dir=cache)
            made[mode] = decode_once(config, data, processor, POLICIES["light"], seed=0, visits=9)
        sets = {
            "torchvision's transforms, picture by picture": ImageClassificationDataset(data.train, example, seed=0),
            "ours, decoded at each visit": made["off"].train,
            "ours, decoded once": made["on"].train,
            "evaluation, decoded at each visit": made["off"].validation,
            "evaluation, decoded once": made["on"].validation,
        }
        cases = {name: lambda number, data=data: data[number * 7 % len(data)] for name, data in sets.items()}
        times = medians(cases, PICTURES)
        kept = made["on"].stores["train"]
        result = {name: f"{value:.2f}" for name, value in times.items()}
        wall = f"{kept['seconds']:.1f} s for {kept['pictures']} pictures, {kept['bytes'] / 1e6:.0f} MB"
        return result | {"making what is kept, once (wall clock)": wall}


def shrinking(large: Sequence[bytes]) -> list[str]:
    def shrunk(image: Image.Image, side: int, kind: Image.Resampling) -> Image.Image:
        scale = side / min(image.size)
        return image.resize((round(image.width * scale), round(image.height * scale)), kind)

    strong = needed_side(_Square, POLICIES["strong"])
    ways = {
        "none: the whole picture is decoded and cropped": lambda file: to_rgb(file),
        f"{SIDE}, bilinear": lambda file: shrunk(to_rgb(file), SIDE, Image.Resampling.BILINEAR),
        f"{SIDE}, bicubic": lambda file: shrunk(to_rgb(file), SIDE, Image.Resampling.BICUBIC),
        f"{SIDE}, Lanczos": lambda file: shrunk(to_rgb(file), SIDE, Image.Resampling.LANCZOS),
        f"{SIDE}, ours (scaled decoding, Lanczos), `light`": lambda file: training_picture(file, SIDE),
        f"{strong}, ours, `strong`": lambda file: training_picture(file, strong),
    }
    times = medians({name: lambda number, way=way: way(large[number]) for name, way in ways.items()}, len(large))
    whole = [seen(to_rgb(file)) for file in large]
    lines = []
    for name, way in ways.items():
        differences = np.abs(np.stack([seen(way(file)) for file in large]).astype(int) - np.stack(whole))
        high = np.percentile(differences, 99)
        lines.append(f"| {name} | {times[name]:.1f} | {differences.mean():.2f} | {high:.0f} |")
    return lines


class _Square:
    height = width = 224


def seen(image: Image.Image) -> np.ndarray:
    """Returns what crops of a picture show at 224x224."""
    crops = []
    for box in BOXES:
        edges = [share * length for share, length in zip(box, image.size * 2, strict=True)]
        crops.append(np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC, box=edges)))
    return np.stack(crops)


def notes() -> list[str]:
    versions = package_versions()
    return [
        f"CPU milliseconds a picture, one thread, where nothing else is said; medians of {ROUNDS} interleaved rounds "
        f"over {PICTURES} pictures of clothing10 (up to 256 px) and {MOSAICS} mosaics of them. Differences are levels "
        "of 255 at 224x224, bicubic, against the whole picture; mosaics are sharper than photographs of their size. "
        "torchvision's decoders are deprecated since torchvision 0.29. Pictures whose shorter side "
        "is within 1.25 of what is needed, as all of clothing10, are not changed at all.",
        "",
        f"Command: `python benchmarks/input.py`. torchvision {versions['torchvision']}, Pillow {versions['pillow']}. "
        f"{lab_note([made_here()])}",
    ]


if __name__ == "__main__":
    main()
