"""The test Hub itself: data sets through the real `datasets`, and what a client may see."""

import io
import os
import subprocess
import sys
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.image_data import SPLIT_NAMES
from hf_transfer.data.loading import load_image_data
from hf_transfer.errors import UserError
from tests.hub_server import HubServer
from tests.models.families import tiny_image

CLASSES = ("ant", "bee")


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Class folders in three splits, two pictures of each class."""
    for number, split in enumerate(("train", "validation", "test")):
        for name in CLASSES:
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for seed in (0, 1):
                picture = tiny_image(10 * number + seed + 100 * CLASSES.index(name), side=8)
                picture.save(tmp_path / "data" / split / name / f"{seed}.png")
    return tmp_path


def _parquet(split_folder: Path) -> bytes:
    rows = datasets.load_dataset("imagefolder", data_dir=str(split_folder), split="train")
    buffer = io.BytesIO()
    rows.to_parquet(buffer)
    return buffer.getvalue()


def _parquet_files(image_folder: Path) -> dict[str, bytes]:
    return {
        f"data/{split}-00000-of-00001.parquet": _parquet(image_folder / "data" / split)
        for split in ("train", "validation", "test")
    }


def _check(splits: datasets.DatasetDict) -> None:
    assert set(splits) == {"train", "validation", "test"}
    assert splits["train"].features["label"].names == list(CLASSES)
    assert splits["test"].num_rows == 4
    assert splits["test"][0]["image"].size == (8, 8)


def test_data_set_of_class_folders(hub: HubServer, repo_id: str, image_folder: Path):
    hub.add_dataset(repo_id, image_folder)
    _check(datasets.load_dataset(repo_id))


def test_data_set_in_parquet(hub: HubServer, repo_id: str, image_folder: Path):
    hub.add_dataset(repo_id, _parquet_files(image_folder))
    _check(datasets.load_dataset(repo_id))


_STREAM = """
import hashlib, sys
import datasets
for streaming in (True, False):
    rows = datasets.load_dataset(sys.argv[1], split="test", streaming=streaming)
    print([(row["label"], hashlib.sha256(row["image"].tobytes()).hexdigest()) for row in rows])
"""


@pytest.mark.parametrize("form", ["imagefolder", "parquet"])
def test_data_set_streamed(hub: HubServer, repo_id: str, image_folder: Path, form: str, tmp_path: Path):
    hub.add_user("hf_reader", "reader", role="read")
    files = image_folder if form == "imagefolder" else _parquet_files(image_folder)
    hub.add_dataset(repo_id, files, private=True, readers={"reader"})
    # A process of its own: streaming starts an event loop that nobody ends.
    environment = {**os.environ, "HF_TOKEN": "hf_reader", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", _STREAM, repo_id]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    streamed, whole = result.stdout.splitlines()
    assert streamed == whole
    assert streamed.count("(0, ") == streamed.count("(1, ") == 2


@pytest.mark.parametrize("access", ["private", "gated"])
def test_load_image_data_with_the_right_token(
    hub: HubServer, repo_id: str, image_folder: Path, access: str, monkeypatch
):
    hub.add_user("hf_reader", "reader", role="read")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    repository = hub.add_dataset(repo_id, image_folder, readers={"reader"}, **{access: True})
    commit = repository.commit(image_folder, branch="v1")
    loaded = load_image_data(FinetuneConfig(model="quickstart", dataset=repo_id, dataset_revision="v1"))
    assert loaded.revision == commit
    assert loaded.label_names == CLASSES


def test_data_set_at_a_revision(hub: HubServer, repo_id: str, image_folder: Path):
    repository = hub.add_dataset(repo_id, {"README.md": b"empty so far"})
    commit = repository.commit(image_folder, branch="v1")
    _check(datasets.load_dataset(repo_id, revision="v1"))
    assert huggingface_hub.HfApi().dataset_info(repo_id, revision="v1").sha == commit
    with pytest.raises(RevisionNotFoundError):
        huggingface_hub.HfApi().dataset_info(repo_id, revision="v2")


@pytest.mark.parametrize("form", ["imagefolder", "parquet"])
def test_load_image_data_by_id(hub: HubServer, repo_id: str, image_folder: Path, form: str):
    files = image_folder if form == "imagefolder" else _parquet_files(image_folder)
    repository = hub.add_dataset(repo_id, files)
    local = load_image_data(FinetuneConfig(model="quickstart", dataset=str(image_folder / "data")))
    loaded = load_image_data(FinetuneConfig(model="quickstart", dataset=repo_id))
    assert loaded.kind == "hub"
    assert loaded.label_names == CLASSES
    assert [loaded.class_counts(split) for split in SPLIT_NAMES] == [(2, 2)] * 3
    assert loaded.revision == repository.refs["main"]
    assert loaded.fingerprint == local.fingerprint


@pytest.mark.parametrize(
    ("access", "revision", "words"),
    [
        ({"private": True}, None, "private"),
        ({"gated": True}, None, "gated"),
        ({}, "v9", "revision 'v9'"),
        (None, None, "no data set"),
    ],
    ids=["private", "gated", "revision", "missing"],
)
def test_load_image_data_refused(
    hub: HubServer, repo_id: str, image_folder: Path, access: dict | None, revision: str | None, words: str
):
    if access is not None:
        hub.add_dataset(repo_id, image_folder, **access)
    with pytest.raises(UserError) as caught:
        load_image_data(FinetuneConfig(model="quickstart", dataset=repo_id, dataset_revision=revision))
    assert words in str(caught.value)


def test_gated_repository_shows_its_card_but_no_files(hub: HubServer, repo_id: str):
    hub.add_model(repo_id, {"config.json": b"{}", "README.md": b"terms"}, gated=True)
    info = huggingface_hub.HfApi().model_info(repo_id)
    assert info.gated == "manual"
    assert [sibling.rfilename for sibling in info.siblings] == ["README.md", "config.json"]
    with pytest.raises(GatedRepoError):
        huggingface_hub.hf_hub_download(repo_id, "config.json")


def test_snapshot_is_byte_identical(hub: HubServer, repo_id: str):
    files = {
        "a.txt": b"text",
        "deep/er/b.bin": bytes(range(256)) * 50,
        "model.safetensors": b"\0" * 1000,
        "empty": b"",
    }
    hub.add_model(repo_id, files)
    folder = Path(huggingface_hub.snapshot_download(repo_id))
    assert {path: (folder / path).read_bytes() for path in files} == files


def test_whoami(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    hub.users["hf_token"] = "someone"
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    assert huggingface_hub.whoami()["name"] == "someone"
