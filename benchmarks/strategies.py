"""Compares ways of fine-tuning under one budget: flat rates, layer decay, progressive unfreezing, probe first.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/strategies.py [--only TEXT] [--table_only]

On clothing10 and rbc12: bccd3 is nearly trivial, and tells no two ways apart. Every way has three epochs, three seeds
(the transformer, whose runs take ten times as long, has one) and its default settings but for those named. Validation
accuracy is what defaults may be chosen by; test accuracy is shown beside it. Finished runs are kept in
`benchmarks/results/strategies.jsonl` and not repeated, so that the script can be stopped and started again; the table
is `benchmarks/results/strategies.md`.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline_runs import ROOT, lab_note, make_planned, run_pipeline, spread
from written_table import table_head, write_lines

RECORDS = ROOT / "benchmarks" / "results" / "strategies.jsonl"
TABLE = RECORDS.with_suffix(".md")
EPOCHS = ["--num_train_epochs", "3"]
WAYS = {
    "flat rate": ["--strategy", "full"],
    "layer decay 0.9": ["--strategy", "full", "--layer_decay", "0.9"],
    "layer decay 0.75": ["--strategy", "full", "--layer_decay", "0.75"],
    "progressive": ["--strategy", "progressive"],
    "progressive, layer decay 0.75": ["--strategy", "progressive", "--layer_decay", "0.75"],
    "probe first (lp-ft)": ["--strategy", "lp-ft", "--head_solver", "sgd"],
    "solved first (lp-ft)": ["--strategy", "lp-ft", "--head_solver", "lbfgs"],
    "partial": ["--strategy", "partial"],
}
PAIRS = (
    ("mobilenet_v1_0.25_128", "clothing10"),
    ("mobilenet_v1_0.25_128", "rbc12"),
    ("vit_tiny_patch16_224", "clothing10"),
)
MAIN_WAYS = ("flat rate", "layer decay 0.75", "progressive", "progressive, layer decay 0.75")
"""For the transformer, whose runs take ten times as long."""
SEEDS = {"mobilenet_v1_0.25_128": (42, 43, 44), "vit_tiny_patch16_224": (42,)}


def planned_runs() -> list[tuple[str, str, str, int]]:
    """Lists checkpoint, data set, way and seed of each run, cheap ones first."""
    return [(*pair, way, seed) for pair in PAIRS for seed in SEEDS[pair[0]] for way in ways_of(pair[0])]


def ways_of(checkpoint: str) -> Sequence[str]:
    """Returns the ways that a checkpoint is fine-tuned in."""
    return tuple(WAYS) if checkpoint.startswith("mobilenet") else MAIN_WAYS


def write_table(records: list[dict]) -> None:
    """Writes the table of all finished runs."""
    lines = ["# Ways of fine-tuning under one budget", ""]
    lines += ["Command: `HF_TRANSFER_ASSETS=path/to/assets python benchmarks/strategies.py`. Three epochs each."]
    lines += ["", *table_head("data set", "checkpoint", "way", "validation accuracy", "test accuracy", "seeds")]
    for checkpoint, dataset in PAIRS:
        for way in WAYS:
            found = [r for r in records if (r["checkpoint"], r["dataset"], r["way"]) == (checkpoint, dataset, way)]
            if found:
                validation = spread([r["validation"]["accuracy"] for r in found])
                test = spread([r["test"]["accuracy"] for r in found])
                lines.append(f"| {dataset} | {checkpoint} | {way} | {validation} | {test} | {len(found)} |")
    lines += ["", f"{len(records)} of {len(planned_runs())} planned runs are in the table. {lab_note(records)}"]
    write_lines(TABLE, lines)


def run(checkpoint: str, dataset: str, way: str, seed: int) -> dict:
    """Runs one way of fine-tuning."""
    options = [*WAYS[way], *EPOCHS, "--seed", str(seed)]
    return run_pipeline(Path(os.environ["HF_TRANSFER_ASSETS"]), checkpoint, dataset, options)


if __name__ == "__main__":
    make_planned(__doc__, RECORDS, ("checkpoint", "dataset", "way", "seed"), planned_runs(), run, write_table)
