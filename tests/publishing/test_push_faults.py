"""Each call of the push hit by faults: it ends well or with one message, and the next push completes."""

import json
import shlex
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hf_transfer.cli import main
from hf_transfer.publishing import push_proof
from tests.hub_server import HubServer
from tests.publishing.finished_run import TOKEN, contents, copy_of, finish_run, let_write, prove_here
from tests.publishing.push_faults import (
    CALLS,
    CARD,
    OPTIONS,
    Case,
    all_cases,
    check_completed,
    check_end,
    check_history,
    some_cases,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been waited for."""
    seconds: list[float] = []
    monkeypatch.setattr("time.sleep", seconds.append)
    return seconds


@pytest.fixture
def run(finished: Path, tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch, waited) -> Path:
    let_write(hub, monkeypatch)
    prove_here(monkeypatch)
    folder = copy_of(finished, tmp_path)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder


def test_the_cases_cover_every_call_that_a_push_makes(hub: HubServer, run: Path):
    assert main(["push", str(run), "--repo-id", "someone/all-calls", *OPTIONS]) == 0
    assert set(hub.calls) == set(CALLS)
    assert len(all_cases()) > 300
    assert len(some_cases()) > 60


@pytest.mark.parametrize("case", some_cases(), ids=str)
def test_a_push_that_is_hit(case: Case, hub: HubServer, repo_id: str, run: Path, capsys: pytest.CaptureFixture):
    before = contents(run)
    fault = hub.inject(case.call, case.kind, times=case.times, after=case.after, seconds=case.seconds)
    exit_code = main(["push", str(run), "--repo-id", repo_id, *OPTIONS])
    captured = capsys.readouterr()
    assert fault.times in (0, None), "the fault was never met"
    check_end(hub, repo_id, run, before, exit_code, captured.err, TOKEN)
    assert TOKEN not in captured.out
    if case.times is None and case.call != "lfs_verify":  # the file is there, so the next try does not verify it
        assert exit_code != 0
    hub.faults.clear()
    assert main(["push", str(run)]) == 0
    check_completed(hub, repo_id, run)
    assert contents(run) == before


def test_somebody_else_commits_in_between(hub: HubServer, repo_id: str, run: Path, monkeypatch: pytest.MonkeyPatch):
    assert main(["push", str(run), "--repo-id", repo_id]) == 0
    repository = hub.repositories["models", repo_id]
    (run / "metrics.json").write_text("{}\n", encoding="utf-8")
    real, others = HfApi.create_commit, []

    def create_commit(self, *args, **options):
        if not others:
            files = repository.commits[repository.refs["main"]]
            others.append(repository.commit({**files, "hello.md": b"from a colleague"}, title="theirs"))
        return real(self, *args, **options)

    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    assert main(["push", str(run)]) == 0
    head = repository.commits[repository.refs["main"]]
    assert head["hello.md"] == b"from a colleague"
    assert head["metrics.json"] == b"{}\n"
    assert [repository.titles[commit] for commit in repository.history()][1] == "theirs"


def test_a_wait_that_the_hub_asks_for(hub: HubServer, repo_id: str, run: Path, waited: list[float], capsys):
    hub.inject("commit", "429", seconds=17)
    hub.inject("commit", "429-ratelimit", seconds=23)
    assert main(["push", str(run), "--repo-id", repo_id]) == 0
    assert [seconds for seconds in waited if seconds > 10] == [18.0, 24.0]
    hub.inject("info", "429", seconds=4000)
    assert main(["push", str(run)]) == 1
    assert "asked to wait 4001 seconds" in capsys.readouterr().err


def test_a_server_that_says_nothing(hub: HubServer, repo_id: str, run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hf_transfer.publishing.push_patience.ANSWER_TIMEOUT", 0.5)
    hub.inject("commit", "slow", seconds=2, times=1)
    assert main(["push", str(run), "--repo-id", repo_id, *OPTIONS]) == 0
    check_completed(hub, repo_id, run)


def test_patience_has_an_end(hub: HubServer, repo_id: str, run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hf_transfer.publishing.push_patience.PATIENCE", 0.0)
    hub.inject("commit", "503", times=None)
    assert main(["push", str(run), "--repo-id", repo_id]) == 1
    assert hub.calls.count("commit") == 1


def test_a_commit_that_landed_is_not_made_twice(hub: HubServer, repo_id: str, run: Path):
    for kind in ("cut", "503", "502-html", "403"):
        name = f"{repo_id}-{kind}"
        hub.inject("commit", kind, after=True)
        assert main(["push", str(run), "--repo-id", name]) == 0
        assert len(list(hub.repositories["models", name].history())) == 2


@pytest.mark.parametrize("kind", ["cut", "503"])
def test_a_pull_request_is_not_opened_twice(hub: HubServer, repo_id: str, run: Path, kind: str):
    hub.inject("commit", kind, after=True)
    assert main(["push", str(run), "--repo-id", repo_id, "--create_pr"]) == 0
    assert len(hub.repositories["models", repo_id].pull_requests) == 1


@pytest.mark.parametrize(
    ("name", "trusted", "words"),
    [
        ("config.json", False, "config.json of someone/"),
        ("model.safetensors", False, "model.safetensors of someone/"),
        ("model.safetensors", True, "does not answer as the model in the run's folder does"),
    ],
)
def test_what_came_back_is_not_what_was_pushed(
    name: str, trusted: bool, words: str, hub: HubServer, repo_id: str, run: Path, capsys, monkeypatch
):
    real = push_proof.snapshot_download

    def download(*args: object, **options: object) -> str:
        folder = Path(real(*args, **options))
        content = bytearray((folder / name).read_bytes())
        # In a file of weights the last bytes are of the last tensor.
        content[-3:] = b"   " if name.endswith(".json") else bytes(value ^ 0x7F for value in content[-3:])
        (folder / name).write_bytes(bytes(content))
        return str(folder)

    monkeypatch.setattr(push_proof, "snapshot_download", download)
    if trusted:
        monkeypatch.setattr(push_proof, "_compare_files", lambda *_: None)
    assert main(["push", str(run), "--repo-id", repo_id]) == 1
    assert words in capsys.readouterr().err
    assert json.loads((run / "push.json").read_text(encoding="utf-8"))["status"] == "published"


def test_the_message_is_a_command_that_works(hub: HubServer, repo_id: str, run: Path, capsys: pytest.CaptureFixture):
    hub.inject("commit", "500", times=None)
    assert main(["push", str(run), "--repo-id", repo_id, *OPTIONS, "--no_widget_images"]) == 1
    capsys.readouterr()
    hub.faults.clear()
    finish = json.loads((run / "push.json").read_text(encoding="utf-8"))["finish"]
    assert main(shlex.split(finish)[1:]) == 0
    check_completed(hub, repo_id, run)
    check_history(hub.repositories["models", repo_id], {"config.json", "model.safetensors"})
