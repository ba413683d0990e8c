"""A push of a finished run to a Hub over real HTTP: what is published, once and again, and what is refused."""

import json
from pathlib import Path

import huggingface_hub
import pytest
from PIL import Image

from hf_transfer.cli import main
from hf_transfer.publishing.card import write_card
from hf_transfer.publishing.card_lint import lint_card
from tests.hub_server import LARGE_FILES, HubServer
from tests.publishing.finished_run import (
    MODEL_FILES,
    TOKEN,
    contents,
    copy_of,
    finish_run,
    let_write,
    prove_here,
    texts_below,
)

PUBLISHED = {
    *MODEL_FILES,
    ".gitattributes",
    "LICENSE",
    "NOTICE",
    "README.md",
    "calibration.png",
    "confusion_matrix.png",
    "curves.png",
    "history.csv",
    "metrics.json",
    "run.json",
    "widget/example-1.jpg",
    "widget/example-2.jpg",
    "widget/example-3.jpg",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run(finished: Path, tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    let_write(hub, monkeypatch)
    prove_here(monkeypatch)
    return copy_of(finished, tmp_path)


def push(run: Path, repo_id: str, *options: str) -> int:
    return main(["push", str(run), "--repo-id", repo_id, *options])


def state_of(run: Path) -> dict:
    return json.loads((run / "push.json").read_text(encoding="utf-8"))


def published(hub: HubServer, repo_id: str, revision: str = "main") -> dict[str, bytes]:
    repository = hub.repositories["models", repo_id]
    return repository.commits[repository.resolve(revision)]


@pytest.mark.parametrize("large_files", [(), LARGE_FILES], ids=["regular", "lfs"])
def test_what_is_published(hub: HubServer, repo_id: str, run: Path, large_files: tuple[str, ...]):
    hub.large_files = large_files
    before = contents(run)
    assert push(run, repo_id) == 0
    repository = hub.repositories["models", repo_id]
    files = published(hub, repo_id)
    assert repository.private
    assert set(files) == PUBLISHED
    assert len(list(repository.history())) == 2
    for name in MODEL_FILES:
        assert files[name] == (run / "model" / name).read_bytes()
    assert contents(run) == before
    state = state_of(run)
    assert state["status"] == "done"
    assert state["commit"] == repository.refs["main"]
    assert state["proof"]["files"] == len(PUBLISHED) - 1
    assert state["proof"]["pictures"] == 3
    assert state["proof"]["largest_difference"] <= 1e-5
    assert set(state["proof"]["predicted"]) <= {"dark", "grey", "light"}


def test_run_json_tells_no_folder_of_this_computer(hub: HubServer, repo_id: str, run: Path, finished: Path):
    assert push(run, repo_id) == 0
    text = published(hub, repo_id)["run.json"].decode()
    here = json.loads((run / "run.json").read_text(encoding="utf-8"))
    there = json.loads(text)
    assert str(finished.parent) not in text
    assert "/tmp" not in text
    assert there["config"]["dataset"] == "pictures"
    assert there["data"] == {**here["data"], "name": "pictures"}
    assert there["evaluation"] == here["evaluation"]
    assert there["history"] == here["history"]


def test_pushed_again_nothing_happens(hub: HubServer, repo_id: str, run: Path, capsys: pytest.CaptureFixture):
    assert push(run, repo_id) == 0
    head = hub.repositories["models", repo_id].refs["main"]
    hub.calls.clear()
    assert main(["push", str(run)]) == 0
    assert "There already" in capsys.readouterr().out
    assert not {"commit", "preupload", "lfs_batch", "lfs_put", "resolve", "create_repo"} & set(hub.calls)
    assert hub.repositories["models", repo_id].refs["main"] == head
    assert state_of(run)["already_there"]
    # Nor does a lost push.json lead to a second commit.
    (run / "push.json").unlink()
    assert push(run, repo_id) == 0
    assert hub.repositories["models", repo_id].refs["main"] == head


def test_a_changed_run_replaces_the_earlier_one(hub: HubServer, repo_id: str, run: Path):
    assert push(run, repo_id) == 0
    (run / "history.csv").write_text("epoch\n", encoding="utf-8")
    assert push(run, repo_id, "--no_widget_images") == 0
    assert set(published(hub, repo_id)) == {name for name in PUBLISHED if not name.startswith("widget/")}
    assert published(hub, repo_id)["history.csv"] == b"epoch\n"
    assert len(list(hub.repositories["models", repo_id].history())) == 3
    assert len(state_of(run)["removed"]) == 3


def test_pull_request(hub: HubServer, repo_id: str, run: Path, capsys: pytest.CaptureFixture):
    hub.add_model(repo_id, {"README.md": b"mine"}, private=True)
    before = hub.repositories["models", repo_id].refs["main"]
    assert push(run, repo_id, "--create_pr") == 0
    repository = hub.repositories["models", repo_id]
    assert repository.refs["main"] == before
    assert set(published(hub, repo_id, "refs/pr/1")) == PUBLISHED - {".gitattributes"}
    assert f"{hub.url}/{repo_id}/discussions/1" in capsys.readouterr().out
    assert main(["push", str(run)]) == 0
    assert len(repository.pull_requests) == 1
    assert state_of(run)["proof"]["commit"] == repository.refs["refs/pr/1"]


def test_branch_tag_and_collection(hub: HubServer, repo_id: str, run: Path):
    options = ["--branch", "trial/1", "--tag", "v1", "--collection", "My models"]
    for _ in range(2):
        assert push(run, repo_id, *options) == 0
    repository = hub.repositories["models", repo_id]
    assert set(published(hub, repo_id)) == {".gitattributes"}
    assert set(published(hub, repo_id, "trial/1")) == PUBLISHED
    assert repository.tags == {"v1": repository.refs["trial/1"]}
    (collection,) = hub.collections.values()
    assert collection["private"]
    assert [item["id"] for item in collection["items"]] == [repo_id]
    (run / "history.csv").write_text("epoch\n", encoding="utf-8")
    assert push(run, repo_id, *options) == 2  # the tag names the commit before
    assert repository.tags["v1"] != repository.refs["trial/1"]


def test_a_public_repository_must_be_meant(hub: HubServer, repo_id: str, run: Path, capsys: pytest.CaptureFixture):
    hub.add_model(repo_id, {"README.md": b"mine"})
    assert push(run, repo_id) == 2
    assert "--public" in capsys.readouterr().err
    assert set(published(hub, repo_id)) == {"README.md"}
    assert push(run, repo_id, "--public") == 0
    assert "(public)" in capsys.readouterr().out
    assert push(run, f"{repo_id}-new", "--public") == 0
    assert not hub.repositories["models", f"{repo_id}-new"].private


def test_other_files_stay_and_other_weights_are_refused(hub: HubServer, repo_id: str, run: Path, capsys):
    repository = hub.add_model(repo_id, {"notes.md": b"mine", "pytorch_model.bin": b"pickle"}, private=True)
    assert push(run, repo_id) == 2
    assert "pytorch_model.bin" in capsys.readouterr().err
    assert len(repository.commits) == 1
    repository.commit({"notes.md": b"mine", "onnx/model.onnx": b"x"})
    assert push(run, repo_id) == 0
    assert {"notes.md", "onnx/model.onnx"} < set(published(hub, repo_id))


def test_the_card_names_the_pictures(hub: HubServer, repo_id: str, run: Path):
    card = "---\nlicense: mit\nmetrics:\n- accuracy\n---\n# A card\n\n![Curves](curves.png)\n"
    (run / "README.md").write_text(card, encoding="utf-8")
    assert push(run, repo_id) == 0
    there = huggingface_hub.ModelCard(published(hub, repo_id)["README.md"].decode())
    assert [example["src"] for example in there.data["widget"]] == [f"widget/example-{n}.jpg" for n in (1, 2, 3)]
    assert there.data.license == "mit"
    assert there.text == huggingface_hub.ModelCard(card).text
    assert (run / "README.md").read_text(encoding="utf-8") == card
    assert push(run, repo_id, "--no_widget_images") == 0
    assert published(hub, repo_id)["README.md"].decode() == card
    assert not [name for name in published(hub, repo_id) if name.startswith("widget/")]


def test_pictures_hold_pixels_and_nothing_else(hub: HubServer, repo_id: str, run: Path):
    assert push(run, repo_id) == 0
    for number in (1, 2, 3):
        with Image.open(run / "widget" / f"example-{number}.jpg") as picture:
            assert picture.size == (36, 36)
            assert not picture.getexif()


def with_data_license(run: Path, **changes: object) -> None:
    report = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (link,) = [link for link in report["license"]["links"] if link["role"] == "dataset"]
    link |= {name: value for name, value in changes.items() if name in link}
    report["license"]["data_report_only"] = changes.get("data_report_only", False)
    (run / "run.json").write_text(json.dumps(report), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"license": "cc-by-4.0"}, 3),
        ({"license": None}, 0),
        ({"license": "unknown"}, 0),
        ({"license": "other"}, 0),
        ({"license": "cc-by-nd-4.0"}, 0),
        ({"license": "own", "conflict": True}, 0),
        ({"license": "own", "problem": "could not be read"}, 0),
        ({"license": "mit", "data_report_only": True}, 0),
    ],
    ids=str,
)
def test_pictures_go_along_only_where_the_licence_surely_allows_it(
    hub: HubServer, repo_id: str, run: Path, changes: dict, count: int
):
    with_data_license(run, **changes)
    assert push(run, repo_id) == 0
    assert sum(name.startswith("widget/") for name in published(hub, repo_id)) == count
    # Compared they are all the same, with others where they stay here.
    assert state_of(run)["proof"]["pictures"] == 3


