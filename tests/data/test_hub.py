"""Data sets by id, over HTTP from the test Hub through the real `datasets`."""

import io
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from hf_transfer.data.image_data import SPLIT_NAMES
from hf_transfer.data.loading import load_image_data
from hf_transfer.errors import UserError
from tests.data.pictures import config_for, contents, png
from tests.hub_server import HubServer

NAMES = ["ant", "bee"]


def parquet(
    first: int, count: int = 10, image: str = "image", label: str = "label", unlabelled: bool = False
) -> bytes:
    """Returns a parquet file as the Hub keeps them, with pictures numbered from `first`."""
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=NAMES)})
    rows = {
        image: [{"bytes": png(first + number), "path": None} for number in range(count)],
        label: [-1 if unlabelled else number % 2 for number in range(count)],
    }
    buffer = io.BytesIO()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(buffer)
    return buffer.getvalue()


def files(**splits: bytes) -> dict[str, bytes]:
    """Returns a repository's files by split."""
    return {f"data/{split}-00000-of-00001.parquet": content for split, content in splits.items()}


def configs(*names: str) -> dict[str, bytes]:
    """Returns a repository with several configurations, the pictures of the second numbered from 100."""
    card = ["---", "configs:"]
    for name in names:
        card += [f"- config_name: {name}", "  data_files:", "  - split: train", f"    path: {name}/train.parquet"]
    content = {f"{name}/train.parquet": parquet(100 * index) for index, name in enumerate(names)}
    return {"README.md": "\n".join([*card, "---", ""]).encode(), **content}


def said(repo_id: str, **settings) -> str:
    """Returns the message that the user gets."""
    with pytest.raises(UserError) as raised:
        load_image_data(config_for(repo_id, **settings))
    return str(raised.value)


def test_splits_and_names_come_from_the_hub(hub: HubServer, repo_id: str):
    repository = hub.add_dataset(repo_id, files(train=parquet(0), validation=parquet(10), test=parquet(20)))
    data = load_image_data(config_for(repo_id))
    assert (data.kind, data.name, data.revision) == ("hub", repo_id, repository.refs["main"])
    assert data.label_names == ("ant", "bee")
    for number, split in enumerate(SPLIT_NAMES):
        assert contents(data.split(split)) == {png(10 * number + index) for index in range(10)}
    assert set(data.split_methods.values()) == {"as given"}


def test_validation_is_no_test(hub: HubServer, repo_id: str):
    hub.add_dataset(repo_id, files(train=parquet(0, 20), validation=parquet(20)))
    data = load_image_data(config_for(repo_id))
    assert contents(data.validation) == {png(20 + number) for number in range(10)}
    assert contents(data.test) < {png(number) for number in range(20)}
    assert data.split_methods["test"].startswith("made:")


def test_a_single_split_called_test(hub: HubServer, repo_id: str):
    hub.add_dataset(repo_id, files(test=parquet(0, 20)))
    data = load_image_data(config_for(repo_id))
    assert sum(len(data.split(name)) for name in SPLIT_NAMES) == 20


def test_a_split_of_another_name_is_read_when_it_is_asked_for(hub: HubServer, repo_id: str):
    hub.add_dataset(repo_id, files(train=parquet(0), extra=parquet(10)))
    assert contents(load_image_data(config_for(repo_id, test_split="extra")).test) == {png(10 + n) for n in range(10)}
    data = load_image_data(config_for(repo_id))
    assert sum(len(data.split(name)) for name in SPLIT_NAMES) == 10


def test_columns_of_other_names(hub: HubServer, repo_id: str):
    hub.add_dataset(repo_id, files(train=parquet(0, 20, image="scan", label="kind")))
    data = load_image_data(config_for(repo_id))
    assert data.train.column_names == ["image", "label"]
    assert "has no such column" in said(repo_id, label_column="labels")


def test_a_test_split_without_labels(hub: HubServer, repo_id: str):
    hub.add_dataset(repo_id, files(train=parquet(0), test=parquet(10, unlabelled=True)))
    assert "10 of 10 pictures in the test split" in said(repo_id)


