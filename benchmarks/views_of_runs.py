"""How many augmented views of each picture `partial` and `progressive` need while layers are frozen.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/views_of_runs.py [--only TEXT] [--table_only]

Whole runs of twenty epochs that train the last quarter of the blocks, with 1, 2, 4 and 8 views of each picture, and
with a new one in each epoch (`--cache off`). Validation accuracy is what the default of `--cache_views` may be chosen
by; test accuracy is shown beside it. Finished runs are kept in `benchmarks/results/views_of_runs.jsonl` and not
repeated; the table is `views_of_runs.md`, the figure is made by `benchmarks/views_figure.py`.
"""

import os
from pathlib import Path

from peer_plan import last_quarter
from pipeline_runs import ROOT, lab_note, make_planned, run_pipeline, spread
from written_table import table_head, table_row, write_lines

RECORDS = ROOT / "benchmarks" / "results" / "views_of_runs.jsonl"
TABLE = RECORDS.with_suffix(".md")
DATASET = "clothing10"
EACH = "each epoch"
VIEWS = ("1", "2", "4", "8", EACH)
STRATEGIES = ("partial", "progressive")
SEEDS = {"mobilenet_v1_0.25_128": (42, 43, 44, 45, 46), "vit_tiny_patch16_224": (42,)}
"""One for the transformer, whose runs take minutes."""


def planned_runs() -> list[tuple[str, str, str, int]]:
    """Lists checkpoint, strategy, views and seed of each run, cheap ones first."""
    return [
        (checkpoint, strategy, views, seed)
        for checkpoint, seeds in SEEDS.items()
        for seed in seeds
        for strategy in STRATEGIES
        for views in VIEWS
    ]


def options_of(checkpoint: str, strategy: str, views: str, seed: int) -> list[str]:
    """Returns the options of a run."""
    kept = ["--cache", "off"] if views == EACH else ["--cache_views", views]
    words = ["--strategy", strategy, *last_quarter(checkpoint), *kept, "--num_train_epochs", "20"]
    return [*words, "--early_stopping_patience", "0", "--seed", str(seed), "--check_usage", "false"]


def write_table(records: list[dict]) -> None:
    """Writes the table of all finished runs."""
    lines = ["# Views of each picture, for strategies that train some of the backbone", ""]
    lines += ["Command: `HF_TRANSFER_ASSETS=path/to/assets python benchmarks/views_of_runs.py`. Twenty epochs on"]
    lines += [f"{DATASET}, the last quarter of the blocks and the head, seconds from start to last file.", ""]
    lines += table_head("checkpoint", "strategy", "views", "validation accuracy", "test accuracy", "seconds", "seeds")
    for checkpoint in SEEDS:
        for strategy in STRATEGIES:
            for views in VIEWS:
                run = (checkpoint, strategy, views)
                found = [r for r in records if (r["checkpoint"], r["strategy"], r["views"]) == run]
                if found:
                    cells = [spread([r[split]["accuracy"] for r in found]) for split in ("validation", "test")]
                    seconds = sorted(r["seconds"] for r in found)[len(found) // 2]
                    lines.append(table_row(*run, *cells, f"{seconds:.0f}", str(len(found))))
    lines += ["", f"{len(records)} of {len(planned_runs())} planned runs are in the table. {lab_note(records)}"]
    write_lines(TABLE, lines)


def run(checkpoint: str, strategy: str, views: str, seed: int) -> dict:
    """Makes one run."""
    options = options_of(checkpoint, strategy, views, seed)
    return run_pipeline(Path(os.environ["HF_TRANSFER_ASSETS"]), checkpoint, DATASET, options)


if __name__ == "__main__":
    make_planned(__doc__, RECORDS, ("checkpoint", "strategy", "views", "seed"), planned_runs(), run, write_table)
