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
from pathlib import Path

import torch
from frozen_features import best_accuracy, features
from pipeline_runs import lab_note, made_here
from written_table import table_head, write_lines

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.loading import load_image_data
from hf_transfer.data.transforms import POLICIES, build_eval_transform, build_train_transform
from hf_transfer.models.checkpoint import load_checkpoint

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
VIEWS, RATE, SEEDS = 2, 5e-3, 5


def main() -> None:
    assets = Path(os.environ["HF_TRANSFER_ASSETS"])
    source = str(assets / "checkpoints" / CHECKPOINT)
    data = load_image_data(FinetuneConfig(model=source, dataset=str(assets / "datasets" / f"{DATASET}.tar")))
    checkpoint = load_checkpoint(source, label_names=data.label_names)
    checkpoint.model.eval()
    processor = checkpoint.image_processor
    evaluation = features(checkpoint, data.validation, build_eval_transform(processor), None, 0)
    held_out = (evaluation, torch.tensor(data.validation["label"]))
    labels = torch.tensor(data.train["label"])
    lines = ["# Augmentation for a frozen backbone", ""]
    lines += table_head("training pictures", "validation accuracy")
    for name, settings in VARIANTS.items():
        transform = build_train_transform(processor, settings)
        views = [features(checkpoint, data.train, transform, 0, view) for view in range(VIEWS)]
        scores = [best_accuracy(views, labels, held_out, seed, RATE) for seed in range(SEEDS)]
        lines.append(f"| {name} | {statistics.mean(scores):.3f} +- {statistics.stdev(scores):.3f} |")
        print(lines[-1], flush=True)
    lines += [
        "",
        f"{CHECKPOINT} on {DATASET}, {len(held_out[1])} validation pictures, {SEEDS} seeds of the head; one picture "
        f"is {1 / len(held_out[1]):.3f}. Command: `python benchmarks/augmentation.py`. {lab_note([made_here()])}",
    ]
    write_lines(TABLE, lines)


if __name__ == "__main__":
    main()
