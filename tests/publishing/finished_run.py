"""A small run that is finished, for tests of what comes after it, and a user of the test Hub who may write.

Knows how such a run is made by the real command. Does not push anything.
"""

import os
import shutil
from pathlib import Path

import pytest
import torch

from hf_transfer.cli import main
from hf_transfer.publishing import push_proof
from hf_transfer.publishing.reload_alone import answer
from tests.hub_server import HubServer
from tests.models.timm_architectures import build_tiny_timm_checkpoint
from tests.tiny_project import tiny_pictures, tiny_project

TOKEN = "hf_markedMARKEDmarkedMARKED"
"""Must never show up anywhere."""
OPTIONS = ["--use_cpu", "--max_steps", "2", "--disable_tqdm", "true", "--check_usage", "false"]
MODEL_FILES = {"config.json", "model.safetensors", "preprocessor_config.json"}


def make_project(folder: Path, kind: str = "transformers", license_id: str = "mit") -> list[str]:
    """Writes a checkpoint with a licence and pictures; returns the command that trains on them."""
    torch.manual_seed(0)
    if kind == "timm":
        checkpoint = build_tiny_timm_checkpoint(folder / "checkpoint", "test_convnext")
        pictures = tiny_pictures(folder / "pictures")
    else:
        checkpoint, pictures = tiny_project(folder)
    (checkpoint / "README.md").write_text(f"---\nlicense: {license_id}\n---\n", encoding="utf-8")
    words = ["train", "--model", str(checkpoint), "--dataset", str(pictures), "--output_dir", str(folder / "run")]
    return [*words, *OPTIONS, "--data_license", "own"]


def finish_run(folder: Path, kind: str = "transformers", license_id: str = "mit") -> Path:
    """Trains; returns the run's folder."""
    assert main(make_project(folder, kind, license_id)) == 0
    return folder / "run"


def copy_of(run: Path, folder: Path) -> Path:
    """Returns a copy of a run, to be pushed by one test alone."""
    return Path(shutil.copytree(run, folder / "run", ignore=shutil.ignore_patterns("checkpoint-*")))


def let_write(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs in a user who may write under `someone`."""
    hub.add_user(TOKEN, "someone")
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def prove_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads what was pushed in this process: the same models and scores, without the seconds that a new one takes."""

    def ask_both(models: dict, pictures: list[Path], _: Path) -> dict:
        return answer({"models": models, "pictures": pictures})

    monkeypatch.setattr(push_proof, "_ask_both", ask_both)


def contents(folder: Path) -> dict[str, bytes]:
    """Returns all files below a folder, but for the state of a push."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "push.json" and path.parent.name != "widget"
    }


def texts_below(folder: Path) -> str:
    """Returns all that can be read below a folder, to look for what must not be there."""
    return "".join(
        path.read_text(encoding="utf-8", errors="replace") for path in folder.rglob("*") if os.path.isfile(path)
    )
