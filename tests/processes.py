"""Commands in a process of their own, at the root of the project and in one thread."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_at_root(command: Sequence[str]) -> subprocess.CompletedProcess:
    """Runs a command and returns what it said and how it ended."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=280,
        check=False,
    )
