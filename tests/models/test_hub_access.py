"""Checkpoints from a Hub over real HTTP: by name, branch, tag and commit, and each way in which that can fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import transformers

from hf_transfer.errors import UserError
from hf_transfer.models.checkpoint import load_checkpoint
from tests.hub_server import HubServer
from tests.models.families import build_tiny_checkpoint
from tests.models.timm_architectures import build_tiny_timm_checkpoint

LABELS = ("cat", "dog")
TOKEN = "hf_secretsecretsecret"


def _message(repo_id: str, **options: str) -> str:
    with pytest.raises(UserError) as caught:
        load_checkpoint(repo_id, label_names=LABELS, **options)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def _position_embeddings(model: transformers.PreTrainedModel) -> torch.Tensor:
    return model.vit.embeddings.position_embeddings


def test_model_by_id(hub: HubServer, folder: Path, repo_id: str):
    repository = hub.add_model(repo_id, folder)
    checkpoint = load_checkpoint(repo_id, label_names=LABELS)
    assert checkpoint.source == repo_id
    assert checkpoint.revision == repository.refs["main"]
    assert checkpoint.model.config.name_or_path == repo_id
    expected = transformers.ViTForImageClassification.from_pretrained(folder)
    assert torch.equal(_position_embeddings(checkpoint.model), _position_embeddings(expected))


def test_only_the_files_needed_are_fetched(hub: HubServer, folder: Path, repo_id: str):
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    (folder / "training_args.bin").write_bytes(b"never read")
    hub.add_model(repo_id, folder)
    load_checkpoint(repo_id, label_names=LABELS)
    assert not [path for _, path, _ in hub.requests if path.endswith(".bin")]


@pytest.mark.parametrize("name", ["a-branch", "v1.0", "commit", "refs/pr/1"])
def test_model_by_revision(hub: HubServer, folder: Path, repo_id: str, tmp_path: Path, name: str):
    repository = hub.add_model(repo_id, folder)
    torch.manual_seed(1)
    other = build_tiny_checkpoint(tmp_path / "other", "vit")
    commit = repository.commit(other, branch="a-branch" if name == "commit" else name)
    checkpoint = load_checkpoint(repo_id, label_names=LABELS, revision=commit if name == "commit" else name)
    assert checkpoint.revision == commit
    expected = transformers.ViTForImageClassification.from_pretrained(other)
    assert torch.equal(_position_embeddings(checkpoint.model), _position_embeddings(expected))


def test_everything_comes_from_one_commit(hub: HubServer, folder: Path, repo_id: str):
    hub.add_model(repo_id, folder)
    checkpoint = load_checkpoint(repo_id, label_names=LABELS)
    fetched = [path for _, path, _ in hub.requests if "/resolve/" in path]
    assert fetched
    assert all(f"/resolve/{checkpoint.revision}/" in path for path in fetched)


def test_timm_model_by_id_through_both_libraries(hub: HubServer, repo_id: str, tmp_path: Path):
    torch.manual_seed(0)
    hub.add_model(repo_id, build_tiny_timm_checkpoint(tmp_path / "timm", "test_vit"))
    checkpoint = load_checkpoint(repo_id, label_names=LABELS)
    theirs = timm.create_model(f"hf-hub:{repo_id}", pretrained=True)
    ours = checkpoint.model.timm_model.state_dict()
    backbone = [name for name in ours if f"timm_model.{name}" not in checkpoint.new_tensors]
    assert len(backbone) == len(ours) - 2
    assert all(torch.equal(ours[name], theirs.state_dict()[name]) for name in backbone)
    assert "--model " + repo_id in _message(f"hf-hub:{repo_id}")


def test_missing_repository(hub: HubServer):
    assert "shows no model 'someone/nothing'" in _message("someone/nothing")
    assert "hf auth login" in _message("someone/nothing")


def test_missing_revision(hub: HubServer, folder: Path, repo_id: str):
    hub.add_model(repo_id, folder)
    message = _message(repo_id, revision="v9")
    assert "no revision 'v9'" in message
    assert "--model_revision" in message


def test_missing_commit(hub: HubServer, folder: Path, repo_id: str):
    hub.add_model(repo_id, folder)
    assert f"no revision '{'0' * 40}'" in _message(repo_id, revision="0" * 40)


def test_private_without_token(hub: HubServer, folder: Path, repo_id: str):
    hub.add_model(repo_id, folder, private=True)
    message = _message(repo_id)
    assert "you are not logged in" in message
    assert "hf auth login" in message


def test_private_with_a_token_of_somebody_else(
    hub: HubServer, folder: Path, repo_id: str, monkeypatch: pytest.MonkeyPatch
):
    hub.users[TOKEN] = "somebody-else"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add_model(repo_id, folder, private=True, readers={"owner"})
    assert "your token may not read it" in _message(repo_id)


def test_private_with_the_right_token(hub: HubServer, folder: Path, repo_id: str, monkeypatch: pytest.MonkeyPatch):
    hub.users[TOKEN] = "owner"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add_model(repo_id, folder, private=True, readers={"owner"})
    assert load_checkpoint(repo_id, label_names=LABELS).revision
    assert {token for _, path, token in hub.requests if not path.startswith("/large/")} == {TOKEN}
    assert {token for _, path, token in hub.requests if path.startswith("/large/")} == {None}


def test_wrong_token(hub: HubServer, folder: Path, repo_id: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add_model(repo_id, folder)
    message = _message(repo_id)
    assert "did not accept your token" in message
    assert "HF_TOKEN" in message


def test_gated_without_token(hub: HubServer, folder: Path, repo_id: str):
    hub.add_model(repo_id, folder, gated=True)
    message = _message(repo_id)
    assert "is gated, and you are not logged in" in message
    assert f"{hub.url}/{repo_id}" in message


def test_gated_with_a_token_that_has_not_accepted(
    hub: HubServer, folder: Path, repo_id: str, monkeypatch: pytest.MonkeyPatch
):
    hub.users[TOKEN] = "somebody-else"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add_model(repo_id, folder, gated=True, readers={"owner"})
    assert "your account is not (yet) on its list" in _message(repo_id)


@pytest.mark.parametrize(
    ("status", "words"), [(403, "may not read"), (429, "limits how often"), (418, "answered with error 418")]
)
def test_refused(hub: HubServer, folder: Path, repo_id: str, status: int, words: str):
    hub.add_model(repo_id, folder)
    hub.fail(f"/api/models/{repo_id}", status)
    assert words in _message(repo_id)


def test_server_error(hub: HubServer, folder: Path, repo_id: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client waits between its tries
    hub.add_model(repo_id, folder)
    hub.fail(f"/api/models/{repo_id}", 503)
    assert "answered with error 503" in _message(repo_id)


def test_server_error_with_everything_in_the_cache(
    hub: HubServer, folder: Path, repo_id: str, monkeypatch: pytest.MonkeyPatch
):
    hub.add_model(repo_id, folder)
    first = load_checkpoint(repo_id, label_names=LABELS)
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.fail(f"/api/models/{repo_id}", 503)
    assert load_checkpoint(repo_id, label_names=LABELS).revision == first.revision


def test_only_pickle(hub: HubServer, folder: Path, repo_id: str):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    repository = hub.add_model(repo_id, folder)
    message = _message(repo_id)
    assert "only as pickle (pytorch_model.bin)" in message
    assert "safetensors/convert" in message
    assert "refs/pr/" in message
    assert str(repository.refs["main"]) not in message


def test_no_weights(hub: HubServer, folder: Path, repo_id: str):
    (folder / "model.safetensors").rename(folder / "model.onnx")
    hub.add_model(repo_id, folder)
    assert "no weights that can be read here (found model.onnx)" in _message(repo_id)


@pytest.mark.parametrize("name", ["not a name", "a/b/c", "./nowhere", "", "someone/--x"])
def test_neither_folder_nor_id(name: str):
    message = _message(name)
    assert "no such folder" in message or "neither a folder nor a Hub id" in message


_CHILD = """
import sys
from hf_transfer.errors import UserError
from hf_transfer.models.checkpoint import load_checkpoint
for revision in sys.argv[2:]:
    try:
        print(load_checkpoint(sys.argv[1], label_names=("cat", "dog"), revision=revision or None).revision)
    except UserError as error:
        print(error)
