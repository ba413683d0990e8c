"""What it brings to let normalisation layers learn before a network is frozen: how long, and at which rate.

And of how many views of each picture the head learns afterwards.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/norms_first.py [--only TEXT] [--table_only]

Whole runs of `feature-extraction` of twenty epochs, without `--tune_norms` and with it. Validation accuracy is what
defaults may be chosen by; test accuracy is shown beside it. Finished runs are kept in
`benchmarks/results/norms_first.jsonl` and not repeated; the table is `norms_first.md`.
"""

import os
import tempfile
from pathlib import Path

from pipeline_runs import ROOT, lab_note, make_planned, run_pipeline, spread, with_error
from written_table import table_head, table_row, write_lines

RECORDS = ROOT / "benchmarks" / "results" / "norms_first.jsonl"
TABLE = RECORDS.with_suffix(".md")
COLUMNS = (
    "checkpoint",
    "data",
    "epochs",
    "rate",
    "views",
    "validation accuracy",
    "difference",
    "test accuracy",
    "difference",
    "seconds",
    "seeds",
)
NAMES = ("checkpoint", "dataset", "epochs_of_norms", "rate", "views", "seed")
NEVER = "never"
RATES = {"mobilenet_v1_0.5_160": ("0.003", "0.01", "0.03"), "vit_tiny_patch16_224": ("0.001", "0.003", "0.01")}
"""Below, at and above the default."""
DATASETS = (
    ("mobilenet_v1_0.5_160", "clothing10"),
    ("vit_tiny_patch16_224", "clothing10"),
    ("mobilenet_v1_0.5_160", "rbc12"),
)
SEEDS = (42, 43, 44)
SEEDS_OF_VIEWS = (*SEEDS, 45, 46)
"""Of runs that tell one view from two, and of those whose norms never learn."""


def planned_runs() -> list[tuple[str, str, str, str, int, int]]:
    """Lists checkpoint, data set, epochs in which norms learn, their rate, views and the seed of each run."""
    return [
        (*where, *how, seed)
        for seed in SEEDS_OF_VIEWS
        for where in DATASETS
        for how in settings_of(where[0])
        if seed in SEEDS or how[:2] in ((NEVER, NEVER), ("1", RATES[where[0]][1]))
    ]


def settings_of(checkpoint: str) -> list[tuple[str, str, int]]:
    """Lists epochs, rates and views that are tried on a checkpoint."""
    rates = RATES[checkpoint]
    rows = [(NEVER, NEVER, 2), *(("1", rate, 2) for rate in rates)]
    return [*rows, ("0.5", rates[1], 2), ("2", rates[1], 2), ("1", rates[1], 1)]


def run(checkpoint: str, dataset: str, length: str, rate: str, views: int, seed: int) -> dict:
    """Makes one run."""
    first = [] if length == NEVER else ["--tune_norms", length, "--lr_backbone", rate]
    words = ["--strategy", "feature-extraction", *first, "--num_train_epochs", "20", "--cache_views", str(views)]
    words += ["--early_stopping_patience", "0", "--seed", str(seed), "--check_usage", "false"]
    with tempfile.TemporaryDirectory() as cache:
        words += ["--cache_dir", cache]
        return run_pipeline(Path(os.environ["HF_TRANSFER_ASSETS"]), checkpoint, dataset, words)


def write_table(records: list[dict]) -> None:
    """Writes the table of all finished runs."""
    lines = ["# Normalisation layers that learn before a network is frozen", ""]
    lines += ["Command: `HF_TRANSFER_ASSETS=path/to/assets python benchmarks/norms_first.py`. `feature-extraction` of"]
    lines += ["twenty epochs, in the first of which scales and shifts of the normalisation layers learn as well;"]
    lines += ["differences in points to runs of that seed whose norms never learn, and their standard error; seconds"]
    lines += [
        "from the start to the last file, without a cache (of code fb45a2a and 166c886 with what an earlier run with"
    ]
    lines += ["the same network below its head may have left).", ""]
    lines += table_head(*COLUMNS)
    for where in DATASETS:
        for how in settings_of(where[0]):
            cells = _cells(records, where, how)
            lines += [table_row(*map(str, (*where, *how, *cells)))] if cells else []
    lines += ["", f"{len(records)} of {len(planned_runs())} planned runs are in the table. {lab_note(records)}"]
    write_lines(TABLE, lines)


def _cells(records: list[dict], where: tuple[str, str], how: tuple[str, str, int]) -> list[str]:
    found, plain = _by_seed(records, where, how), _by_seed(records, where, (NEVER, NEVER, 2))
    if not found:
        return []
    cells = []
    for split in ("validation", "test"):
        both = [seed for seed in found if seed in plain]
        gains = [100 * (found[seed][split]["accuracy"] - plain[seed][split]["accuracy"]) for seed in both]
        cells += [spread([record[split]["accuracy"] for record in found.values()])]
        cells += [with_error(gains) if gains and how[0] != NEVER else ""]
    seconds = sorted(record["seconds"] for record in found.values())[len(found) // 2]
    return [*cells, f"{seconds:.0f}", str(len(found))]


def _by_seed(records: list[dict], where: tuple[str, str], how: tuple[str, str, int]) -> dict[int, dict]:
    return {
        record["seed"]: record for record in records if tuple(record[name] for name in NAMES[:-1]) == (*where, *how)
    }


if __name__ == "__main__":
    make_planned(__doc__, RECORDS, NAMES, planned_runs(), run, write_table)
