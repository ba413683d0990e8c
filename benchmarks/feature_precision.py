"""A head that learns on features in bfloat16 and is used on those in float32: what that costs, and how it is told.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/feature_precision.py

Heads are trained on features of a frozen network in float32 and in bfloat16, cross-validated on training pictures
(`benchmarks/cross_validation.py`), and judged on features in float32, as the pipeline judges a saved model; the last
column judges in bfloat16. Beside it stands how far features move (`hf_transfer.training.precision`), whose limit was
chosen from this. Writes `benchmarks/results/feature_precision.md`, and `feature_precision.jsonl`; pairs that are in it
are not measured again.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from cross_validation import EPOCHS, RUNS, Table, frozen_pictures
from pipeline_runs import made_here, make_planned

from hf_transfer.training.head_decay import MEMORY, decay_of
from hf_transfer.training.precision import moved_share

RECORDS = Path(__file__).parent / "results" / "feature_precision.jsonl"
TABLE = RECORDS.with_suffix(".md")
WAYS = ("float32", "bfloat16", "bfloat16, judged in it")
MOVED = "features move by"


def measured(checkpoint_name: str, dataset: str) -> dict:
    """Returns what one network and data set gave: by epochs and way, accuracies and losses of each fold and seed."""
    full = frozen_pictures(checkpoint_name, dataset, num_views=2)
    half = frozen_pictures(checkpoint_name, dataset, num_views=2, autocast=torch.bfloat16)
    decay = decay_of(MEMORY, full.rate, full.steps_per_epoch)
    ways = dict(zip(WAYS, ((full, full), (half, full), (half, half)), strict=True))
    scores = {}
    for epochs in EPOCHS:
        for way, (seen, judging) in ways.items():
            found = judging.scores([seen.still, seen.varied[1]], epochs, decay)
            scores[f"{epochs} epochs, {way}"] = found
            print(checkpoint_name, dataset, epochs, way, statistics.mean(score for score, _ in found), flush=True)
    moved = moved_share([full.still], [half.still]) or 0.0
    return {"scores": scores, MOVED: f"{100 * moved:.2g} %"} | made_here()


def write_precisions(records: Sequence[dict]) -> None:
    title = "A head on features in bfloat16, used in float32"
    Table(TABLE, title, "float32", {way: way for way in WAYS}, facts=[MOVED]).write(records)


def main() -> None:
    make_planned(__doc__ or "", RECORDS, ("checkpoint", "dataset"), RUNS, measured, write_precisions)


if __name__ == "__main__":
    main()
