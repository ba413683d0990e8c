"""A run that is stopped and continued by its own command line, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_transfer.cli import main
from tests.tiny_project import tiny_project

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(tmp_path: Path) -> list[str]:
    torch.manual_seed(0)
    checkpoint, pictures = tiny_project(tmp_path)
    words = ["--model", str(checkpoint), "--dataset", str(pictures), "--use_cpu", "--disable_tqdm", "true"]
    words += ["--check_usage", "false"]
    return [*words, "--strategy", "full", "--learning_rate", "1e-3", "--num_train_epochs", "4"]


def start(words: list[str]) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "finetune.py"), *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_sigterm_ends_with_143_and_the_same_command_goes_on(project: list[str], tmp_path: Path):
    out = tmp_path / "run"
    words = [*project, "--output_dir", str(out), "--resume_from_checkpoint", "auto", "--num_train_epochs", "400"]
    words += ["--save_total_limit", "2", "--early_stopping_patience", "0"]
    running = start(words)
    deadline = time.monotonic() + 120
    while not list(out.glob("checkpoint-*/contents.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 143, errors
    assert "Stopped by SIGTERM after step" in errors
    assert "--resume_from_checkpoint" in errors
    assert "Traceback" not in errors
    assert not (out / "run.json").exists()
    last = max(int(path.parent.name.split("-")[1]) for path in out.glob("checkpoint-*/contents.json"))
    again = start([*words, "--max_steps", str(last + 2)])
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    report = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert report["training"]["resumed_from"].endswith(f"checkpoint-{last}")
    assert report["training"]["steps"] == last + 2


def test_auto_begins_at_the_beginning_where_there_is_nothing(project: list[str], tmp_path: Path):
    words = ["train", *project, "--output_dir", str(tmp_path / "run"), "--resume_from_checkpoint", "auto"]
    assert main(words) == 0
    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert report["training"]["resumed_from"] is None


def test_a_run_that_early_stopping_had_ended_does_not_go_on(project: list[str], tmp_path: Path):
    # A rate this small changes no prediction, so the first evaluation stays the best.
    words = ["train", *project, "--output_dir", str(tmp_path / "run"), "--learning_rate", "1e-12"]
    words += ["--early_stopping_patience", "1"]
    assert main(words) == 0
    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert report["training"]["stopped_early"]
    before = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert main([*words, "--resume_from_checkpoint", "last"]) == 0
    again = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert again["training"]["steps"] == report["training"]["steps"]
    assert again["history"] == report["history"]
    for split in ("validation", "test"):
        assert again["evaluation"][split]["metrics"] == report["evaluation"][split]["metrics"]
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--strategy", "partial"], 'strategy: it was "full", it is "partial"'),
        (["--layer_decay", "0.5"], '--layer_decay: it was "auto", it is "0.5"'),
        (["--images_per_class", "3"], "data: it was"),
        (["--per_device_train_batch_size", "3"], "images per step: it was 32, it is 3"),
        (["--seed", "9"], "seed: it was 42, it is 9"),
    ],
)
def test_another_run_is_not_continued(changed: list[str], message: str, project: list[str], tmp_path: Path, capsys):
    words = ["train", *project, "--output_dir", str(tmp_path / "run")]
    assert main([*words, "--num_train_epochs", "1"]) == 0
    before = load_file(tmp_path / "run" / "model" / "model.safetensors")
    capsys.readouterr()
    assert main([*words, "--resume_from_checkpoint", "last", *changed]) == 2
    assert message in capsys.readouterr().err
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_damaged_checkpoint_is_told(project: list[str], tmp_path: Path, capsys):
    words = ["train", *project, "--output_dir", str(tmp_path / "run")]
    assert main([*words, "--num_train_epochs", "1"]) == 0
    checkpoint = next((tmp_path / "run").glob("checkpoint-*"))
    (checkpoint / "optimizer.pt").write_bytes(b"half")
    assert main([*words, "--resume_from_checkpoint", str(checkpoint)]) == 2
    assert "was cut off" in capsys.readouterr().err
    assert main([*words, "--resume_from_checkpoint", "last"]) == 2
    captured = capsys.readouterr()
    assert "is passed over" in captured.err
    assert "no checkpoint that is whole" in captured.err


def test_results_are_written_before_figures_are_drawn(
    project: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*args, **kwargs):
        raise RuntimeError("no room for figures")

    monkeypatch.setattr("hf_transfer.evaluation.curves.plot_curves", fail)
    with pytest.raises(RuntimeError, match="no room for figures"):
        main(["train", *project, "--num_train_epochs", "1", "--output_dir", str(tmp_path / "run")])
    results = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert 0 <= results["test"]["accuracy"] <= 1
    assert not (tmp_path / "run" / "run.json").exists()
