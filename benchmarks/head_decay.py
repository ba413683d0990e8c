"""The weight decay of a head on frozen features, by how many epochs its weights would take to fade.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/head_decay.py

Two views of each training picture with light variation, and one without any, go through the frozen network once.
Heads are trained as the pipeline does, on four fifths of the pictures, for 6 and for 20 epochs, with AdamW's usual
decay and with decays that follow from a number of epochs (`hf_transfer.training.head_decay`), and judged on the last
fifth, not varied, after the last epoch: choosing the best one, as the pipeline does on validation data, would add more
noise than the decays differ by. Five folds and several seeds; neither the validation nor the test split is looked at:
this chose the default. Writes `benchmarks/results/head_decay.md`, and `head_decay.jsonl`; pairs that are in it are not
measured again.
"""

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from frozen_features import BATCH, features, logits_by_epoch
from frozen_head import load, usual_transforms
from pipeline_runs import lab_note, made_here, make_planned
from sklearn.model_selection import StratifiedKFold
from torch.nn.functional import cross_entropy

from hf_transfer.training.head_decay import decay_of
from hf_transfer.training.head_rate import LOGIT_STEP

RECORDS = Path(__file__).parent / "results" / "head_decay.jsonl"
TABLE = RECORDS.with_suffix(".md")
RUNS = (
    ("mobilenet_v1_0.25_128", "clothing10"),
    ("mobilenet_v1_0.5_160", "clothing10"),
    ("mobilenet_v2_1.0_224", "clothing10"),
    ("vit_tiny_patch16_224", "clothing10"),
    ("mobilenet_v1_0.25_128", "rbc12"),
    ("mobilenet_v1_0.5_160", "rbc12"),
)
USUAL = 0.01
FADING = (None, 40.0, 20.0, 12.5, 8.0)
"""Epochs; `None` for AdamW's usual decay, whatever the rate and the number of steps."""
EPOCHS, VIEWS, FOLDS, SEEDS = (6, 20), 2, 5, 3


def measured(checkpoint_name: str, dataset: str) -> dict:
    """Returns what one network and data set gave: by epochs and decay, accuracies and losses of each fold and seed."""
    checkpoint, data = load(Path(os.environ["HF_TRANSFER_ASSETS"]), checkpoint_name, dataset)
    unvaried, varied = usual_transforms(checkpoint, data)
    still = features(checkpoint, data.train, unvaried, None, 0)
    views = [features(checkpoint, data.train, varied, 0, view) for view in range(VIEWS)]
    labels = torch.tensor(data.train["label"])
    folds = [
        (torch.from_numpy(train), torch.from_numpy(rest))
        for train, rest in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels, labels)
    ]
    rate, steps = LOGIT_STEP / float(views[0].abs().sum(1).mean()), -(-len(folds[0][0]) // BATCH)
    scores: dict[str, list[tuple[float, float]]] = {}
    decays: dict[str, float] = {}
    for epochs in EPOCHS:
        for fading in FADING:
            name = f"{epochs} epochs, {fading}"
            decays[name] = USUAL if fading is None else decay_of(fading, rate, steps)
            scores[name] = [
                judged(
                    [view[train] for view in views], labels[train], (still[rest], labels[rest]), seed, epochs, rate,
                    decays[name],
                )
                for train, rest in folds
                for seed in range(SEEDS)
            ]  # fmt: skip
            print(checkpoint_name, dataset, name, statistics.mean(score for score, _ in scores[name]), flush=True)
    return {"scores": scores, "decays": decays} | made_here()


def judged(
    views: list[torch.Tensor],
    labels: torch.Tensor,
    held_out: tuple[torch.Tensor, torch.Tensor],
    seed: int,
    epochs: int,
    rate: float,
    weight_decay: float,
) -> tuple[float, float]:
    """Returns accuracy and loss on held-out pictures after the last epoch."""
    *_, logits = logits_by_epoch(views, labels, held_out[0], seed, rate, epochs, weight_decay)
    right = (logits.argmax(1) == held_out[1]).float().mean()
    return float(right), float(cross_entropy(logits, held_out[1]))


def write_table(records: Sequence[dict]) -> None:
    """Writes the rows so far, with the lab note."""
    lines = ["# Weight decay of a head on frozen features", ""]
    lines += ["Command: `HF_TRANSFER_ASSETS=path/to/assets python benchmarks/head_decay.py`. Cross-validated accuracy"]
    lines += [f"and loss on training pictures, {FOLDS} folds and {SEEDS} seeds; in brackets by how many hundredths"]
    lines += [f"accuracy is above that of a decay of {USUAL}, with the standard error over folds and seeds.", ""]
    shown = [f"decay {USUAL}" if fading is None else f"fading in {fading:g} epochs" for fading in FADING]
    lines += [f"| checkpoint | data set | epochs | {' | '.join(shown)} |", "|---|---|---|" + "---|" * len(FADING)]
    for epochs in EPOCHS:
        for record in records:
            lines.append(f"| {record['checkpoint']} | {record['dataset']} | {epochs} | {_cells(record, epochs)} |")
    lines += ["", f"{len(records)} of {len(RUNS)} planned pairs are in the table. {lab_note(records)}"]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cells(record: dict, epochs: int) -> str:
    usual, _ = zip(*record["scores"][f"{epochs} epochs, None"], strict=True)
    cells = []
    for fading in FADING:
        scores, losses = zip(*record["scores"][f"{epochs} epochs, {fading}"], strict=True)
        gains = [100 * (new - old) for new, old in zip(scores, usual, strict=True)]
        cells.append(f"{statistics.mean(scores):.4f}, {statistics.mean(losses):.3f}")
        if fading is not None:
            cells[-1] += f" ({statistics.mean(gains):+.2f} +- {statistics.stdev(gains) / len(gains) ** 0.5:.2f})"
    return " | ".join(cells)


def main() -> None:
    make_planned(__doc__ or "", RECORDS, ("checkpoint", "dataset"), RUNS, measured, write_table)


if __name__ == "__main__":
    main()
