"""The first of a picture's kept views: varied as the others, or as evaluation sees it.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/first_view.py

Heads are trained in turns of epochs on two and on four views of each training picture, all of them varied lightly, or
the first one not, and cross-validated on training pictures (`benchmarks/cross_validation.py`): this chose the default.
Writes `benchmarks/results/first_view.md`, and `first_view.jsonl`; pairs that are in it are not measured again.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

from cross_validation import EPOCHS, RUNS, Table, frozen_pictures
from pipeline_runs import made_here, make_planned

from hf_transfer.training.head_decay import MEMORY, decay_of

RECORDS = Path(__file__).parent / "results" / "first_view.jsonl"
TABLE = RECORDS.with_suffix(".md")
WAYS = ("2 varied", "first of 2 not varied", "4 varied", "first of 4 not varied")


def measured(checkpoint_name: str, dataset: str) -> dict:
    """Returns what one network and data set gave: by epochs and views, accuracies and losses of each fold and seed."""
    pictures = frozen_pictures(checkpoint_name, dataset, num_views=4)
    still, varied = pictures.still, pictures.varied
    views = dict(zip(WAYS, (varied[:2], [still, varied[1]], varied, [still, *varied[1:]]), strict=True))
    decay = decay_of(MEMORY, pictures.rate, pictures.steps_per_epoch)
    scores = {}
    for epochs in EPOCHS:
        for way in WAYS:
            scores[f"{epochs} epochs, {way}"] = found = pictures.scores(views[way], epochs, decay)
            print(checkpoint_name, dataset, epochs, way, statistics.mean(score for score, _ in found), flush=True)
    return {"scores": scores} | made_here()


def write_views(records: Sequence[dict]) -> None:
    title = "The first of a picture's views, for a head on frozen features"
    Table(TABLE, title, "two varied views", {way: way for way in WAYS}).write(records)


def main() -> None:
    make_planned(__doc__ or "", RECORDS, ("checkpoint", "dataset"), RUNS, measured, write_views)


if __name__ == "__main__":
    main()