@pytest.mark.parametrize(
    ("publishing", "exit_code", "words"),
    [("forbidden", 4, "forbidden by the licences"), ("needs review", 3, "a person must look"), (None, 3, "never")],
)
def test_licences_come_first(
    hub: HubServer, repo_id: str, run: Path, publishing: str | None, exit_code: int, words: str, capsys
):
    report = json.loads((run / "run.json").read_text(encoding="utf-8"))
    report["license"] = report["license"] and publishing and {**report["license"], "publishing": publishing}
    (run / "run.json").write_text(json.dumps(report), encoding="utf-8")
    assert push(run, repo_id) == exit_code
    assert words in capsys.readouterr().err
    assert hub.requests == []


def test_what_the_run_did_not_say_is_said_at_the_push(hub: HubServer, repo_id: str, run: Path, capsys):
    report = json.loads((run / "run.json").read_text(encoding="utf-8"))
    report["config"]["data_license"] = None
    (run / "run.json").write_text(json.dumps(report), encoding="utf-8")
    assert push(run, repo_id, "--data_license", "nobody-knows") == 2
    assert push(run, repo_id, "--data_license", "cc-by-nd-4.0") in (3, 4)
    assert not hub.repositories
    (run / "run.json").write_text(json.dumps({**report, "license": None}), encoding="utf-8")
    write_card({**report, "license": None}, run)
    assert push(run, repo_id) == 3
    capsys.readouterr()
    assert push(run, repo_id, "--data_license", "own") == 0
    assert "\nlicense: mit\n" in published(hub, repo_id)["README.md"].decode()
    there = json.loads(published(hub, repo_id)["run.json"])
    (link,) = [link for link in there["license"]["links"] if link["role"] == "dataset"]
    assert (link["work"], link["license"]) == ("pictures", "own")
    assert {name: there[name] for name in ("evaluation", "history")} == {
        name: report[name] for name in ("evaluation", "history")
    }
    assert main(["push", str(run)]) == 0


