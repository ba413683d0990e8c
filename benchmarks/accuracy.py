"""Fine-tunes every shared checkpoint on every shared data set, with default settings, and tabulates the accuracy.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/accuracy.py [--only TEXT] [--table_only]

Each run is `finetune.py --model ... --dataset ... --strategy ...` in a process of its own, one after the other, cheap
ones first. Finished runs are kept in `benchmarks/results/accuracy.jsonl` and not repeated, so that the script can be
stopped and started again, and two processes with different `--only` may share the work; the table is
`benchmarks/results/accuracy.md`. From-scratch runs have the budget of full fine-tuning.
"""

import os
from pathlib import Path

from pipeline_runs import ROOT, UNRECORDED, lab_note, make_planned, run_pipeline
from written_table import table_head, write_lines

RECORDS = ROOT / "benchmarks" / "results" / "accuracy.jsonl"
TABLE = RECORDS.with_suffix(".md")
COLUMNS = (
    "data set",
    "checkpoint",
    "strategy",
    "test accuracy",
    "balanced accuracy",
    "majority class",
    "epochs",
    "seconds",
    "code",
)
CHECKPOINTS = (
    "mobilenet_v1_0.25_128",
    "mobilenet_v1_0.5_160",
    "vit_tiny_patch16_224",
    "timm_vit_tiny_patch16_224",
    "mobilenet_v2_1.0_224",
)
DATASETS = ("clothing10", "bccd3", "rbc12")
STRATEGIES = ("feature-extraction", "full", "scratch")


def planned_runs() -> list[tuple[str, str, str]]:
    """Lists checkpoint, data set and strategy of each run.

    There is no from-scratch run on bccd3, which is a smoke test, nor for the timm twin of vit_tiny, the same network.
    """
    return [
        (checkpoint, dataset, strategy)
        for dataset in DATASETS
        for checkpoint in CHECKPOINTS
        for strategy in STRATEGIES
        if strategy != "scratch" or (dataset != "bccd3" and not checkpoint.startswith("timm_"))
    ]


def run(checkpoint: str, dataset: str, strategy: str) -> dict:
    """Runs one fine-tuning with default settings."""
    return run_pipeline(Path(os.environ["HF_TRANSFER_ASSETS"]), checkpoint, dataset, ["--strategy", strategy])


def write_table(records: list[dict]) -> None:
    """Writes the table of all finished runs."""
    lines = [
        "# Accuracy with default settings",
        "",
        "Command: `HF_TRANSFER_ASSETS=path/to/assets python benchmarks/accuracy.py`. One run each, seed 42, every "
        "default. Test accuracy on the model as reloaded from its files; in brackets the 95 % Wilson interval.",
        "",
        *table_head(*COLUMNS),
    ]
    order = {run: number for number, run in enumerate(planned_runs())}
    for r in sorted(records, key=lambda r: order[(r["checkpoint"], r["dataset"], r["strategy"])]):
        low, high = r["interval"]
        lines.append(
            f"| {r['dataset']} | {r['checkpoint']} | {r['strategy']} | {r['test']['accuracy']:.3f} ({low:.3f} to "
            f"{high:.3f}) | {r['test']['balanced_accuracy']:.3f} | {r['majority']:.3f} | {r['epochs']:g} | "
            f"{r['seconds']:.0f} | {r.get('code', UNRECORDED)} |"
        )
    lines += ["", f"{len(records)} of {len(order)} planned runs are in the table. {lab_note(records)}"]
    lines += ["Seconds are from process start to the last file, on a machine that other work shared: not a benchmark."]
    write_lines(TABLE, lines)


if __name__ == "__main__":
    make_planned(__doc__, RECORDS, ("checkpoint", "dataset", "strategy"), planned_runs(), run, write_table)
