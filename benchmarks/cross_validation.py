"""Heads on frozen features, judged on training pictures that were held out: what defaults are chosen by.

Shared by `head_decay.py`, `first_view.py`, `best_epoch.py` and `feature_precision.py`. The views of each
training picture go through the frozen network once. Heads are trained as the pipeline does, on four fifths of the
pictures, and judged on the last fifth, not varied; here after the last epoch: choosing the best one, as the pipeline
does on validation data, would add more noise than the settings differ by. Five folds and several seeds; neither the
validation nor the test split is looked at.
"""

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from frozen_features import BATCH, features, logits_by_epoch
from frozen_head import load, usual_transforms
from pipeline_runs import lab_note, with_error
from sklearn.model_selection import StratifiedKFold
from torch.nn.functional import cross_entropy
from written_table import table_head, table_row, write_lines

from hf_transfer.training.head_rate import LOGIT_STEP

RUNS = (
    ("mobilenet_v1_0.25_128", "clothing10"),
    ("mobilenet_v1_0.5_160", "clothing10"),
    ("mobilenet_v2_1.0_224", "clothing10"),
    ("vit_tiny_patch16_224", "clothing10"),
    ("mobilenet_v1_0.25_128", "rbc12"),
    ("mobilenet_v1_0.5_160", "rbc12"),
)
EPOCHS, FOLDS, SEEDS = (6, 20), 5, 3

Score = tuple[float, float]
"""Accuracy and loss."""
Scores = list[Score]
"""Of each fold and seed."""


@dataclass(frozen=True)
class FrozenPictures:
    """What the head sees of the training pictures, and how the pipeline would train it."""

    still: torch.Tensor
    """Features of shape `(num_images, num_features)`, not varied."""
    varied: list[torch.Tensor]
    """The same of each varied view."""
    labels: torch.Tensor
    folds: list[tuple[torch.Tensor, torch.Tensor]]
    """Rows to train on, and the rest."""
    rate: float
    steps_per_epoch: int

    def scores(self, views: list[torch.Tensor], epochs: int, weight_decay: float) -> Scores:
        """Returns what heads come to that are trained on these views."""
        return [
            self._judged(views, fold, seed, epochs, weight_decay) for fold in range(FOLDS) for seed in range(SEEDS)
        ]

    def _judged(self, views: list[torch.Tensor], fold: int, seed: int, epochs: int, weight_decay: float) -> Score:
        train, rest = self.folds[fold]
        shown = [view[train] for view in views]
        *_, logits = logits_by_epoch(
            shown, self.labels[train], self.still[rest], seed, self.rate, epochs, weight_decay
        )
        return score_of(logits, self.labels[rest])


def score_of(logits: torch.Tensor, labels: torch.Tensor) -> Score:
    """Returns accuracy and loss."""
    return float((logits.argmax(1) == labels).float().mean()), float(cross_entropy(logits, labels))


def frozen_pictures(
    checkpoint_name: str, dataset: str, num_views: int, autocast: torch.dtype | None = None
) -> FrozenPictures:
    """Puts the training pictures of a data set through a frozen network, in float32 if nothing else is said."""
    checkpoint, data = load(Path(os.environ["HF_TRANSFER_ASSETS"]), checkpoint_name, dataset)
    unvaried, varied = usual_transforms(checkpoint, data)
    views = [features(checkpoint, data.train, varied, 0, view, autocast) for view in range(num_views)]
    labels = torch.tensor(data.train["label"])
    folds = [
        (torch.from_numpy(train), torch.from_numpy(rest))
        for train, rest in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels, labels)
    ]
    return FrozenPictures(
        still=features(checkpoint, data.train, unvaried, None, 0, autocast),
        varied=views,
        labels=labels,
        folds=folds,
        rate=LOGIT_STEP / float(views[0].abs().sum(1).mean()),
        steps_per_epoch=-(-len(folds[0][0]) // BATCH),
    )


def cell(scores: Scores, usual: Scores | None = None) -> str:
    """Returns mean accuracy and loss; in brackets by how many hundredths accuracy is above the usual one's."""
    accuracies, losses = zip(*scores, strict=True)
    text = f"{statistics.mean(accuracies):.4f}, {statistics.mean(losses):.3f}"
    if usual is None:
        return text
    gains = [100 * (new - old) for (new, _), (old, _) in zip(scores, usual, strict=True)]
    return f"{text} ({with_error(gains)})"


@dataclass(frozen=True)
class Table:
    """A table of ways, each with accuracy and loss, to be held against the first of them."""

    path: Path
    """Named as its script."""
    title: str
    usual: str
    """What the first column stands for."""
    columns: Mapping[str, str]
    """What stands on top, by names in records, whose `scores` are by `{epochs} epochs, {name}`."""
    facts: Sequence[str] = ()
    """Names in records of what is shown of each pair, whatever the epochs."""

    def write(self, records: Sequence[dict]) -> None:
        """Writes the rows of all records and epochs, with the lab note."""
        lines = [f"# {self.title}", ""]
        command = f"HF_TRANSFER_ASSETS=path/to/assets python benchmarks/{self.path.stem}.py"
        lines += [f"Command: `{command}`. Cross-validated accuracy"]
        lines += [
            f"and loss on training pictures, {FOLDS} folds and {SEEDS} seeds; in brackets by how many hundredths"
        ]
        lines += [f"accuracy is above that of {self.usual}, with the standard error over folds and seeds.", ""]
        lines += table_head("checkpoint", "data set", *self.facts, "epochs", *self.columns.values())
        lines += [self._row(record, epochs) for epochs in EPOCHS for record in records]
        lines += [self._mean_row(records, epochs) for epochs in EPOCHS if records]
        lines += ["", f"{len(records)} of {len(RUNS)} planned pairs are in the table. {lab_note(records)}"]
        write_lines(self.path, lines)

    def _row(self, record: dict, epochs: int) -> str:
        first, *others = (record["scores"][f"{epochs} epochs, {column}"] for column in self.columns)
        facts = (record[name] for name in self.facts)
        cells = [record["checkpoint"], record["dataset"], *facts, str(epochs), cell(first)]
        return table_row(*cells, *(cell(other, first) for other in others))

    def _mean_row(self, records: Sequence[dict], epochs: int) -> str:
        first, *others = (_mean_accuracy(records, f"{epochs} epochs, {column}") for column in self.columns)
        cells = ["mean", "of all pairs", *("" for _ in self.facts), str(epochs), f"{first:.4f}"]
        return table_row(*cells, *(f"{mean:.4f} ({100 * (mean - first):+.2f})" for mean in others))


def _mean_accuracy(records: Sequence[dict], name: str) -> float:
    """Returns the mean over pairs of a network and a data set, each of which counts alike."""
    return statistics.mean(statistics.mean(score for score, _ in record["scores"][name]) for record in records)
