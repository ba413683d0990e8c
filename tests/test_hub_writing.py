"""The write paths of the test Hub, through the real clients: uploads in three modes, commits, rights, faults."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub.faults import KINDS
from tests.hub_server import LARGE_FILES, HubServer

TOKEN = "hf_writer"
FILES = {
    "README.md": b"---\nlicense: mit\n---\nHello\n",
    "config.json": b"{}",
    "empty.txt": b"",
    "deep/er/notes.txt": "grün\r\n".encode(),
    "model.safetensors": bytes(range(256)) * 300,
}


@pytest.fixture
def writer(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    """A client whose token may write under `someone`."""
    hub.add_user(TOKEN, "someone")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return HfApi()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files of every kind."""
    for name, content in FILES.items():
        (tmp_path / "up" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / name).write_bytes(content)
    return tmp_path / "up"


def _add(name: str, content: bytes) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(name, content)]


def _contents(folder: str | Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("large_files", [(), LARGE_FILES], ids=["regular", "lfs"])
def test_what_is_uploaded_comes_back(
    hub: HubServer, writer: HfApi, repo_id: str, folder: Path, tmp_path: Path, large_files: tuple[str, ...]
):
    hub.large_files = large_files
    writer.create_repo(repo_id, private=True)
    writer.upload_folder(repo_id=repo_id, folder_path=folder)
    assert ("lfs_put" in hub.calls) == bool(large_files)
    down = huggingface_hub.snapshot_download(repo_id, cache_dir=tmp_path / "cache", ignore_patterns=[".gitattributes"])
    assert _contents(down) == FILES
    repository = hub.repositories["models", repo_id]
    assert repository.private
    assert len(list(repository.history())) == 2
    tokens = {token for _, path, token in hub.requests if path.startswith(("/upload/", "/large/"))}
    assert tokens <= {None}


_XET = """
import json, sys
from huggingface_hub import HfApi, constants, snapshot_download
assert not constants.HF_HUB_DISABLE_XET
api = HfApi()
api.create_repo(sys.argv[1])
api.upload_folder(repo_id=sys.argv[1], folder_path=sys.argv[2])
print(snapshot_download(sys.argv[1], cache_dir=sys.argv[3], ignore_patterns=[".gitattributes"]))
"""


def test_what_is_uploaded_through_xet_comes_back(
    hub: HubServer, writer: HfApi, repo_id: str, folder: Path, tmp_path: Path
):
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "0", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", _XET, repo_id, str(folder), str(tmp_path / "cache")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    assert _contents(result.stdout.strip()) == FILES
    assert "lfs_put" not in hub.calls
    assert hub.calls.count("xet_token") >= 2
    assert "large" not in hub.calls
    # Whoever comes without Xet is served too.
    plain = huggingface_hub.snapshot_download(
        repo_id, cache_dir=tmp_path / "other", ignore_patterns=[".gitattributes"]
    )
    assert _contents(plain) == FILES
    assert "large" in hub.calls


def test_a_repository_that_exists(hub: HubServer, writer: HfApi, repo_id: str):
    first = writer.create_repo(repo_id)
    assert writer.create_repo(repo_id, exist_ok=True) == first
    with pytest.raises(HfHubHTTPError) as caught:
        writer.create_repo(repo_id)
    assert caught.value.response.status_code == 409
    assert caught.value.response.json()["url"] == f"{hub.url}/{repo_id}"


def test_rights(hub: HubServer, writer: HfApi, repo_id: str):
    hub.add_user("hf_reader", "someone", role="read")
    hub.add_user("hf_stranger", "stranger")
    hub.add_user("hf_colleague", "colleague", orgs=["someone"])
    hub.add_user("hf_fine", "someone", role="fineGrained")
    hub.scopes["hf_fine"] = {"someone": ("repo.write",)}
    writer.create_repo(repo_id)
    for token, status in (("hf_reader", 403), ("hf_stranger", 403), ("hf_colleague", None), ("hf_fine", None)):
        if status is None:
            writer.auth_check(repo_id, write=True, token=token)
            writer.create_commit(repo_id, _add("a.txt", token.encode()), commit_message="m", token=token)
            continue
        # A trap: a token that only reads passes here when the repository exists.
        writer.create_repo(repo_id, exist_ok=True, token=token)
        for call in (
            lambda t: writer.auth_check(repo_id, write=True, token=t),
            lambda t: writer.create_commit(repo_id, _add("a.txt", b"x"), commit_message="m", token=t),
            lambda t: writer.create_repo("someone/other", token=t),
        ):
            with pytest.raises(HfHubHTTPError) as caught:
                call(token)
            assert caught.value.response.status_code == status
    with pytest.raises(RepositoryNotFoundError):
        writer.auth_check("someone/nothing", write=True)
    assert writer.whoami()["auth"]["accessToken"]["role"] == "write"
    assert ("models", "someone/other") not in hub.repositories


def test_gated_and_private(hub: HubServer, writer: HfApi, repo_id: str):
    hub.add_user("hf_stranger", "stranger")
    hub.add_model(repo_id, {"a.txt": b"a"}, gated=True)
    hub.add_model(f"{repo_id}-p", {"a.txt": b"a"}, private=True)
    writer.auth_check(repo_id)
    with pytest.raises(GatedRepoError):
        writer.auth_check(repo_id, token="hf_stranger")
    with pytest.raises(RepositoryNotFoundError):
        writer.auth_check(f"{repo_id}-p", token="hf_stranger")


def test_a_stale_parent_is_refused(hub: HubServer, writer: HfApi, repo_id: str):
    writer.create_repo(repo_id)
    repository = hub.repositories["models", repo_id]
    first = repository.refs["main"]
    second = writer.create_commit(repo_id, _add("a.txt", b"1"), commit_message="one", parent_commit=first).oid
    with pytest.raises(HfHubHTTPError) as caught:
        writer.create_commit(repo_id, _add("a.txt", b"2"), commit_message="two", parent_commit=first)
    assert caught.value.response.status_code == 412
    assert list(repository.history()) == [second, first]
    assert [commit.title for commit in writer.list_repo_commits(repo_id)] == ["one", "initial commit"]


def test_pull_request_branch_tag_and_collection(hub: HubServer, writer: HfApi, repo_id: str):
    writer.create_repo(repo_id)
    repository = hub.repositories["models", repo_id]
    before = repository.refs["main"]
    commit = writer.create_commit(repo_id, _add("a.txt", b"1"), commit_message="one", create_pr=True)
    assert commit.pr_num == 1
    assert repository.refs["main"] == before
    assert [pull.num for pull in writer.get_repo_discussions(repo_id, discussion_type="pull_request")] == [1]
    assert writer.get_discussion_details(repo_id, 1).target_branch == "refs/heads/main"
    writer.merge_pull_request(repo_id, 1)
    assert repository.refs["main"] == commit.oid
    writer.create_branch(repo_id, branch="v1/next")
    writer.create_commit(repo_id, _add("b.txt", b"2"), commit_message="two", revision="v1/next")
    assert set(repository.commits[repository.refs["v1/next"]]) == {".gitattributes", "a.txt", "b.txt"}
    writer.create_tag(repo_id, tag="v1", revision=commit.oid)
    with pytest.raises(HfHubHTTPError):
        writer.create_tag(repo_id, tag="v1")
    refs = writer.list_repo_refs(repo_id, include_pull_requests=True)
    assert {ref.name for ref in refs.branches} == {"main", "v1/next"}
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", commit.oid)]
    collection = writer.create_collection("My models", namespace="someone", exists_ok=True)
    again = writer.create_collection("My models", namespace="someone", exists_ok=True)
    assert again.slug == collection.slug
    writer.add_collection_item(collection.slug, repo_id, "model")
    filled = writer.add_collection_item(collection.slug, repo_id, "model", exists_ok=True)
    assert [item.item_id for item in filled.items] == [repo_id]


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("---\nlicense: nobody-knows\n---\n", "license"),
        ("---\nlicense: [\n---\n", "YAML"),
        ("---\nmodel-index: 3\n---\n", "model-index"),
    ],
)
def test_a_card_that_the_hub_refuses(hub: HubServer, writer: HfApi, repo_id: str, card: str, words: str):
    writer.create_repo(repo_id)
    with pytest.raises(ValueError, match=words):
        writer.create_commit(repo_id, _add("README.md", card.encode()), commit_message="m")
    assert list(hub.repositories["models", repo_id].history())[1:] == []


