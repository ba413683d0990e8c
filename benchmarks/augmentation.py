"""Which augmentation a frozen backbone can stand: accuracy of a linear head on varied features.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/augmentation.py

Takes the features of two varied views of every training picture, trains a linear head on them (AdamW, six epochs, five
seeds) and reports its best accuracy on the validation split, whose pictures are never varied. The test split is not
looked at: the default policy was chosen by this. Writes `benchmarks/results/augmentation.md`.
"""

import dataclasses
import os
import statistics
from datetime import UTC, datetime
from pathlib import Path

import datasets
import torch
import torch.nn.functional as F

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.image_dataset import ImageClassificationDataset
from hf_transfer.data.loading import load_image_data
from hf_transfer.data.mixing import collate_images
from hf_transfer.data.transforms import POLICIES, build_eval_transform, build_train_transform
from hf_transfer.environment import hardware, package_versions
from hf_transfer.models.checkpoint import Checkpoint, load_checkpoint

TABLE = Path(__file__).parent / "results" / "augmentation.md"
CHECKPOINT, DATASET = "mobilenet_v1_0.5_160", "clothing10"
LIGHT = POLICIES["light"]
VARIANTS = {
    "none": POLICIES["none"],
    "light": LIGHT,
    "light, rotated by up to 5 degrees": dataclasses.replace(LIGHT, rotation=5.0),
    "light, crops of 35 % or more": dataclasses.replace(LIGHT, crop_scale=(0.35, 1.0)),
    "light, shapes up to 4:3 off": dataclasses.replace(LIGHT, crop_ratio=4 / 3),
    "strong, without mixing": dataclasses.replace(POLICIES["strong"], mixup=0.0, cutmix=0.0),
}
VIEWS, EPOCHS, BATCH, RATE, SEEDS = 2, 6, 32, 5e-3, 5


def features(checkpoint: Checkpoint, split: datasets.Dataset, transform, seed: int | None, view: int) -> torch.Tensor:
    """Returns what the head sees of every picture in one view, of shape `(num_images, num_features)`."""
    pictures = ImageClassificationDataset(split, transform, seed)
    seen: list[torch.Tensor] = []
    handle = checkpoint.model.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for start in range(0, len(split), 64):
            visits = range(view * len(split) + start, view * len(split) + min(start + 64, len(split)))
            pixels = collate_images([pictures[visit] for visit in visits])["pixel_values"]
            checkpoint.model(pixel_values=pixels.contiguous(memory_format=torch.channels_last))
    handle.remove()
    return torch.cat(seen)


def best_accuracy(views: list[torch.Tensor], labels: torch.Tensor, held_out: tuple, seed: int) -> float:
    """Trains a linear head and returns its best accuracy on held-out features."""
    torch.manual_seed(seed)
    head = torch.nn.Linear(views[0].shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE)
    steps = EPOCHS * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
    best = 0.0
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(labels)).split(BATCH):
            loss = F.cross_entropy(head(views[epoch % VIEWS][rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        best = max(best, (head(held_out[0]).argmax(1) == held_out[1]).float().mean().item())
    return best


def main() -> None:
    assets = Path(os.environ["HF_TRANSFER_ASSETS"])
    source = str(assets / "checkpoints" / CHECKPOINT)
    data = load_image_data(FinetuneConfig(model=source, dataset=str(assets / "datasets" / f"{DATASET}.tar")))
    checkpoint = load_checkpoint(source, label_names=data.label_names)
    checkpoint.model.eval().to(memory_format=torch.channels_last)
    processor = checkpoint.image_processor
    evaluation = features(checkpoint, data.validation, build_eval_transform(processor), None, 0)
    held_out = (evaluation, torch.tensor(data.validation["label"]))
    labels = torch.tensor(data.train["label"])
    lines = ["# Augmentation for a frozen backbone", ""]
    lines += ["| training pictures | validation accuracy |", "|---|---|"]
    for name, settings in VARIANTS.items():
        transform = build_train_transform(processor, settings)
        views = [features(checkpoint, data.train, transform, 0, view) for view in range(VIEWS)]
        scores = [best_accuracy(views, labels, held_out, seed) for seed in range(SEEDS)]
        lines.append(f"| {name} | {statistics.mean(scores):.3f} +- {statistics.stdev(scores):.3f} |")
        print(lines[-1], flush=True)
    versions, machine = package_versions(), hardware(1)
    lines += [
        "",
        f"{CHECKPOINT} on {DATASET}, {len(held_out[1])} validation pictures, {SEEDS} seeds of the head; one picture "
        f"is {1 / len(held_out[1]):.3f}. Command: `python benchmarks/augmentation.py`. Hardware: "
        f"{machine['processor']}. torch {versions['torch']}, transformers {versions['transformers']}. "
        f"Date: {datetime.now(UTC):%Y-%m-%d}.",
    ]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
