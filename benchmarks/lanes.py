"""What it is worth that two batches are under way at once where frozen layers are computed once.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/lanes.py

A run of `finetune.py` for each checkpoint, some of whose training rows are filled again and again before its first
step: batch after batch, and two at once of half the size (`hf_transfer.training.prefix_fill`), in turns. The pictures
have been decoded before. Writes `benchmarks/results/lanes.md`.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from in_turns import Turns, in_turns
from pipeline_runs import lab_note, made_here

from hf_transfer.cli import run_command
from hf_transfer.training import prefix_fill
from hf_transfer.training.prefix_build import PrefixBuilder

TABLE = Path(__file__).parent / "results" / "lanes.md"
CHECKPOINTS = ("mobilenet_v1_0.25_128", "mobilenet_v1_0.5_160", "mobilenet_v2_1.0_224", "vit_tiny_patch16_224")
ROWS, TURNS = 512, 3


def main() -> None:
    assets = Path(os.environ["HF_TRANSFER_ASSETS"])
    columns = ("checkpoint", "strategy", "looks per second, batch after batch", "two at once", "ratio")
    lines = ["# Two batches at once where frozen layers are computed once", ""]
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for checkpoint in CHECKPOINTS:
        for strategy in ("feature-extraction", "partial"):
            turns = filled_in_turns(assets, checkpoint, strategy)
            rates = (f"{ROWS / seconds:.0f}" for seconds in turns.medians)
            lines.append(f"| {' | '.join([checkpoint, strategy, *rates, turns.times_as_fast()])} |")
    lines += [
        "",
        f"Looks at {ROWS} training pictures of clothing10 until their rows are written: medians of {TURNS} turns, and "
        f"the range of ratios. Command: `python benchmarks/lanes.py`. {lab_note([made_here()])}",
    ]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def filled_in_turns(assets: Path, checkpoint: str, strategy: str) -> Turns:
    """Returns the seconds of filling rows, batch after batch and two at once."""
    fill = PrefixBuilder._fill
    found: list[Turns] = []

    def filled(builder: PrefixBuilder, cut: Any, split: str, rows: int, folder: Path) -> None:
        def timed(side_by_side: bool) -> float:
            with mock.patch.object(prefix_fill, "LANES", 2 if side_by_side else 1):
                start = time.perf_counter()
                fill(builder, cut, split, ROWS, folder)
                return time.perf_counter() - start

        if split == "train":
            found.append(in_turns(timed, TURNS))

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(PrefixBuilder, "_fill", filled):
        words = ["--model", str(assets / "checkpoints" / checkpoint), "--strategy", strategy]
        words += ["--dataset", str(assets / "datasets" / "clothing10.tar"), "--num_train_epochs", "3"]
        words += ["--cache_dir", f"{folder}/cache", "--output_dir", f"{folder}/run"]
        if run_command("train", [*words, "--check_usage", "false", "--disable_tqdm", "true"]):
            raise SystemExit(f"{checkpoint}, {strategy}: the run failed.")
    return found[0]


if __name__ == "__main__":
    main()