@pytest.mark.parametrize(("asked", "numbers"), [("small", 0), ("large", 100)])
def test_configurations(hub: HubServer, repo_id: str, asked: str, numbers: int):
    hub.add_dataset(repo_id, configs("small", "large"))
    data = load_image_data(config_for(repo_id, dataset_config=asked))
    assert contents(data.train) < {png(numbers + number) for number in range(10)}


def test_no_configuration_given(hub: HubServer, repo_id: str):
    hub.add_dataset(repo_id, configs("small", "large"))
    message = said(repo_id)
    assert "has several configurations" in message
    assert "small, large" in message or "large, small" in message
    assert "--dataset_config" in message


def test_an_unknown_configuration(hub: HubServer, repo_id: str):
    hub.add_dataset(repo_id, configs("small", "large"))
    message = said(repo_id, dataset_config="larg")
    assert "has no configuration 'larg'" in message
    assert "Try: --dataset_config large" in message


def test_a_revision(hub: HubServer, repo_id: str):
    repository = hub.add_dataset(repo_id, files(train=parquet(0, 20)))
    commit = repository.commit(files(train=parquet(50, 20)), branch="v2")
    data = load_image_data(config_for(repo_id, dataset_revision="v2"))
    assert data.revision == commit
    assert contents(data.train) < {png(50 + number) for number in range(20)}
    assert "has no revision 'v3'" in said(repo_id, dataset_revision="v3")


def test_a_script(hub: HubServer, repo_id: str):
    hub.add_dataset(repo_id, {f"{repo_id.split('/')[1]}.py": b"import datasets\n"})
    message = said(repo_id)
    assert "is a script, which `datasets` no longer runs" in message
    assert "--dataset_revision refs/convert/parquet" in message


def test_no_files_to_read(hub: HubServer, repo_id: str):
    hub.add_dataset(repo_id, {"README.md": b"soon", "notes.bin": b"1"})
    assert "holds no files that `datasets` can read" in said(repo_id)


@pytest.mark.parametrize("part", ["footer", "middle", "text"])
def test_a_broken_file(hub: HubServer, repo_id: str, part: str):
    content = parquet(0)
    broken = {
        "footer": files(train=content[:-30]),
        "middle": files(train=content[:4] + b"\xff" * 1000 + content[1004:]),
        "text": {"train.jsonl": b'{"image": nope'},
    }
    hub.add_dataset(repo_id, broken[part])
    assert f"data set '{repo_id}' cannot be read" in said(repo_id)


@pytest.mark.parametrize(("status", "words"), [(429, "limits how often"), (403, "may not read"), (500, "error 500")])
def test_a_hub_that_fails(hub: HubServer, repo_id: str, monkeypatch: pytest.MonkeyPatch, status: int, words: str):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.add_dataset(repo_id, files(train=parquet(0)))
    hub.fail(repo_id, status)
    assert words in said(repo_id)


_CHILD = """
import sys
from hf_transfer.config import FinetuneConfig
from hf_transfer.data.loading import load_image_data
from hf_transfer.errors import UserError
try:
    print(load_image_data(FinetuneConfig(model="none", dataset=sys.argv[1])).fingerprint)
except UserError as error:
    print(error)
"""


def offline(repo_id: str) -> str:
    """Loads a data set in a process of its own: HF_HUB_OFFLINE is frozen at import."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", _CHILD, repo_id]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_offline_with_cache(hub: HubServer, repo_id: str):
    hub.add_dataset(repo_id, files(train=parquet(0, 20)))
    online = load_image_data(config_for(repo_id))
    hub.requests.clear()
    assert offline(repo_id).splitlines()[-1] == online.fingerprint
    assert hub.requests == []


def test_offline_without_cache(hub: HubServer, repo_id: str):
    hub.add_dataset(repo_id, files(train=parquet(0)))
    message = offline(repo_id)
    assert "HF_HUB_OFFLINE forbids the network" in message
    assert "--repo-type dataset" in message
    assert hub.requests == []


def test_a_folder_wins_over_the_hub(hub: HubServer, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub.add_dataset(repo_id, files(train=parquet(0)))
    for number in range(8):
        folder = tmp_path / repo_id / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(png(number))
    monkeypatch.chdir(tmp_path)
    assert load_image_data(config_for(repo_id)).kind == "imagefolder"
    assert hub.requests == []