def test_an_unknown_revision(hub: HubServer, writer: HfApi, repo_id: str):
    writer.create_repo(repo_id)
    with pytest.raises(RevisionNotFoundError):
        writer.create_commit(repo_id, _add("a.txt", b"1"), commit_message="m", revision="nowhere")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "slow"])
def test_a_fault_before_or_after_the_effect(hub: HubServer, writer: HfApi, repo_id: str, kind: str, after: bool):
    writer.create_repo(repo_id)
    repository = hub.repositories["models", repo_id]
    hub.inject("commit", kind, after=after)
    with pytest.raises((HfHubHTTPError, HTTPError)) as caught:
        writer.create_commit(repo_id, _add("a.txt", b"1"), commit_message="m")
    if kind != "cut":
        assert caught.value.response.status_code == int(kind[:3])
    assert ("a.txt" in repository.commits[repository.refs["main"]]) == after
    writer.create_commit(repo_id, _add("b.txt", b"2"), commit_message="m")
    assert "b.txt" in repository.commits[repository.refs["main"]]


def test_faults_by_number(hub: HubServer, writer: HfApi, monkeypatch: pytest.MonkeyPatch):
    hub.inject("whoami", "503", times=2)
    for _ in range(2):
        with pytest.raises(HfHubHTTPError):
            writer.whoami()
    assert writer.whoami()["name"] == "someone"
    hub.inject("whoami", "500", times=None)
    for _ in range(3):
        with pytest.raises(HfHubHTTPError):
            writer.whoami()


def test_a_slow_answer_and_one_to_wait_for(hub: HubServer, writer: HfApi, repo_id: str, monkeypatch):
    hub.add_model(repo_id, {"a.txt": b"a"})
    hub.inject("whoami", "slow", seconds=0.3)
    start = time.monotonic()
    assert writer.whoami()["name"] == "someone"
    assert time.monotonic() - start >= 0.3
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    for kind in ("429", "429-ratelimit"):
        hub.inject("preupload", kind, seconds=7)
        writer.create_commit(repo_id, _add("a.txt", kind.encode()), commit_message="m")
    assert waited == [8.0, 8.0]  # the client adds a second


def test_an_html_page_is_no_json(hub: HubServer, writer: HfApi, repo_id: str):
    writer.create_repo(repo_id)
    hub.inject("validate_yaml", "502-html")
    with pytest.raises(json.JSONDecodeError):
        writer.create_commit(repo_id, _add("README.md", FILES["README.md"]), commit_message="m")


def test_a_mistyped_fault_is_an_error(hub: HubServer):
    with pytest.raises(ValueError, match="no call"):
        hub.inject("comit", "503")
    with pytest.raises(ValueError, match="none of"):
        hub.inject("commit", "504")
