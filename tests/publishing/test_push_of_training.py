"""`--push_to_hub` in a run: asked before training, done at the end, and never the end of the run."""

import json
import shlex
from pathlib import Path

import pytest

from hf_transfer.cli import main
from hf_transfer.publishing import push_of_training
from tests.hub_server import HubServer
from tests.publishing.finished_run import MODEL_FILES, TOKEN, let_write, make_project, prove_here, texts_below


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def words(project: list[str], tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command that trains and pushes, logged in."""
    let_write(hub, monkeypatch)
    prove_here(monkeypatch)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    place = project.index("--output_dir")
    return [*project[: place + 1], str(tmp_path / "run"), *project[place + 2 :], "--push_to_hub"]


def folder_of(words: list[str]) -> Path:
    return Path(words[words.index("--output_dir") + 1])


def test_a_run_that_pushes(hub: HubServer, repo_id: str, words: list[str], capsys: pytest.CaptureFixture):
    assert main([*words, "--hub_model_id", repo_id]) == 0
    repository = hub.repositories["models", repo_id]
    run = folder_of(words)
    assert repository.private
    assert set(repository.commits[repository.refs["main"]]) > MODEL_FILES
    assert not [name for name in repository.commits[repository.refs["main"]] if name.endswith((".bin", ".pt"))]
    assert len(list(repository.history())) == 2  # Trainer pushed nothing by itself
    assert hub.calls[0] == "auth_check"
    assert "create_repo" in hub.calls
    captured = capsys.readouterr()
    assert "Published (private)" in captured.out
    assert json.loads((run / "push.json").read_text(encoding="utf-8"))["status"] == "done"
    assert TOKEN not in captured.out + captured.err + texts_below(run)


def test_trainers_options(hub: HubServer, repo_id: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    options = ["--hub_token", TOKEN, "--hub_private_repo", "false", "--hub_revision", "next", "--no_widget_images"]
    assert main([*words, "--hub_model_id", repo_id, *options]) == 0
    repository = hub.repositories["models", repo_id]
    assert not repository.private
    assert set(repository.commits[repository.refs["main"]]) == {".gitattributes"}
    there = set(repository.commits[repository.refs["next"]])
    assert there > MODEL_FILES
    assert not [name for name in there if name.startswith("widget/")]
    captured = capsys.readouterr()
    assert TOKEN not in captured.out + captured.err + texts_below(folder_of(words))
    assert TOKEN not in b"".join(repository.commits[repository.refs["next"]].values()).decode(errors="replace")


def test_without_a_name_it_is_the_folders(hub: HubServer, words: list[str]):
    assert main(words) == 0
    assert ("models", "someone/run") in hub.repositories


@pytest.mark.parametrize(
    ("change", "exit_code", "said"),
    [
        ({"role": "read"}, 2, "may only read"),
        ({"token": None}, 2, "not logged in"),
        ({"fault": ("auth_check", "503")}, 1, "error 503"),
        ({"options": ["--hub_strategy", "checkpoint"]}, 2, "never published"),
        ({"options": ["--hub_always_push"]}, 2, "--hub_always_push"),
        ({"options": ["--data_license", "unknown"]}, 2, "unknown"),
        ({"without": "--data_license"}, 3, "a person must look"),
        ({"options": ["--hub_model_id", "stranger/x"]}, 2, "someone/x"),
    ],
    ids=str,
)
def test_what_would_be_refused_is_refused_before_training(
    hub: HubServer, repo_id: str, words: list[str], change: dict, exit_code: int, said: str, monkeypatch, capsys
):
    words = [*words, "--hub_model_id", repo_id, *change.get("options", ())]
    if "without" in change:
        place = words.index(change["without"])
        del words[place : place + 2]
    if "role" in change:
        hub.roles[TOKEN] = change["role"]
    if change.get("token", TOKEN) is None:
        monkeypatch.delenv("HF_TOKEN")
    if "fault" in change:
        hub.inject(*change["fault"], times=None)
    assert main(words) == exit_code
    captured = capsys.readouterr()
    assert said in captured.err
    assert "What will be done" not in captured.out
    assert not folder_of(words).exists()
    assert not hub.repositories


def test_pictures_of_a_run_that_was_replaced_are_not_published(hub: HubServer, repo_id: str, words: list[str]):
    assert main([*words, "--hub_model_id", repo_id]) == 0
    stale = folder_of(words) / "widget" / "example-3.jpg"
    stale.write_bytes(b"of other data")
    assert main([*words, "--hub_model_id", f"{repo_id}-2", "--overwrite_output_dir"]) == 0
    repository = hub.repositories["models", f"{repo_id}-2"]
    assert (
        repository.commits[repository.refs["main"]]["widget/example-3.jpg"] == stale.read_bytes() != b"of other data"
    )


@pytest.mark.parametrize(
    ("call", "kind"),
    [("create_repo", "403"), ("commit", "503"), ("lfs_put", "cut"), ("commit", "502-html"), ("resolve", "500")],
)
def test_a_push_that_fails_does_not_fail_the_run(
    hub: HubServer, repo_id: str, words: list[str], call: str, kind: str, capsys: pytest.CaptureFixture
):
    fault = hub.inject(call, kind, times=None)
    assert main([*words, "--hub_model_id", repo_id]) == 0
    run = folder_of(words)
    captured = capsys.readouterr()
    assert "Measured on the model as reloaded" in captured.out
    assert captured.err.count("Not pushed: ") == 1
    assert (run / "run.json").is_file()
    command = captured.err.rsplit("This finishes the push: ", 1)[1].strip()
    hub.faults.remove(fault)
    assert main(shlex.split(command)[1:]) == 0
    repository = hub.repositories["models", repo_id]
    assert set(repository.commits[repository.refs["main"]]) > MODEL_FILES
    assert len(list(repository.history())) == 2


def test_a_fault_of_ours_does_not_fail_the_run_either(hub: HubServer, words: list[str], monkeypatch, capsys):
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(push_of_training, "push_run", broken)
    assert main(words) == 0
    assert "Not pushed: ZeroDivisionError" in capsys.readouterr().err
    assert (folder_of(words) / "run.json").is_file()
