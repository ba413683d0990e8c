"""Killed at any step and continued: weights, optimizer, rates, patience, best record and history, bit for bit."""

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.processes import run_on_cpus
from tests.training.killed_run import command

# 18 pictures, 4 a step: 5 steps an epoch, 4 epochs; a checkpoint every 2 steps.


def run(folder: Path, strategy: str, kill: int, where: str = "step", processes: int = 1):
    """Runs `killed_run` to its end, or to where it is killed."""
    words = command(folder, strategy, kill, where, processes)
    return run_on_cpus(words)


def ended_with(folder: Path) -> tuple[dict, dict]:
    return json.loads((folder / "result.json").read_text(encoding="utf-8")), load_file(folder / "result.safetensors")


def finished(folder: Path, strategy: str, processes: int = 1) -> tuple[dict, dict]:
    done = run(folder, strategy, 0, processes=processes)
    assert done.returncode == 0, done.stderr[-3000:]
    return ended_with(folder)


def assert_identical(one: tuple[dict, dict], other: tuple[dict, dict]) -> None:
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    assert all(torch.equal(tensor, other[1][name]) for name, tensor in one[1].items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Returns what an uninterrupted run ends with, each run once."""
    ended: dict = {}

    def of(strategy: str, processes: int = 1) -> tuple[dict, dict]:
        if (strategy, processes) not in ended:
            ended[strategy, processes] = finished(tmp_path_factory.mktemp("whole"), strategy, processes)
        return ended[strategy, processes]

    return of


@pytest.mark.parametrize(
    ("strategy", "kill"),
    [
        ("progressive", 7),
        ("norms", 5),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("progressive", 1),
                ("full", 12),
                ("lp-ft", 5),
                ("plateau", 16),
                ("averaged", 8),
                ("norms", 9),
            ]
        ),
    ],
)
def test_killed_and_continued_is_uninterrupted(strategy: str, kill: int, whole, tmp_path: Path):
    killed = run(tmp_path, strategy, kill)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert not (tmp_path / "result.json").exists()
    assert_identical(finished(tmp_path, strategy), whole(strategy))


def test_a_checkpoint_cut_off_in_the_middle_is_passed_over(whole, tmp_path: Path):
    killed = run(tmp_path, "progressive", 9, "save")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert (tmp_path / "checkpoint-10" / "model.safetensors").exists()
    assert (tmp_path / "checkpoint-8").is_dir(), "the one before must not go before the new one is whole"
    again = run(tmp_path, "progressive", 0)
    assert "checkpoint-10 was cut off" in again.stdout
    ended = (
        json.loads((tmp_path / "result.json").read_text(encoding="utf-8")),
        load_file(tmp_path / "result.safetensors"),
    )
    assert_identical(ended, whole("progressive"))


@pytest.mark.parametrize("stop", [3, 10], ids=["within an epoch", "at its end"])
def test_sigterm_saves_and_ends_cleanly(stop: int, whole, tmp_path: Path):
    stopped = run(tmp_path, "progressive", stop, "term")
    assert f"Stopped by SIGTERM after step {stop}" in stopped.stderr
    assert (tmp_path / f"checkpoint-{stop}" / "contents.json").exists()
    assert_identical(finished(tmp_path, "progressive"), whole("progressive"))


def test_two_processes_killed_and_continued(whole, tmp_path: Path):
    killed = run(tmp_path, "progressive", 7, processes=2)
    assert killed.returncode != 0
    assert not (tmp_path / "result.json").exists()
    assert_identical(finished(tmp_path, "progressive", 2), whole("progressive", 2))
