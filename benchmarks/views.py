"""How many augmented views of each picture a head on frozen features needs, and whether to solve it or to step.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/views.py

Eight views of each training picture with light variation, and one without any, go through the frozen network once.
Heads are trained as the pipeline does, for 6 and for 20 epochs in which the views repeat, or solved as `--head_solver
lbfgs` does, the strength chosen on the same validation data; each seed has other views of the eight. Judged by the
best accuracy on the validation split: this chose the defaults of `--cache_views` and `--head_solver`. Writes
`benchmarks/results/views.md`, and `views.jsonl` for `benchmarks/views_figure.py`; networks and data sets that are in
it are not measured again.
"""

import os
from pathlib import Path

import torch
from frozen_features import best_accuracy, features
from frozen_head import load, usual_transforms
from pipeline_runs import add_record, lab_note, made_here, read_records, spread
from torch.nn.functional import cross_entropy
from written_table import table_head, table_row, write_lines

from hf_transfer.training.head_rate import LOGIT_STEP
from hf_transfer.training.head_solver import solve_head

RECORDS = Path(__file__).parent / "results" / "views.jsonl"
TABLE = RECORDS.with_suffix(".md")
RUNS = (
    ("mobilenet_v1_0.25_128", "clothing10"),
    ("mobilenet_v1_0.5_160", "clothing10"),
    ("mobilenet_v1_0.5_160", "rbc12"),
    ("vit_tiny_patch16_224", "clothing10"),
)
MOST, SEEDS = 8, 5
SOLVED_SEEDS = 2
"""Solving takes longer the more rows there are; eight views are not solved."""
NOT_VARIED, SOLVED = "1, not varied", "solved by L-BFGS"
NUMBERS = (1, 2, 4, 8)
EPOCHS = (6, 20)


def stepped(views: list[torch.Tensor], labels: torch.Tensor, held_out: tuple, seed: int, epochs: int) -> float:
    """Returns the best validation accuracy of a head trained by AdamW."""
    return best_accuracy(views, labels, held_out, seed, LOGIT_STEP / float(views[0].abs().sum(1).mean()), epochs)


def solved(views: list[torch.Tensor], labels: torch.Tensor, held_out: tuple) -> float:
    """Returns the validation accuracy of a head as `--head_solver lbfgs` solves for it."""

    def logits(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return held_out[0] @ weight.T + bias

    def accuracy(weight: torch.Tensor, bias: torch.Tensor) -> float:
        return (logits(weight, bias).argmax(1) == held_out[1]).float().mean().item()

    def loss(weight: torch.Tensor, bias: torch.Tensor) -> float:
        return cross_entropy(logits(weight, bias), held_out[1]).item()

    repeated, classes = labels.repeat(len(views)), int(labels.max()) + 1
    return solve_head(torch.cat(views), repeated, len(views), classes, accuracy, loss=loss).score


def chosen(views: list[torch.Tensor], number: int, seed: int) -> list[torch.Tensor]:
    """Returns some of the views, others for each seed."""
    generator = torch.Generator().manual_seed(seed)
    return [views[index] for index in torch.randperm(len(views), generator=generator)[:number].tolist()]


def measured(assets: Path, checkpoint_name: str, dataset: str) -> list[dict]:
    """Returns the scores of one network and data set, a record for each number of views."""
    checkpoint, data = load(assets, checkpoint_name, dataset)
    unvaried, varied = usual_transforms(checkpoint, data)
    held_out = (
        features(checkpoint, data.validation, unvaried, None, 0),
        torch.tensor(data.validation["label"]),
    )
    labels = torch.tensor(data.train["label"])
    still = [features(checkpoint, data.train, unvaried, None, 0)]
    views = [features(checkpoint, data.train, varied, 0, view) for view in range(MOST)]
    found = []
    for name, sets in (
        (NOT_VARIED, [still] * SEEDS),
        *((str(number), [chosen(views, number, seed) for seed in range(SEEDS)]) for number in NUMBERS),
    ):
        scores = {
            f"{epochs} epochs": [stepped(one, labels, held_out, seed, epochs) for seed, one in enumerate(sets)]
            for epochs in EPOCHS
        }
        if name != str(MOST):
            different = sets[:1] if name == NOT_VARIED else sets[:SOLVED_SEEDS]
            scores[SOLVED] = [solved(one, labels, held_out) for one in different]
        found.append({"checkpoint": checkpoint_name, "dataset": dataset, "views": name, "scores": scores})
        print(found[-1], flush=True)
    return found


def main() -> None:
    assets = Path(os.environ["HF_TRANSFER_ASSETS"])
    done = {(record["checkpoint"], record["dataset"]) for record in read_records(RECORDS)}
    facts = made_here()
    for run in RUNS:
        for record in [] if run in done else measured(assets, *run):
            add_record(RECORDS, record | facts)
        write_table(read_records(RECORDS))


def write_table(records: list[dict]) -> None:
    """Writes the rows so far, with the lab note."""
    ways = [*(f"{epochs} epochs" for epochs in EPOCHS), SOLVED]
    lines = ["# Views of each picture, for a head on frozen features", ""]
    lines += ["Command: `HF_TRANSFER_ASSETS=path/to/assets python benchmarks/views.py`. Best accuracy on validation"]
    lines += [f"data, mean and standard deviation of {SEEDS} seeds.", ""]
    lines += table_head("checkpoint", "data set", "views", *ways)
    for record in records:
        cells = [spread(record["scores"][way]) if way in record["scores"] else "" for way in ways]
        lines.append(table_row(record["checkpoint"], record["dataset"], str(record["views"]), *cells))
    pairs = {(record["checkpoint"], record["dataset"]) for record in records}
    lines += ["", f"{len(pairs)} of {len(RUNS)} planned pairs are in the table. {lab_note(records)}"]
    write_lines(TABLE, lines)


if __name__ == "__main__":
    main()
