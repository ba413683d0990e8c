"""Measures what freezing saves: time of a step and memory, by strategy, beside the estimate printed before a run.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/freezing.py

Each figure comes from a process of its own, which trains on resident random pictures, so that neither decoding nor
another strategy is in it; the strategies take turns, and medians of the rounds are shown. Memory is what the process
had at its height beyond what it had when the training began: gradients, optimizer state and activations, with the
short-lived buffers that the estimate leaves out. The table is `benchmarks/results/freezing.md`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from written_table import table_head, write_lines

CHECKPOINTS = ("mobilenet_v1_0.5_160", "mobilenet_v2_1.0_224", "vit_tiny_patch16_224")
STRATEGIES = ("feature-extraction", "partial", "full")
ROUNDS = 3
BATCH = 32
STEPS = 6
TABLE = Path(__file__).resolve().parent / "results" / "freezing.md"


def measure(checkpoint: Path, strategy: str) -> dict[str, float]:
    """Trains for a few steps in this process; returns seconds a step and bytes."""
    import torch
    from transformers import TrainerCallback, TrainingArguments

    from hf_transfer.models.checkpoint import load_checkpoint
    from hf_transfer.models.execution_order import input_shape
    from hf_transfer.models.layer_groups import layer_groups
    from hf_transfer.training.memory import estimate_memory
    from hf_transfer.training.trainer import TransferTrainer

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self._began = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.seconds.append(time.perf_counter() - self._began)

    torch.manual_seed(0)
    loaded = load_checkpoint(str(checkpoint), label_names=[f"class {number}" for number in range(10)])
    shape = input_shape(loaded.model)
    pictures = torch.rand(BATCH, *shape)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = TransferTrainer(
            model=loaded.model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=BATCH,
                max_steps=STEPS,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                dataloader_pin_memory=False,
                logging_strategy="no",
            ),
            train_dataset=[{"pixel_values": picture, "labels": i % 10} for i, picture in enumerate(pictures)] * STEPS,
            strategy=strategy,
            groups=layer_groups(loaded.model),
            channels_last="mobilenet" in checkpoint.name,
            callbacks=[clock],
        )
        estimate = estimate_memory(trainer, shape)
        assert estimate is not None
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        trainer.train()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        # The first step makes the optimizer's state and the kernels' plans.
        "seconds": statistics.median(clock.seconds[1:]),
        "bytes": 1024 * (after - before),
        "estimate": estimate.total - estimate.weights,
    }


def measure_all(assets: Path) -> dict[tuple[str, str], list[dict[str, float]]]:
    """Measures every strategy in turn, each time in a new process."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for checkpoint in CHECKPOINTS:
        for _ in range(ROUNDS):
            for strategy in STRATEGIES:
                words = [sys.executable, __file__, "--measure", str(assets / "checkpoints" / checkpoint), strategy]
                done = subprocess.run(words, check=True, capture_output=True, text=True)
                result = json.loads(done.stdout.splitlines()[-1])
                found.setdefault((checkpoint, strategy), []).append(result)
                print(checkpoint, strategy, result, flush=True)
    return found


def write_table(found: dict[tuple[str, str], list[dict[str, float]]]) -> None:
    """Writes medians, and times as shares of the time of `full` in the same run."""
    import torch
    import transformers

    from hf_transfer.environment import hardware

    machine = hardware(1)
    lines = [
        "# What freezing saves",
        "",
        "Command: `HF_TRANSFER_ASSETS=path/to/assets python benchmarks/freezing.py`.",
    ]
    lines += [f"Training steps of {BATCH} resident pictures in float32; medians of {ROUNDS} processes each, in turn."]
    lines += ["No cache of frozen features is used.", ""]
    lines += table_head(
        "checkpoint", "strategy", "step, share of `full`", "lowest, highest", "memory, MB", "estimate, MB"
    )
    for checkpoint in CHECKPOINTS:
        whole = statistics.median(result["seconds"] for result in found[checkpoint, "full"])
        for strategy in STRATEGIES:
            results = found[checkpoint, strategy]
            shares = sorted(result["seconds"] / whole for result in results)
            memory, estimate = (statistics.median(result[key] for result in results) for key in ("bytes", "estimate"))
            lines.append(
                f"| {checkpoint} | {strategy} | {statistics.median(shares):.2f} | {shares[0]:.2f}, {shares[-1]:.2f} | "
                f"{memory / 1e6:.0f} | {estimate / 1e6:.0f} |"
            )
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    lines += ["", f"Hardware: {machine['processor']}, {machine['cores']} cores, {threads} thread(s). {versions}."]
    lines += [f"Date: {date.today().isoformat()}."]
    write_lines(TABLE, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", nargs=2, metavar=("CHECKPOINT", "STRATEGY"), help="measure one, and say it")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(Path(args.measure[0]), args.measure[1])))
    else:
        write_table(measure_all(Path(os.environ["HF_TRANSFER_ASSETS"])))


if __name__ == "__main__":
    main()
