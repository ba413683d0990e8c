"""Rows of the decision table that warn or depend on the machine."""

from pathlib import Path

import pytest
import torch

from hf_transfer.cli import main
from tests.tiny_project import tiny_project


@pytest.mark.parametrize(("free", "warned"), [(10**5, True), (10**12, False)])
def test_memory_that_is_too_little_is_said_before_the_start(
    free: int, warned: bool, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hf_transfer.decisions.free_memory", lambda device: free)
    torch.manual_seed(0)
    checkpoint, pictures = tiny_project(tmp_path)
    words = ["--model", str(checkpoint), "--dataset", str(pictures), "--use_cpu", "--max_steps", "1", "--ema", "0.9"]
    assert main(["train", *words, "--strategy", "full", "--output_dir", str(tmp_path / "run")]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  memory"))
    assert "weights" in row
    assert "copies" in row
    assert ("too much" in row) is warned
    assert ("--gradient_accumulation_steps" in row) is warned
