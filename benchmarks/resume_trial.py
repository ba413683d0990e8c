"""Kills progressive runs at random steps, continues them, and compares the end with that of an uninterrupted run.

Usage:
    python benchmarks/resume_trial.py [--trials 20]

Each trial kills a tiny ViT's run (`tests/training/killed_run.py`: AdamW, cosine, dropout, early stopping, a thaw every
three steps, a checkpoint every two) with SIGKILL at a random step, or in the middle of a random checkpoint, and starts
the same command again. Weights, optimizer state, rates, patience, best record and history have to be the same, bit for
bit. As many trials with one process as with two. Writes `benchmarks/results/resume_trial.md`.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from pipeline_runs import lab_note, made_here
from safetensors.torch import load_file
from written_table import table_head, write_lines

from hf_transfer.environment import package_versions

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the run that is killed belongs to the tests
from tests.training.killed_run import command, surroundings  # noqa: E402

TABLE = ROOT / "benchmarks" / "results" / "resume_trial.md"
STEPS = 20
STRATEGY = "progressive"


def run(folder: Path, kill: int, where: str, processes: int) -> int:
    """Runs to the end, or to where it is killed; returns the exit code."""
    words = command(folder, STRATEGY, kill, where, processes)
    return subprocess.run(words, cwd=ROOT, env=surroundings(), capture_output=True, check=False).returncode


def ending(folder: Path) -> tuple[dict, dict]:
    """Returns what a run ended with."""
    return json.loads((folder / "result.json").read_text(encoding="utf-8")), load_file(folder / "result.safetensors")


def is_identical(one: tuple[dict, dict], other: tuple[dict, dict]) -> bool:
    """Tells whether two runs ended the same, bit for bit."""
    same_tensors = one[1].keys() == other[1].keys() and all(
        torch.equal(t, other[1][name]) for name, t in one[1].items()
    )
    return one[0] == other[0] and same_tensors


def trial(kill: int, where: str, processes: int, whole: tuple[dict, dict]) -> str:
    """Kills and continues one run; returns how it ended."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if run(folder, kill, where, processes) == 0:
            return "was not killed"
        if run(folder, 0, where, processes) != 0:
            return "could not be continued"
        return "identical" if is_identical(ending(folder), whole) else "differs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20, help="Trials with one process, and as many with two.")
    trials = parser.parse_args().trials
    chance = random.Random(0)
    rows, identical = [], 0
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as name:
            assert run(Path(name), 0, "step", processes) == 0
            whole = ending(Path(name))
        for number in range(trials):
            where = "save" if number % 4 == 3 else "step"
            kill = chance.randrange(1, STEPS)
            ended = trial(kill, where, processes, whole)
            identical += ended == "identical"
            place = f"after step {kill}" if where == "step" else f"in the first checkpoint from step {kill} on"
            rows.append(f"| {processes} | {place} | {ended} |")
            print(rows[-1], flush=True)
    lines = ["# Killed and continued", "", f"{identical} of {2 * trials} identical, bit for bit.", ""]
    lines += [*table_head("processes", "killed", "ended"), *rows, ""]
    lines += [
        f"Command: `python benchmarks/resume_trial.py --trials {trials}`. accelerate "
        f"{package_versions()['accelerate']}. {lab_note([made_here()])}"
    ]
    write_lines(TABLE, lines)


if __name__ == "__main__":
    main()
