"""Commands in processes of their own, in one thread each."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def launched(
    *words: str,
    processes: int = 2,
    way: Sequence[str] = ("--multi_gpu",),
    machines: Sequence[str] = ("--num_machines", "1", "--main_process_port", "0"),
) -> list[str]:
    """Returns the command that runs a module in several processes, or in one of its own."""
    if processes == 1:
        return [sys.executable, "-m", *words]
    command = [sys.executable, "-m", "accelerate.commands.launch", *way, "--num_processes", str(processes), *machines]
    return [*command, "--mixed_precision", "no", "--dynamo_backend", "no", "-m", *words]


def on_cpus(**more: str) -> dict[str, str]:
    """Returns the environment of processes that train on the CPU."""
    # `--cpu` would start one process only: see hf_transfer/cpu_processes.py.
    return os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"} | more


def run_on_cpus(command: Sequence[str], **more: str) -> subprocess.CompletedProcess:
    """Runs a command that may launch others, and returns what it said and how it ended."""
    return subprocess.run(command, env=on_cpus(**more), capture_output=True, text=True, timeout=280, check=False)


def run_at_root(command: Sequence[str]) -> subprocess.CompletedProcess:
    """Runs a command at the root of the project, and returns what it said and how it ended."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=280,
        check=False,
    )
