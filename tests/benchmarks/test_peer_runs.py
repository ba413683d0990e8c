"""Peers on a tiny network and tiny pictures: the same files for all, and training that moves what it should."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.loading import load_image_data
from tests.models.families import build_tiny_checkpoint
from tests.tiny_project import CLASSES, tiny_pictures

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> tuple[Path, Path]:
    """A tiny checkpoint, and pictures as peers are given them."""
    torch.manual_seed(0)
    checkpoint = build_tiny_checkpoint(tmp_path / "checkpoint", "vit")
    # More than a batch of 32: fastai leaves out one that is not full.
    pictures = tiny_pictures(tmp_path / "pictures", per_class=12)
    return checkpoint, import_module("peer_files").shared_files(pictures, tmp_path / "scratch")


def job_of(project: tuple[Path, Path], out: Path, task: str, epochs: int = 2):
    checkpoint, data = project
    return import_module("peer_job").Job(data, checkpoint, task, "sensible", epochs, 42, out)


def moved(before: dict, model: torch.nn.Module) -> set[str]:
    return {name for name, value in model.named_parameters() if not torch.equal(before[name], value)}


def state(model: torch.nn.Module) -> dict:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_all_read_the_files_that_our_loader_reads(tmp_path: Path):
    peer_files = import_module("peer_files")
    pictures = tiny_pictures(tmp_path / "pictures", per_class=4, splits=("train", "test"))
    folder = peer_files.shared_files(pictures, tmp_path / "scratch")
    files = peer_files.read_files(folder)
    asked, ours = (
        load_image_data(FinetuneConfig(model="none", dataset=str(place))) for place in (pictures, files.folder)
    )
    assert files.label_names == asked.label_names == tuple(sorted(CLASSES))
    assert set(asked.content_hashes["validation"]) == set(ours.content_hashes["validation"])  # a split that was made
    for split, rows in files.rows.items():
        mine = sorted(zip(ours.content_hashes[split], ours.split(split)["label"], strict=True))
        hashes = [line.split(",")[3] for line in (folder / "files.csv").read_text().splitlines() if split in line]
        assert sorted(zip(hashes, files.labels(split), strict=True)) == mine
        assert all(path.is_file() for path, _ in rows)
    assert ours.split_methods["validation"] == "as given"


def test_files_are_written_once_and_a_few_of_each_class_if_asked(tmp_path: Path):
    peer_files = import_module("peer_files")
    pictures = tiny_pictures(tmp_path / "pictures")
    folder = peer_files.shared_files(pictures, tmp_path / "scratch", max_images=7)
    assert folder != peer_files.shared_files(pictures, tmp_path / "scratch")
    (folder / "mark").touch()
    assert (peer_files.shared_files(pictures, tmp_path / "scratch", max_images=7) / "mark").exists()
    files = peer_files.read_files(folder)
    assert files.sizes() == dict.fromkeys(("train", "validation", "test"), 6)
    assert sorted(files.labels("test")) == [0, 0, 1, 1, 2, 2]


def test_pixels_are_those_of_the_processor(project):
    peer_job = import_module("peer_job")
    pixels = peer_job.read_pixels(project[0])
    files = import_module("peer_files").read_files(project[1])
    for make in (peer_job.train_transform, peer_job.eval_transform):
        for setting in peer_job.SETTINGS:
            dataset = import_module("peer_files").PictureFiles(files.rows["train"], make(pixels, setting))
            found, label = dataset[0]
            assert found.shape == (3, pixels.crop, pixels.crop)
            assert label == files.labels("train")[0]


def test_the_bare_loop_trains_everything_on_what_our_pipeline_gives(project, tmp_path: Path):
    peer_bare, peer_job = import_module("peer_bare"), import_module("peer_job")
    files = import_module("peer_files").read_files(project[1])
    job = job_of(project, tmp_path / "out", "full")
    pixel_values, labels = peer_bare.ready_tensors(job, files)
    assert sorted(labels.tolist()) == sorted(files.labels("train"))
    crop = peer_job.read_pixels(project[0]).crop
    assert pixel_values.shape == (len(labels), 3, crop, crop)
    model = peer_job.Logits(peer_job.load_network(project[0], len(CLASSES)))
    before = state(model)
    clock = peer_bare.train(model, pixel_values, labels, job)
    assert len(clock.train_seconds) == 2
    assert "network.classifier.weight" in moved(before, model)
    assert len(moved(before, model)) > 10


def test_timm_trains_the_head_alone_where_the_body_is_frozen(project, tmp_path: Path):
    peer_timm, peer_job, peer_files = (import_module(name) for name in ("peer_timm", "peer_job", "peer_files"))
    files, pixels = peer_files.read_files(project[1]), peer_job.read_pixels(project[0])
    model, note = peer_timm.network_of(project[0], len(CLASSES), frozen=True)
    assert "no architecture" in note
    before = state(model)
    train, validation = (
        DataLoader(peer_files.PictureFiles(files.rows[split], peer_job.eval_transform(pixels, "sensible")), 8)
        for split in ("train", "validation")
    )
    clock = peer_timm.train(model, train, validation, job_of(project, tmp_path, "frozen"), torch.contiguous_format)
    assert moved(before, model) == {"network.classifier.weight", "network.classifier.bias"}
    assert len(clock.train_seconds) == len(clock.validation_seconds) == 2


def test_trainer_keeps_its_defaults_where_that_is_the_setting(project, tmp_path: Path):
    peer_trainer = import_module("peer_trainer")
    job = job_of(project, tmp_path, "frozen")
    assert peer_trainer.settings(replace(job, setting="defaults"), 1e-3) == {}
    assert peer_trainer.settings(job, 1e-3)["per_device_train_batch_size"] == 32


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # fastai's own
@pytest.mark.parametrize(("setting", "norms_learn"), [("sensible", True), ("wholly-frozen", False)])
def test_fastai_lets_normalisation_layers_learn_unless_told(setting: str, norms_learn: bool, project, tmp_path: Path):
    pytest.importorskip("fastai", reason='needs fastai: pip install "hf-transfer-learning[benchmarks]"')
    peer_fastai, files = import_module("peer_fastai"), import_module("peer_files").read_files(project[1])
    job = replace(job_of(project, tmp_path, "frozen"), setting=setting)
    learner = peer_fastai.build_learner(job, files)
    before = state(learner.model)
    with learner.no_bar():
        peer_fastai.fit(learner, job)
    found = moved(before, learner.model)
    head = {"network.classifier.weight", "network.classifier.bias"}
    assert head <= found
    assert all("norm" in name for name in found - head)
    assert (found != head) == norms_learn


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "task", "epochs"),
    [
        ("trainer", "frozen", 3),
        ("fastai", "frozen", 3),
        ("fastai", "full", 2),
        ("timm", "full", 3),
        ("bare", "full", 3),
    ],
)
def test_a_peer_in_a_process_of_its_own(script: str, task: str, epochs: int, project, tmp_path: Path):
    if script == "fastai":
        pytest.importorskip("fastai", reason='needs fastai: pip install "hf-transfer-learning[benchmarks]"')
    words = ["--checkpoint", str(project[0]), "--data", str(project[1]), "--out", str(tmp_path / "out")]
    words += ["--task", task, "--epochs", str(epochs)]
    subprocess.run([sys.executable, str(ROOT / "benchmarks" / f"peer_{script}.py"), *words], check=True, env=_path())
    assert np.load(tmp_path / "out" / "logits.npy").shape == (36, len(CLASSES))
    facts = json.loads((tmp_path / "out" / "result.json").read_text())
    assert len(facts["train_seconds"]) == epochs
    assert len(facts["validation_seconds"]) in (0, epochs)


@pytest.mark.slow
def test_bare_inference_and_ours_in_processes_of_their_own(project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan, peers = import_module("peer_plan"), import_module("peers")
    monkeypatch.setattr(peers, "code_version", lambda: "abc")
    checkpoint, data = project
    assets = tmp_path / "assets"
    row = plan.Row(plan.EXTRACTION, "tiny", "tiny")
    (assets / "checkpoints").mkdir(parents=True)
    checkpoint.rename(assets / "checkpoints" / "tiny")
    records = {}
    for contender in plan.CONTENDERS[plan.EXTRACTION][:3]:
        run = plan.Run(row, contender, 0, 3, 3)
        records[contender.name] = peers.run_contender(run, assets, data, tmp_path / "scratch")
    assert records["bare inference"]["accuracy"] is None
    cold, warm = records["ours, cold"], records["ours, warm"]
    assert cold["accuracy"] == warm["accuracy"]
    assert len(cold["train_seconds"]) == len(cold["validation_seconds"]) == 3
    assert 0 < cold["seconds"] < cold["seconds_to_end"]
    for task in (plan.PARTIAL, plan.PROGRESSIVE):
        for contender in plan.CONTENDERS[task]:
            run = plan.Run(plan.Row(task, "tiny", "tiny"), contender, 0, 6, 6)
            record = peers.run_contender(run, assets, data, tmp_path / "scratch")
            if contender.name == plan.UNCACHED:
                assert record["note"] == ""
            elif task == plan.PARTIAL:
                assert record["note"] == "cached in 1 of 1 phases"
    assert not list((tmp_path / "scratch" / "cache").iterdir())
    text = import_module("peer_table").table(
        [record | {"row": plan.ROWS[0].name} for record in records.values()], [], "x"
    )
    assert "| ours, warm |" in text


def _path() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}
