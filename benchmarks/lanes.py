"""What it is worth that two batches are under way at once on a CPU.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/lanes.py

Where frozen layers are computed once: a run of `finetune.py` for each checkpoint, some of whose training rows are
filled again and again before its first step, batch after batch, and two at once of half the size
(`hf_transfer.lanes`), in turns. Where a model is evaluated: the test pictures, in turns likewise. Writes
`benchmarks/results/lanes.md`.
"""

import os
import tarfile
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

from filling import ROWS, TURNS, filled_in_turns
from in_turns import Turns, in_turns
from pipeline_runs import lab_note, made_here
from written_table import table_head, table_row, write_lines

from hf_transfer import lanes
from hf_transfer.evaluation.classifier import load_classifier
from hf_transfer.evaluation.evaluator import predict_logits
from hf_transfer.evaluation.prediction import find_pictures

TABLE = Path(__file__).parent / "results" / "lanes.md"
CHECKPOINTS = ("mobilenet_v1_0.25_128", "mobilenet_v1_0.5_160", "mobilenet_v2_1.0_224", "vit_tiny_patch16_224")


def main() -> None:
    assets = Path(os.environ["HF_TRANSFER_ASSETS"])
    columns = ("checkpoint", "what for", "pictures per second, batch after batch", "two at once", "ratio")
    lines = ["# Two batches at once", "", *table_head(*columns)]
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(assets / "datasets" / "clothing10.tar") as archive:
            archive.extractall(folder, filter="data")
        files = find_pictures([f"{folder}/clothing10/data/test"])
        for checkpoint in CHECKPOINTS:
            for strategy in ("feature-extraction", "partial"):
                turns = filled_in_turns(assets, checkpoint, strategy, way)
                lines.append(line(checkpoint, f"kept for {strategy}", ROWS, turns))
            turns = evaluated_in_turns(assets / "checkpoints" / checkpoint, files)
            lines.append(line(checkpoint, "evaluation", len(files), turns))
    lines += [
        "",
        f"Looks at {ROWS} training pictures of clothing10, decoded before, until their rows are written, and its "
        f"{len(files)} test pictures from their files to their logits: medians of {TURNS} turns, and the range of "
        f"ratios. Command: `python benchmarks/lanes.py`. {lab_note([made_here()])}",
    ]
    write_lines(TABLE, lines)


def evaluated_in_turns(checkpoint: Path, files: Sequence[Path]) -> Turns:
    """Returns the seconds of an evaluation, batch after batch and two at once."""
    classifier = load_classifier(checkpoint)

    def timed(two_at_once: bool) -> float:
        with way(two_at_once):
            start = time.perf_counter()
            predict_logits(classifier.model, classifier.image_processor, files)
            return time.perf_counter() - start

    return in_turns(timed, TURNS)


def line(checkpoint: str, what: str, pictures: int, turns: Turns) -> str:
    """Returns a line of the table."""
    rates = (f"{pictures / seconds:.0f}" for seconds in turns.medians)
    return table_row(checkpoint, what, *rates, turns.times_as_fast())


def way(two_at_once: bool) -> AbstractContextManager[Any]:
    """Makes the context in which one batch or two are under way."""
    return mock.patch.object(lanes, "LANES", 2 if two_at_once else 1)


if __name__ == "__main__":
    main()
