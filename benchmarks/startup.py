"""From the start of a process to the first training step, against a bare script that only loads the model.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/startup.py

Starts all of them in turns. The bare script imports torch and transformers and loads the model; ours is the command of
a user, ended by a callback where Trainer begins its first step. CPU seconds are user and system time of the process;
other than the wall clock they hardly depend on what else the machine does. Writes `benchmarks/results/startup.md`.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline_runs import lab_note, made_here
from written_table import table_head, write_lines

TABLE = Path(__file__).parent / "results" / "startup.md"
ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT, DATASET, ROUNDS = "vit_tiny_patch16_224", "clothing10", 3
BARE = """
import sys, torch, transformers
transformers.AutoModelForImageClassification.from_pretrained(sys.argv[1])
"""
# DefaultFlowCallback is the one that every Trainer has; our own modules are not imported before the command does.
OURS = """
import os, sys
from hf_transfer.cli import run_command
def stop(*args, **kwargs):
    sys.stdout.flush()
    os._exit(0)
def watch(event, args):
    if event == "import" and args[0] == "hf_transfer.training.session":
        from transformers.trainer_callback import DefaultFlowCallback
        DefaultFlowCallback.on_step_begin = stop
sys.addaudithook(watch)
sys.exit(run_command("train", sys.argv[1:]))
"""


def main() -> None:
    assets = Path(os.environ["HF_TRANSFER_ASSETS"])
    model = str(assets / "checkpoints" / CHECKPOINT)
    with tempfile.TemporaryDirectory() as folder:
        warm = [OURS, "--model", model, "--dataset", str(assets / "datasets" / f"{DATASET}.tar"), "--strategy", "full"]
        warm += ["--output_dir", f"{folder}/run", "--disable_tqdm", "true", "--cache_dir", f"{folder}/warm"]
        cold = [*warm[:-1], f"{folder}/cold"]
        cases = {
            "bare: torch, transformers and the model": [BARE, model],
            "ours, `--help`": [OURS, "--help"],
            "ours, pictures decoded by an earlier run, `--lr_head` given": [*warm, "--lr_head", "1e-3"],
            "ours, pictures decoded by an earlier run": warm,
            "ours, for the first time": cold,
        }
        measure(warm)  # unpacks the archive and decodes
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
        for _ in range(ROUNDS):
            for name, words in cases.items():
                shutil.rmtree(f"{folder}/cold", ignore_errors=True)
                taken[name].append(measure(words))
    first = median(taken["bare: torch, transformers and the model"], 1)
    lines = ["# From the start of the process to the first step", ""]
    lines += table_head("", "wall clock, s", "CPU, s", "CPU against bare")
    for name, times in taken.items():
        spread = f"{min(cpu for _, cpu in times):.1f} to {max(cpu for _, cpu in times):.1f}"
        cpu = median(times, 1)
        lines.append(f"| {name} | {median(times, 0):.1f} | {cpu:.1f} ({spread}) | {cpu / first:.2f} |")
    lines += [
        "",
        f"{CHECKPOINT} on {DATASET}; medians of {ROUNDS} interleaved starts, lowest and highest in brackets. Without "
        "`--lr_head` (or `--learning_rate`) 32 pictures go through the model, to measure the head's rate: that is "
        "work for the training's sake that the bare script does not do. Command: `python benchmarks/startup.py`. "
        f"{lab_note([made_here()])}",
    ]
    write_lines(TABLE, lines)
    print("\n".join(lines))


def measure(words: list[str]) -> tuple[float, float]:
    """Returns wall-clock and CPU seconds of a process."""
    before, start = os.times(), time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, cpu


def median(times: list[tuple[float, float]], index: int) -> float:
    return statistics.median(pair[index] for pair in times)


if __name__ == "__main__":
    main()
