"""A tiny folder of pictures and a tiny checkpoint, for runs of the whole."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.models.families import build_tiny_checkpoint

CLASSES = {"dark": 20, "grey": 128, "light": 235}


def tiny_pictures(folder: Path, per_class: int = 8, splits: tuple[str, ...] = ("train", "validation", "test")) -> Path:
    """Writes pictures whose class is their brightness, different ones for each split."""
    generator = np.random.default_rng(0)
    for split in splits:
        for name, level in CLASSES.items():
            target = folder / split / name
            target.mkdir(parents=True)
            for index in range(per_class):
                pixels = np.clip(generator.normal(level, 12, (36, 36, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(target / f"{index}.png")
    return folder


def tiny_project(folder: Path, model_type: str = "vit") -> tuple[Path, Path]:
    """Returns the folders of a checkpoint and of pictures."""
    return build_tiny_checkpoint(folder / "checkpoint", model_type), tiny_pictures(folder / "pictures")


def train_words(folder: Path) -> list[str]:
    """Writes a tiny project and returns the command that trains on it, on the CPU and without trying its use."""
    torch.manual_seed(0)
    checkpoint, pictures = tiny_project(folder)
    words = ["train", "--model", str(checkpoint), "--dataset", str(pictures), "--use_cpu"]
    return [*words, "--disable_tqdm", "true", "--check_usage", "false"]
