"""What every peer is asked, what it starts from, and what it leaves: the shared part of the `peer_*.py` scripts.

    python benchmarks/peer_NAME.py --data FOLDER --checkpoint DIR --task frozen --setting sensible --epochs 20
        --seed 42 --out DIR

A peer leaves `logits.npy`, the test predictions in the order of the list of files, and then `result.json` with the
seconds of its epochs. Knows checkpoints, pixels and clocks. Does not know any peer, and of ours only in which
precision a processor is faster, so that all are equal in this.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer_files import Files, PictureFiles
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from hf_transfer.training.cpu_precision import bfloat16_is_faster

LOGITS, RESULT = "logits.npy", "result.json"
TASKS = ("frozen", "full", "inference")
DEFAULTS, SENSIBLE, WHOLLY_FROZEN = "defaults", "sensible", "wholly-frozen"
SETTINGS = (DEFAULTS, SENSIBLE, WHOLLY_FROZEN)
"""The last is fastai's: `sensible`, and no weight of a frozen body learns."""
EVAL_BATCH = 64
SENSIBLE_BATCH = 32
GENTLE = {"scale": (0.6, 1.0), "ratio": (1 / 1.1, 1.1)}
"""Random crops as those of our `light`, which a frozen network tolerates best; torchvision's own go down to 8 %."""


@dataclass(frozen=True)
class Job:
    """One run of a peer."""

    data: Path
    checkpoint: Path
    task: str
    setting: str
    epochs: int
    seed: int
    out: Path


@dataclass(frozen=True)
class Pixels:
    """What a checkpoint's processor says about its pictures."""

    crop: int
    shorter_side: int
    mean: list[float]
    std: list[float]
    interpolation: InterpolationMode


class Clock:
    """Seconds of each epoch, training and validation apart."""

    def __init__(self):
        self.train_seconds: list[float] = []
        self.validation_seconds: list[float] = []

    @contextmanager
    def training(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.train_seconds.append(time.perf_counter() - start)

    @contextmanager
    def validation(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.validation_seconds.append(time.perf_counter() - start)


class Logits(nn.Module):
    """A classifier of transformers that takes pixels and returns logits, for training loops that expect that."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.network(pixel_values=pixel_values).logits


def read_job() -> Job:
    """Reads the command line of a peer."""
    parser = argparse.ArgumentParser()
    for name in ("data", "checkpoint", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--setting", choices=SETTINGS, default=SENSIBLE)
    parser.add_argument("--epochs", type=int, default=1, help="for --task inference: views of each training picture")
    parser.add_argument("--seed", type=int, default=42)
    return Job(**vars(parser.parse_args()))


def read_pixels(checkpoint: Path) -> Pixels:
    """Reads size, scale and resampling from a checkpoint's processor.

    Pictures keep their proportions on the way to the crop, also where the processor would squeeze them: frozen
    features are better so (`benchmarks/results/proportions.md`), and a peer is not to lose by it.
    """
    facts = json.loads((checkpoint / "preprocessor_config.json").read_text(encoding="utf-8"))
    crop = int(facts.get("crop_size", facts["size"]).get("height"))
    side = int(facts["size"].get("shortest_edge", crop))
    resampling = {2: InterpolationMode.BILINEAR, 3: InterpolationMode.BICUBIC}[facts["resample"]]
    return Pixels(crop, side, facts["image_mean"], facts["image_std"], resampling)


def train_transform(pixels: Pixels, setting: str) -> Callable:
    """Returns the transform of the documentation's example, its crops gentler and resampled well where sensible."""
    how: dict[str, Any] = {}
    if setting != DEFAULTS:
        how = GENTLE | {"interpolation": pixels.interpolation}
    steps = [transforms.RandomResizedCrop(pixels.crop, **how), transforms.RandomHorizontalFlip()]
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(pixels.mean, pixels.std)])


def eval_transform(pixels: Pixels, setting: str) -> Callable:
    """Returns the transform of validation and test pictures: the shorter side, then the centre."""
    how = {} if setting == DEFAULTS else {"interpolation": pixels.interpolation}
    steps = [transforms.Resize(pixels.shorter_side, **how), transforms.CenterCrop(pixels.crop)]
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(pixels.mean, pixels.std)])


def load_network(checkpoint: Path, num_labels: int | None = None) -> Any:
    """Loads a checkpoint of transformers, with a new head unless `num_labels` is left out."""
    from transformers import AutoModelForImageClassification

    if num_labels is None:
        return AutoModelForImageClassification.from_pretrained(checkpoint, dtype=torch.float32)
    return AutoModelForImageClassification.from_pretrained(
        checkpoint, num_labels=num_labels, ignore_mismatched_sizes=True, dtype=torch.float32
    )


def freeze_body(network: Any) -> None:
    """Freezes everything but the head, as transformers' documentation does."""
    for parameter in network.base_model.parameters():
        parameter.requires_grad = False


def has_batch_norm(network: nn.Module) -> bool:
    """Tells classic convolutional networks, which want a larger rate and another memory layout."""
    return any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def sensible_rate(network: nn.Module, task: str) -> float:
    """Returns a usual peak rate of AdamW: for a head on frozen features, or for a pretrained network."""
    if task == "frozen" or has_batch_norm(network):
        return 1e-3
    return 1e-4


def workers() -> int:
    """Returns the worker processes of a sensible setting: one for each core."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def eval_loader(files: Files, split: str, transform: Callable) -> DataLoader:
    """Returns the batches of a split in order."""
    return DataLoader(PictureFiles(files.rows[split], transform), EVAL_BATCH, num_workers=workers())


@torch.inference_mode()
def predict(model: nn.Module, batches: Any, memory_format: Any = torch.contiguous_format) -> np.ndarray:
    """Returns the logits of all pictures, in order."""
    model.eval()
    found = []
    for pixel_values, _ in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_faster()):
            found.append(model(pixel_values.contiguous(memory_format=memory_format)).float())
    return torch.cat(found).numpy()


def finish(job: Job, logits: np.ndarray, clock: Any, note: str = "", bf16: bool | None = None) -> None:
    """Writes the test predictions, where the parent's clock stops, and then the facts of the run.

    Args:
        job (`Job`):
            What was asked.
        logits (`np.ndarray` of shape `(num_pictures, num_labels)`):
            Or anything else whose largest number is at the predicted label.
        clock (`Any`):
            Has `train_seconds` and `validation_seconds`.
        note (`str`, *optional*):
            What a reader of the table should know.
        bf16 (`bool`, *optional*):
            Whether it trained in bfloat16; by default where the processor is faster in it.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    np.save(job.out / LOGITS, logits)
    used = bfloat16_is_faster() if bf16 is None else bf16
    facts = {
        "train_seconds": clock.train_seconds,
        "validation_seconds": clock.validation_seconds,
        "precision": "bfloat16" if used else "float32",
        "note": note,
    }
    (job.out / RESULT).write_text(json.dumps(facts), encoding="utf-8")