def test_a_stricter_licence_is_chosen_at_the_push(hub: HubServer, repo_id: str, run: Path, capsys):
    before = (run / "run.json").read_bytes()
    assert push(run, repo_id, "--license", "cc0-1.0") == 2
    assert "does not keep what" in capsys.readouterr().err
    assert (run / "run.json").read_bytes() == before
    assert push(run, repo_id, "--license", "own") == 2
    assert not hub.repositories
    assert push(run, repo_id, "--license", "apache-2.0") == 0
    there = published(hub, repo_id)
    assert huggingface_hub.ModelCard(there["README.md"].decode()).data.license == "apache-2.0"
    assert b"Apache License" in there["LICENSE"]
    assert any(name.startswith("licenses/") and b"MIT License" in there[name] for name in there)


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "rng_state.pth", "sub/x.pkl", "notes.txt"])
def test_what_is_never_published_is_refused(hub: HubServer, repo_id: str, run: Path, name: str, capsys):
    (run / "model" / name).parent.mkdir(exist_ok=True)
    (run / "model" / name).write_bytes(b"x")
    assert push(run, repo_id) == 2
    assert name in capsys.readouterr().err
    assert not hub.repositories


def test_the_card_on_the_hub_shows_how_this_repository_is_used(hub: HubServer, repo_id: str, run: Path):
    report = json.loads((run / "run.json").read_text(encoding="utf-8"))
    report["usage"] = {"worked": True, "problem": None}
    (run / "run.json").write_text(json.dumps(report), encoding="utf-8")
    write_card(report, run)
    assert push(run, repo_id) == 0
    there = published(hub, repo_id)["README.md"].decode()
    assert f'pipeline("image-classification", model="{repo_id}")' in there
    assert "folder beside this page" not in there
    here = (run / "README.md").read_text(encoding="utf-8")
    assert 'model="model")' in here
    assert lint_card(there, run, report) == lint_card(here, run, report) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("value: ", "value: 1", "in metrics.json"),
        ("license: mit", "license: apache-2.0", "what the run decided is mit"),
        ("# ", "# /home/me/pictures ", "A folder of this computer"),
    ],
)
def test_a_card_that_states_what_is_not_so_is_refused(
    old: str, new: str, words: str, hub: HubServer, repo_id: str, run: Path, capsys: pytest.CaptureFixture
):
    card = (run / "README.md").read_text(encoding="utf-8")
    (run / "README.md").write_text(card.replace(old, new, 1), encoding="utf-8")
    assert push(run, repo_id) == 2
    assert words in capsys.readouterr().err
    assert not hub.repositories
    assert main(["card", str(run)]) == 0
    assert push(run, repo_id) == 0


