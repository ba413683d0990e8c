"""What it is worth that padding and activations go along with convolutions where frozen layers are computed once.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/fused_layers.py

A run of `finetune.py` for each checkpoint, some of whose training rows are filled again and again before its first
step: with BatchNorm alone folded into convolutions, and with all that `hf_transfer.training.fused_layers` finds, in
turns. Writes `benchmarks/results/fused_layers.md`.
"""

import dataclasses
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

from filling import ROWS, TURNS, filled_in_turns
from pipeline_runs import lab_note, made_here
from written_table import table_head, table_row, write_lines

from hf_transfer.training.fused_layers import Fusions
from hf_transfer.training.prefix_build import PrefixBuilder

TABLE = Path(__file__).parent / "results" / "fused_layers.md"
CHECKPOINTS = ("mobilenet_v1_0.25_128", "mobilenet_v1_0.5_160", "mobilenet_v2_1.0_224")


def main() -> None:
    assets = Path(os.environ["HF_TRANSFER_ASSETS"])
    columns = ("checkpoint", "strategy", "looks per second, norms folded", "padding and activations too", "ratio")
    lines = ["# Layers computed in one go", "", *table_head(*columns)]
    for checkpoint in CHECKPOINTS:
        for strategy in ("feature-extraction", "partial"):
            turns = filled_in_turns(assets, checkpoint, strategy, way)
            rates = (f"{ROWS / seconds:.0f}" for seconds in turns.medians)
            lines.append(table_row(checkpoint, strategy, *rates, turns.times_as_fast()))
    lines += [
        "",
        f"Looks at {ROWS} training pictures of clothing10 until their rows are written, in float32, two batches at "
        f"once: medians of {TURNS} turns, and the range of ratios. Command: `python benchmarks/fused_layers.py`. "
        f"{lab_note([made_here()])}",
    ]
    write_lines(TABLE, lines)


def way(everything: bool) -> AbstractContextManager[Any]:
    """Makes the context in which norms alone are folded, or all goes along that may."""
    find = PrefixBuilder._layers_to_fuse

    def norms_alone(builder: PrefixBuilder, cut: Any) -> Fusions:
        return dataclasses.replace(find(builder, cut), activations=(), padded=())

    return nullcontext() if everything else mock.patch.object(PrefixBuilder, "_layers_to_fuse", norms_alone)


if __name__ == "__main__":
    main()
