"""The weight decay of a head on frozen features, by how many epochs its weights would take to fade.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/head_decay.py

Heads are trained for 6 and for 20 epochs on two lightly varied views of each training picture, with AdamW's usual
decay and with decays that follow from a number of epochs (`hf_transfer.training.head_decay`), and cross-validated on
training pictures (`benchmarks/cross_validation.py`): this chose the default. Writes
`benchmarks/results/head_decay.md`, and `head_decay.jsonl`; pairs that are in it are not measured again.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

from cross_validation import EPOCHS, RUNS, Table, frozen_pictures
from pipeline_runs import made_here, make_planned

from hf_transfer.training.head_decay import decay_of

RECORDS = Path(__file__).parent / "results" / "head_decay.jsonl"
TABLE = RECORDS.with_suffix(".md")
USUAL = 0.01
FADING = (None, 40.0, 20.0, 12.5, 8.0)
"""Epochs; `None` for AdamW's usual decay, whatever the rate and the number of steps."""


def measured(checkpoint_name: str, dataset: str) -> dict:
    """Returns what one network and data set gave: by epochs and decay, accuracies and losses of each fold and seed."""
    pictures = frozen_pictures(checkpoint_name, dataset, num_views=2)
    scores, decays = {}, {}
    for epochs in EPOCHS:
        for fading in FADING:
            name = f"{epochs} epochs, {fading}"
            decays[name] = USUAL if fading is None else decay_of(fading, pictures.rate, pictures.steps_per_epoch)
            scores[name] = pictures.scores(pictures.varied, epochs, decays[name])
            print(checkpoint_name, dataset, name, statistics.mean(score for score, _ in scores[name]), flush=True)
    return {"scores": scores, "decays": decays} | made_here()


def write_decays(records: Sequence[dict]) -> None:
    columns = {
        str(fading): f"decay {USUAL}" if fading is None else f"fading in {fading:g} epochs" for fading in FADING
    }
    Table(TABLE, "Weight decay of a head on frozen features", f"a decay of {USUAL}", columns).write(records)


def main() -> None:
    make_planned(__doc__ or "", RECORDS, ("checkpoint", "dataset"), RUNS, measured, write_decays)


if __name__ == "__main__":
    main()
