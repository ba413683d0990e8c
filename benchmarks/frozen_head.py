"""Two defaults of feature extraction, measured on frozen features: the head's rate, and proportions kept or not.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/frozen_head.py

Head rate: heads are trained at rates that are a multiple of one over the mean L1 norm of their features, on two views
of the training pictures with light variation, and judged on the validation split. Proportions: logistic regression on
features without variation, five-fold cross-validation over training and validation pictures together, twice, for the
checkpoint's own processor and for the same one cropping. The test split is not looked at: this chose the defaults.
Writes `benchmarks/results/head_rate.md` and `benchmarks/results/proportions.md`.
"""

import os
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from frozen_features import best_accuracy, features
from pipeline_runs import lab_note, made_here
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from written_table import table_head, table_row, write_lines

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.image_data import ImageData
from hf_transfer.data.loading import load_image_data
from hf_transfer.data.proportions import choose_proportions
from hf_transfer.data.transforms import POLICIES, build_eval_transform, build_train_transform
from hf_transfer.models.checkpoint import Checkpoint, load_checkpoint

RESULTS = Path(__file__).parent / "results"
RUNS = (
    ("mobilenet_v1_0.25_128", "clothing10"),
    ("mobilenet_v1_0.5_160", "clothing10"),
    ("mobilenet_v2_1.0_224", "clothing10"),
    ("vit_tiny_patch16_224", "clothing10"),
    ("mobilenet_v1_0.5_160", "rbc12"),
)
SQUEEZING = "vit_tiny_patch16_224"
LOGIT_STEPS = (0.4, 0.7, 1.0, 1.5, 2.0, 3.0)
STRENGTHS = (0.003, 0.01, 0.03)
VIEWS, SEEDS, FOLDS = 2, 5, 5


def load(assets: Path, checkpoint_name: str, dataset: str) -> tuple[Checkpoint, ImageData]:
    """Loads one checkpoint and one data set."""
    source = str(assets / "checkpoints" / checkpoint_name)
    data = load_image_data(FinetuneConfig(model=source, dataset=str(assets / "datasets" / f"{dataset}.tar")))
    checkpoint = load_checkpoint(source, label_names=data.label_names)
    checkpoint.model.eval()
    return checkpoint, data


def usual_transforms(checkpoint: Checkpoint, data: ImageData) -> tuple[Callable, Callable]:
    """Returns the transforms of evaluation and of training pictures, as a run has them by default."""
    processor = choose_proportions(checkpoint.image_processor, data.train, "auto").image_processor
    return build_eval_transform(processor), build_train_transform(processor, POLICIES["light"])


def head_rate_row(assets: Path, checkpoint_name: str, dataset: str) -> str:
    """Returns the table row of one network and data set."""
    checkpoint, data = load(assets, checkpoint_name, dataset)
    unvaried, varied = usual_transforms(checkpoint, data)
    held_out = features(checkpoint, data.validation, unvaried, None, 0)
    views = [features(checkpoint, data.train, varied, 0, view) for view in range(VIEWS)]
    labels, answers = torch.tensor(data.train["label"]), torch.tensor(data.validation["label"])
    norm = float(views[0].abs().sum(1).mean())
    cells = []
    for step in LOGIT_STEPS:
        scores = [best_accuracy(views, labels, (held_out, answers), seed, step / norm) for seed in range(SEEDS)]
        cells.append(f"{statistics.mean(scores):.3f} +- {statistics.stdev(scores):.3f} ({step / norm:.1e})")
    return table_row(checkpoint_name, dataset, f"{norm:.0f}", *cells)


def proportions_rows(assets: Path) -> list[str]:
    """Returns a table row for the squeezing and for the cropping processor."""
    checkpoint, data = load(assets, SQUEEZING, "clothing10")
    labels = [*data.train["label"], *data.validation["label"]]
    rows = []
    for name, wanted in (("squeezed, as the checkpoint does", "checkpoint"), ("kept, edges cut", "keep")):
        processor = choose_proportions(checkpoint.image_processor, data.train, wanted).image_processor
        shown = replace(checkpoint, image_processor=processor)
        transform = build_eval_transform(processor)
        seen = torch.cat([features(shown, split, transform, None, 0) for split in (data.train, data.validation)])
        cells = []
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=2000)
            scores = [
                cross_val_score(model, seen.numpy(), labels, cv=StratifiedKFold(FOLDS, shuffle=True, random_state=r))
                for r in range(2)
            ]
            cells.append(f"{statistics.mean(float(score.mean()) for score in scores):.3f}")
        rows.append(table_row(name, *cells))
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    assets = Path(os.environ["HF_TRANSFER_ASSETS"])
    note = f"Command: `python benchmarks/frozen_head.py`. {lab_note([made_here()])}"
    lines = ["# Proportions of pictures for a frozen ViT", "", f"{SQUEEZING} on clothing10 (photos, mostly 3:4). "]
    lines[-1] += "Cross-validated accuracy of logistic regression by its strength C."
    lines += ["", *table_head("proportions", *(f"C = {c:g}" for c in STRENGTHS))]
    lines += [*proportions_rows(assets), "", note]
    write_lines(RESULTS / "proportions.md", lines)
    lines = ["# The head's learning rate on frozen features", ""]
    lines += [f"Best validation accuracy of a linear head, {SEEDS} seeds, by rate times the mean L1 norm of its "]
    lines[-1] += "features (the rate in brackets)."
    lines += ["", *table_head("checkpoint", "data set", "norm", *(f"{step:g}" for step in LOGIT_STEPS))]
    for checkpoint_name, dataset in RUNS:
        lines.append(head_rate_row(assets, checkpoint_name, dataset))
        print(lines[-1], flush=True)
    lines += ["", note]
    write_lines(RESULTS / "head_rate.md", lines)


if __name__ == "__main__":
    main()
