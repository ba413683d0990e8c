"""`--augment_on` from the command line to run.json, and in a run that is continued."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_transfer.cli import main
from tests.tiny_project import train_words


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("project")
    fixed = ["--strategy", "full", "--num_train_epochs", "2", "--per_device_train_batch_size", "8"]
    fixed += ["--save_total_limit", "3", "--cache_dir", str(folder / "cache")]
    return [*train_words(folder), *fixed]


@pytest.fixture(scope="module")
def whole(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that varies batches on the device."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main([*words, "--output_dir", str(out), "--augment_on", "device"]) == 0
    return out


def test_the_report_says_where(whole: Path):
    report = json.loads((whole / "run.json").read_text(encoding="utf-8"))
    expected = {"place": "device", "reason": "as you asked", "seconds_per_picture": None}
    assert report["training"]["varied_on"] == expected
    row = next(decision for decision in report["decisions"] if decision["name"] == "varied on")
    assert (row["value"], row["reason"]) == ("device", "as you asked")


def test_a_continued_run_takes_the_place_from_its_checkpoint(whole: Path, words: list[str], tmp_path: Path):
    """Without being told, and without kept pictures too."""
    resume = ["--resume_from_checkpoint", str(whole / "checkpoint-3"), "--decoded_cache", "off"]
    assert main([*words, "--output_dir", str(tmp_path), *resume]) == 0
    report = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (report["training"]["varied_on"]["place"], report["training"]["resumed_from"]) == ("device", resume[1])
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (whole, tmp_path))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_continued_run_cannot_change_the_place(whole: Path, words: list[str], tmp_path: Path, capsys):
    resume = ["--resume_from_checkpoint", str(whole / "checkpoint-3"), "--augment_on", "cpu"]
    assert main([*words, "--output_dir", str(tmp_path), *resume]) == 2
    assert 'varied on: it was "device", it is "cpu"' in capsys.readouterr().err