"""


def _offline(repo_id: str, *revisions: str) -> str:
    """Loads a checkpoint in a process of its own: HF_HUB_OFFLINE is frozen at import."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", _CHILD, repo_id, *(revisions or ("",))]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_offline_with_cache(hub: HubServer, folder: Path, repo_id: str):
    repository = hub.add_model(repo_id, folder)
    repository.refs["v1"] = repository.refs["main"]
    expected = load_checkpoint(repo_id, label_names=LABELS).revision
    load_checkpoint(repo_id, label_names=LABELS, revision="v1")
    hub.requests.clear()
    assert _offline(repo_id, "", "v1", expected).split() == [expected] * 3
    assert hub.requests == []


def test_offline_with_a_cache_that_transformers_filled(hub: HubServer, folder: Path, repo_id: str):
    repository = hub.add_model(repo_id, folder)
    transformers.AutoModelForImageClassification.from_pretrained(repo_id)
    transformers.AutoImageProcessor.from_pretrained(repo_id)
    assert _offline(repo_id).strip() == repository.refs["main"]


def test_offline_without_cache(hub: HubServer, folder: Path, repo_id: str):
    hub.add_model(repo_id, folder)
    said = _offline(repo_id)
    assert "HF_HUB_OFFLINE forbids the network" in said
    assert f"hf download {repo_id}" in said
    assert hub.requests == []


def test_offline_with_half_a_cache(hub: HubServer, folder: Path, repo_id: str):
    hub.add_model(repo_id, folder)
    load_checkpoint(repo_id, label_names=LABELS, fresh_weights=True)  # fetches no weights
    assert "HF_HUB_OFFLINE forbids the network" in _offline(repo_id)


def test_a_folder_wins_over_the_hub(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "someone" / "vit")
    monkeypatch.chdir(tmp_path)
    assert load_checkpoint("someone/vit", label_names=LABELS).revision is None
    assert hub.requests == []
