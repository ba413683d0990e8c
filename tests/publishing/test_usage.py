"""The lines that show how a model is used: run for real, and what is said where they fail."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from hf_transfer.data.table import stored_images
from hf_transfer.models.checkpoint import load_checkpoint
from hf_transfer.publishing import usage
from hf_transfer.publishing.usage import snippet, try_usage
from tests.models.families import build_tiny_checkpoint
from tests.models.timm_architectures import build_tiny_timm_checkpoint
from tests.tiny_project import tiny_pictures


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return build_tiny_checkpoint(tmp_path_factory.mktemp("usage") / 'with "quotes" and spaces', "vit")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return next(tiny_pictures(tmp_path / "pictures", per_class=1, splits=("test",)).rglob("*.png"))


def labels_of(model: Path) -> list[str]:
    return list(json.loads((model / "config.json").read_text(encoding="utf-8"))["id2label"].values())


def test_it_works_on_a_file_and_on_bytes(model: Path, picture: Path):
    worked = {"worked": True, "problem": None}
    assert try_usage(model, stored_images(paths=[str(picture)]), labels_of(model)) == worked
    assert try_usage(model, stored_images(contents=[picture.read_bytes()]), labels_of(model)) == worked


def test_it_works_for_timm_as_a_run_saves_it(picture: Path, tmp_path: Path):
    torch.manual_seed(0)
    names = ("dark", "grey", "light")
    loaded = load_checkpoint(str(build_tiny_timm_checkpoint(tmp_path / "timm", "test_vit")), label_names=names)
    for part in (loaded.model, loaded.image_processor):
        part.save_pretrained(tmp_path / "saved")
    worked = {"worked": True, "problem": None}
    assert try_usage(tmp_path / "saved", stored_images(paths=[str(picture)]), names) == worked


def test_a_model_that_cannot_be_loaded_is_a_reason(picture: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    answer = try_usage(tmp_path / "empty", stored_images(paths=[str(picture)]), ["a"])
    assert not answer["worked"]
    assert "Error" in answer["problem"]


def test_an_answer_that_is_no_label_is_a_reason(model: Path, picture: Path):
    answer = try_usage(model, stored_images(paths=[str(picture)]), ["another name"])
    assert not answer["worked"]
    assert "no label of the model" in answer["problem"]


def test_a_process_that_hangs_is_a_reason(model: Path, picture: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(usage, "SECONDS", 0.1)
    assert "0.1 seconds" in try_usage(model, stored_images(paths=[str(picture)]), ["a"])["problem"]


def test_the_process_knows_no_secrets_and_no_other_processes(
    model: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("HF_TOKEN", "WANDB_API_KEY", "RANK", "WORLD_SIZE", "ACCELERATE_USE_CPU", "MASTER_PORT"):
        monkeypatch.setenv(name, "7")
    seen: dict = {}

    def spy(words: list[str], **options) -> subprocess.CompletedProcess:
        seen.update(options["env"], script=Path(words[-1]).read_text(encoding="utf-8"), **{"cwd": options["cwd"]})
        return subprocess.CompletedProcess(words, 3, "", "")

    monkeypatch.setattr(subprocess, "run", spy)
    answer = try_usage(model, stored_images(paths=[str(picture)]), ["a"])
    assert answer == {"worked": False, "problem": "exit code 3"}
    assert not {"HF_TOKEN", "WANDB_API_KEY", "RANK", "WORLD_SIZE", "ACCELERATE_USE_CPU", "MASTER_PORT"} & seen.keys()
    assert seen["HF_HUB_OFFLINE"] == "1"
    assert seen["HF_HOME"] == seen["cwd"]
    # What is run is what is shown, but for the two places.
    lines = zip(seen["script"].splitlines(), snippet("model", "picture.jpg").splitlines(), strict=True)
    assert [old.split("(")[0] for old, new in lines if old != new] == [
        "classifier = pipeline",
        "for answer in classifier",
    ]
