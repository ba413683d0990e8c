"""The epoch that is kept of a head on frozen features: by accuracy or loss on validation data, or a late one.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/best_epoch.py

Heads are trained as the pipeline does by default, on four fifths of the training pictures; the real validation split
chooses the epoch, and the last fifth judges it: this chose what `feature-extraction` keeps. The test split is not
looked at. Writes `benchmarks/results/best_epoch.md`, and `best_epoch.jsonl`; pairs that are in it are not measured
again.
"""

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from cross_validation import EPOCHS, FOLDS, RUNS, SEEDS, FrozenPictures, Score, Table, frozen_pictures, score_of
from frozen_features import features, logits_by_epoch
from frozen_head import load, usual_transforms
from pipeline_runs import made_here, make_planned

from hf_transfer.training.head_decay import MEMORY, decay_of
from hf_transfer.training.kept_epoch import standard_error

RECORDS = Path(__file__).parent / "results" / "best_epoch.jsonl"
TABLE = RECORDS.with_suffix(".md")
BY_ACCURACY, BY_LOSS, LAST_GOOD, LAST = WAYS = ("highest accuracy", "lowest loss", "last good", "last")


def validation_features(checkpoint_name: str, dataset: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns what the head sees of the validation pictures, and their labels."""
    checkpoint, data = load(Path(os.environ["HF_TRANSFER_ASSETS"]), checkpoint_name, dataset)
    unvaried, _ = usual_transforms(checkpoint, data)
    return features(checkpoint, data.validation, unvaried, None, 0), torch.tensor(data.validation["label"])


def kept(validation: Sequence[Score], num_images: int) -> dict[str, int]:
    """Returns which epoch each way keeps; of equal ones the first, as Trainer does."""
    epochs = range(len(validation))
    highest = max(accuracy for accuracy, _ in validation)
    enough = highest - standard_error(highest, num_images)
    return {
        BY_ACCURACY: max(epochs, key=lambda epoch: validation[epoch][0]),
        BY_LOSS: min(epochs, key=lambda epoch: validation[epoch][1]),
        LAST_GOOD: max(epoch for epoch in epochs if validation[epoch][0] >= enough),
        LAST: len(validation) - 1,
    }


def scores_of_one(
    pictures: FrozenPictures, validation: tuple[torch.Tensor, torch.Tensor], fold: int, seed: int, epochs: int
) -> dict[str, Score]:
    """Trains one head and returns how good the epoch is that each way keeps, on the pictures held out."""
    shown, answers = validation
    train, rest = pictures.folds[fold]
    views = [view[train] for view in (pictures.still, pictures.varied[1])]
    decay = decay_of(MEMORY, pictures.rate, pictures.steps_per_epoch)
    seen = torch.cat([shown, pictures.still[rest]])
    history = [
        (score_of(logits[: len(shown)], answers), score_of(logits[len(shown) :], pictures.labels[rest]))
        for logits in logits_by_epoch(views, pictures.labels[train], seen, seed, pictures.rate, epochs, decay)
    ]
    chosen = kept([on_validation for on_validation, _ in history], len(answers))
    return {way: history[epoch][1] for way, epoch in chosen.items()}


def measured(checkpoint_name: str, dataset: str) -> dict:
    """Returns what one network and data set gave: by epochs and way, accuracies and losses of each fold and seed."""
    pictures = frozen_pictures(checkpoint_name, dataset, num_views=2)
    validation = validation_features(checkpoint_name, dataset)
    scores = {}
    for epochs in EPOCHS:
        runs = [
            scores_of_one(pictures, validation, fold, seed, epochs) for fold in range(FOLDS) for seed in range(SEEDS)
        ]
        for way in WAYS:
            scores[f"{epochs} epochs, {way}"] = found = [run[way] for run in runs]
            print(checkpoint_name, dataset, epochs, way, statistics.mean(right for right, _ in found), flush=True)
    return {"scores": scores} | made_here()


def write_epochs(records: Sequence[dict]) -> None:
    title = "Which epoch of a head on frozen features is kept"
    usual = "the epoch with the highest validation accuracy"
    shown = ("highest validation accuracy", "lowest validation loss", "last within a standard error", "the last")
    Table(TABLE, title, usual, dict(zip(WAYS, shown, strict=True))).write(records)


def main() -> None:
    make_planned(__doc__ or "", RECORDS, ("checkpoint", "dataset"), RUNS, measured, write_epochs)


if __name__ == "__main__":
    main()