def test_what_lies_about_is_left_behind(hub: HubServer, repo_id: str, run: Path):
    for name in ("checkpoint-2/optimizer.pt", "secret.txt", "other.png", "figures/a.png", "figures/a.pt"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes(b"x")
    assert push(run, repo_id) == 0
    assert set(published(hub, repo_id)) == PUBLISHED | {"figures/a.png"}


def test_a_card_with_a_token_or_a_missing_picture_is_refused(hub: HubServer, repo_id: str, run: Path, capsys):
    head = "---\nlicense: mit\n---\n"
    for text, words in ((f"see {TOKEN}", "looks like a Hub token"), ("![x](nowhere.png)", "nowhere.png")):
        (run / "README.md").write_text(head + text, encoding="utf-8")
        assert push(run, repo_id) == 2
        assert words in capsys.readouterr().err
    assert not hub.repositories


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["push"], "RUN"),
        (["push", "nowhere"], "no folder nowhere"),
        (["push", ".", "--repo-id", "a/b"], "no finished run"),
        (["push", ".", "--repo_idd", "a/b"], "--repo_id"),
        (["push", ".", "--private", "--public"], "not allowed with"),
    ],
)
def test_mistakes(words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_where_to_must_be_said_once(hub: HubServer, repo_id: str, run: Path, capsys: pytest.CaptureFixture):
    assert main(["push", str(run)]) == 2
    assert "--repo-id OWNER/NAME" in capsys.readouterr().err
    for wrong in ("a/b/c", "-x", "a b"):
        assert main(["push", str(run), f"--repo-id={wrong}"]) == 2
    assert push(run, repo_id.split("/")[1]) == 0  # the token's own user
    assert ("models", repo_id) in hub.repositories


def test_no_rights(hub: HubServer, repo_id: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    hub.add_user("hf_reader", "someone", role="read")
    hub.add_user("hf_stranger", "stranger")
    hub.add_model(f"{repo_id}-there", {"a.txt": b"a"})
    for token, name, words in (
        ("hf_reader", repo_id, "may only read"),
        ("hf_reader", f"{repo_id}-there", "does not have the right"),
        ("hf_stranger", repo_id, "--repo-id stranger/"),
        ("hf_unknown", repo_id, "did not accept your token"),
        (None, repo_id, "not logged in"),
    ):
        monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
        assert push(run, name, "--public") == 2
        assert words in capsys.readouterr().err
    assert [name for _, name in hub.repositories] == [f"{repo_id}-there"]
    assert state_of(run)["finish"].startswith("hf-transfer push")


def test_json(hub: HubServer, repo_id: str, run: Path, capsys: pytest.CaptureFixture):
    assert push(run, repo_id, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == state_of(run)
    assert printed["files"].keys() | {".gitattributes"} == PUBLISHED


def test_the_token_shows_up_nowhere(hub: HubServer, repo_id: str, run: Path, tmp_path: Path, capsys, caplog):
    hub.inject("commit", "403")
    assert push(run, repo_id, "--debug") == 2
    assert push(run, repo_id) == 0
    captured = capsys.readouterr()
    assert TOKEN not in captured.out + captured.err + caplog.text + texts_below(run)
    assert TOKEN.encode() not in b"".join(published(hub, repo_id).values())
