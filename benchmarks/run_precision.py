"""Runs in which some layers stay frozen and others learn: what bfloat16 costs them, throughout and where they learn.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/run_precision.py [--only TEXT] [--table_only]

Whole runs of eight epochs on networks whose frozen features bfloat16 moves (`benchmarks/feature_precision.py`). The
saved model is judged in float32, as always, on the validation pictures: the test split is not looked at, since this
chose a default (`hf_transfer.training.precision`). Finished runs are kept in `benchmarks/results/run_precision.jsonl`
and not repeated; the table is `run_precision.md`.
"""

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from pipeline_runs import ROOT, lab_note, make_planned, run_pipeline, spread, with_error
from written_table import table_head, table_row, write_lines

RECORDS = ROOT / "benchmarks" / "results" / "run_precision.jsonl"
TABLE = RECORDS.with_suffix(".md")
FLOAT32, BFLOAT16, LEARNING = "float32", "bfloat16", "bfloat16 where it learns"
OPTIONS = {FLOAT32: ("--bf16", "false"), BFLOAT16: ("--bf16", "true"), LEARNING: ()}
"""What asks for a precision; the last is the choice of the run itself."""
PAIRS = (
    ("mobilenet_v1_0.25_128", "rbc12"),
    ("mobilenet_v1_0.5_160", "rbc12"),
    ("mobilenet_v1_0.25_128", "clothing10"),
    ("mobilenet_v1_0.5_160", "clothing10"),
    ("mobilenet_v2_1.0_224", "clothing10"),
)
STRATEGIES = ("partial", "progressive")
SEEDS = (42, 43, 44)
EPOCHS = 8

Run = tuple[str, str, str, int, str]
"""Strategy, checkpoint, data set, seed and precision."""


def planned_runs() -> list[Run]:
    """Lists the runs, all pairs with a seed after the other."""
    return [
        (strategy, *pair, seed, precision)
        for strategy in STRATEGIES
        for seed in SEEDS
        for pair in PAIRS
        for precision in OPTIONS
        # What thaws would change its precision with it, so that such runs do not choose it.
        if precision != LEARNING or strategy == "partial"
    ]


def run(strategy: str, checkpoint: str, dataset: str, seed: int, precision: str) -> dict:
    """Makes one run."""
    options = ["--strategy", strategy, "--num_train_epochs", str(EPOCHS), "--early_stopping_patience", "0"]
    options += ["--seed", str(seed), "--use_cpu", "true", "--cache_views", "2", "--check_usage", "false"]
    found = run_pipeline(Path(os.environ["HF_TRANSFER_ASSETS"]), checkpoint, dataset, [*options, *OPTIONS[precision]])
    if precision == LEARNING and precision not in found["computed_in"]:
        raise SystemExit(f"{checkpoint}, {dataset}: computed in {found['computed_in']}.")
    return {name: value for name, value in found.items() if name not in ("test", "interval", "majority")}


def both(records: Sequence[dict], strategy: str, pair: tuple[str, str], half: str) -> list[tuple[dict, dict]]:
    """Returns records in float32 and in another precision of the seeds that have both."""
    found = {
        (record["seed"], record["precision"]): record
        for record in records
        if (record["strategy"], record["checkpoint"], record["dataset"]) == (strategy, *pair)
    }
    ways = [(found.get((seed, FLOAT32)), found.get((seed, half))) for seed in SEEDS]
    return [(full, other) for full, other in ways if full and other]


def gains(pairs: Sequence[tuple[dict, dict]]) -> list[float]:
    """Returns by how many hundredths accuracy is higher in the other precision."""
    return [100 * (half["validation"]["accuracy"] - full["validation"]["accuracy"]) for full, half in pairs]


def row(words: Sequence[str], found: Sequence[tuple[dict, dict]]) -> str:
    """Returns a line of the table."""
    ways = list(zip(*found, strict=True))
    accuracies = [spread([record["validation"]["accuracy"] for record in records]) for records in ways]
    seconds = [statistics.median(record["training_seconds"] for record in records) for records in ways]
    cells = [*words, *accuracies, with_error(gains(found)), *(f"{value:.0f}" for value in seconds)]
    cells += [f"{seconds[1] / seconds[0]:.2f}"]
    return table_row(*cells, str(len(found)))


def write_table(records: list[dict]) -> None:
    """Writes the table of all finished runs."""
    lines = ["# Runs that train some layers, in float32 and in other precisions", ""]
    lines += ["Command: `HF_TRANSFER_ASSETS=path/to/assets python benchmarks/run_precision.py`. Validation accuracy"]
    lines += [
        f"of the saved model in float32 after {EPOCHS} epochs, two views of each picture kept, means and standard"
    ]
    lines += [
        "deviations of seeds; by how many hundredths it is higher in the other precision, with the standard error"
    ]
    lines += [
        "over seeds; median seconds of the training, with what is computed once. Ratios of seconds are of runs at"
    ]
    lines += ["different times, and of other code where several are named.", ""]
    tops = ["strategy", "precision", "checkpoint", "data set", "in float32", "in that one", "higher by"]
    tops += ["s, float32", "s, that one", "ratio", "seeds"]
    lines += table_head(*tops)
    for strategy in STRATEGIES:
        for half in (BFLOAT16, LEARNING):
            found = {pair: both(records, strategy, pair, half) for pair in PAIRS}
            lines += [row((strategy, half, *pair), pairs) for pair, pairs in found.items() if pairs]
            everything = [gain for pairs in found.values() for gain in gains(pairs)]
            if everything:
                cells = [strategy, half, "all", "", "", "", with_error(everything), "", "", ""]
                lines.append(table_row(*cells, f"{len(everything)} pairs"))
    lines += ["", f"{len(records)} of {len(planned_runs())} planned runs are in the table. {lab_note(records)}"]
    write_lines(TABLE, lines)


if __name__ == "__main__":
    names = ("strategy", "checkpoint", "dataset", "seed", "precision")
    make_planned(__doc__, RECORDS, names, planned_runs(), run, write_table)
