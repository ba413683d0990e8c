"""A run ends with the same weights whether pictures are decoded once or at each visit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hf_transfer.cli import main
from hf_transfer.evaluation import inference
from tests.ports import unused_port
from tests.tiny_project import tiny_project

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    torch.manual_seed(0)
    tiny_project(folder)
    return folder


def words(project: Path, out: Path, *options: str) -> list[str]:
    fixed = ["--model", str(project / "checkpoint"), "--dataset", str(project / "pictures"), "--use_cpu", "true"]
    fixed += ["--output_dir", str(out), "--strategy", "full", "--disable_tqdm", "true", "--augmentation", "strong"]
    fixed += ["--learning_rate", "1e-3", "--per_device_train_batch_size", "8", "--check_usage", "false"]
    return [*fixed, "--cache_dir", str(project / "cache"), *options]


def run(project: Path, out: Path, *options: str) -> tuple[dict, dict[str, torch.Tensor]]:
    assert main(["train", *words(project, out, *options)]) == 0
    return json.loads((out / "run.json").read_text(encoding="utf-8")), load_file(out / "model" / "model.safetensors")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def whole(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict[str, torch.Tensor]]:
    """A run of three epochs that decodes at each visit."""
    return run(project, tmp_path_factory.mktemp("whole"), "--num_train_epochs", "3", "--decoded_cache", "off")


def test_weights_and_history_are_the_same(project: Path, whole, tmp_path: Path, capsys: pytest.CaptureFixture):
    report, weights = run(project, tmp_path, "--num_train_epochs", "3")
    assert_same(weights, whole[1])
    assert report["history"] == whole[0]["history"]
    out = capsys.readouterr().out
    assert "pictures decoded" in out
    assert "waited for pictures" in out


def test_the_report_says_what_was_kept_and_waited_for(project: Path, whole, tmp_path: Path):
    facts = run(project, tmp_path, "--num_train_epochs", "2")[0]["training"]
    assert facts["pictures"]["decoded"] == "once"
    kept = facts["pictures"]["kept"]
    assert (kept["train"]["pictures"], kept["train"]["bytes"]) == (24, 24 * 36 * 36 * 3)
    assert kept["validation"]["pictures"] == 24
    assert 0 < facts["data_wait_share"] < 1
    assert whole[0]["training"]["pictures"] == {"decoded": "at each visit", "reason": "as you asked", "kept": {}}


@pytest.mark.parametrize(("before", "after"), [("on", "off"), ("off", "on")])
def test_a_continued_run_may_change_its_mind(project: Path, whole, tmp_path: Path, before: str, after: str):
    run(project, tmp_path / "before", "--decoded_cache", before, "--num_train_epochs", "3", "--save_total_limit", "3")
    first = tmp_path / "before" / "checkpoint-3"
    options = ["--decoded_cache", after, "--num_train_epochs", "3", "--resume_from_checkpoint", str(first)]
    report, weights = run(project, tmp_path / "after", *options)
    assert report["training"]["resumed_from"] == str(first)
    assert_same(weights, whole[1])


def test_validation_pictures_are_not_decoded_again_for_the_evaluation(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened: list[Any] = []
    open_picture = inference.to_rgb
    monkeypatch.setattr(inference, "to_rgb", lambda picture: opened.append(picture) or open_picture(picture))
    measured = []
    for options in ([], ["--decoded_cache", "off"], ["--keep_cache", "false"]):
        report, _ = run(project, tmp_path / str(len(measured)), "--num_train_epochs", "2", *options)
        splits = {split: report["evaluation"][split] for split in ("validation", "test")}
        images = [splits[split]["num_images"] for split in splits]
        assert len(opened) == (images[1] if not options else sum(images))
        opened.clear()
        measured.append([{**result, "seconds": 0.0} for result in splits.values()])
    assert measured[0] == measured[1] == measured[2]


def test_nothing_is_left_where_the_user_says_so(project: Path, tmp_path: Path):
    options = ["--num_train_epochs", "2", "--cache_dir", str(tmp_path / "cache"), "--keep_cache", "false"]
    report, _ = run(project, tmp_path / "run", *options)
    assert report["training"]["pictures"]["decoded"] == "once"
    assert not list((tmp_path / "cache" / "decoded").glob("*/*"))


def test_a_cache_limit_that_is_no_size_is_refused(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["train", *words(project, tmp_path, "--cache_limit", "plenty")]) == 2
    assert "--cache_limit plenty" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_decode_once_and_train_the_same(project: Path, tmp_path: Path):
    ended = []
    for mode in ("on", "off"):
        out = tmp_path / mode
        command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
        command += ["--main_process_port", str(unused_port()), str(ROOT / "finetune.py")]
        options = ["--num_train_epochs", "2", "--decoded_cache", mode, "--cache_dir", str(tmp_path / "cache")]
        done = subprocess.run(
            [*command, *words(project, out, *options)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        ended.append(load_file(out / "model" / "model.safetensors"))
    assert_same(*ended)
    assert len(list((tmp_path / "cache" / "decoded").glob("*/seal.json"))) == 2
