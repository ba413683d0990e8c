"""Rows of what enters the learning layers, computed again and again within one run, in two ways.

Knows how a run is brought to the point where it computes them. Does not know in what the two ways differ.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

from in_turns import Turns, in_turns

from hf_transfer.cli import run_command
from hf_transfer.training.prefix_build import PrefixBuilder

ROWS, TURNS = 512, 3


def filled_in_turns(
    assets: Path, checkpoint: str, strategy: str, way: Callable[[bool], AbstractContextManager[Any]]
) -> Turns:
    """Returns the seconds of filling rows of training pictures of clothing10, which have been decoded before.

    Args:
        assets (`Path`):
            Checkpoints and data sets.
        checkpoint, strategy (`str`):
            Of the run.
        way (`Callable`):
            Makes the context of the usual way, or (`True`) of the other.
    """
    fill = PrefixBuilder._fill
    found: list[Turns] = []

    def filled(builder: PrefixBuilder, cut: Any, split: str, rows: int, folder: Path) -> None:
        def timed(other: bool) -> float:
            with way(other):
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
