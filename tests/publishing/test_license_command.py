"""`hf-transfer license` and the check in a run: exit codes, what is said, and that nothing is trained."""

import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from hf_transfer.cli import main
from hf_transfer.publishing.license_verdict import Grade, LicenseVerdict
from tests.hub_server import HubServer
from tests.publishing.license_answers import card
from tests.tiny_project import tiny_project

RUN = ["--use_cpu", "--max_steps", "1", "--disable_tqdm", "true", "--check_usage", "false"]


@pytest.mark.parametrize(
    ("license_id", "use", "code"),
    [
        ("mit", "commercial", 0),
        ("cc0-1.0", "commercial", 0),
        ("cc-by-nc-4.0", "research", 0),
        ("cc-by-nc-4.0", "commercial", 4),
        ("llama3", "commercial", 3),
        ("other", "commercial", 3),
        ("unknown", "research", 3),
        (None, "research", 3),
    ],
)
def test_exit_codes(hub: HubServer, repo_id: str, capsys, license_id: str | None, use: str, code: int):
    hub.add_model(repo_id, card(license=license_id))
    assert main(["license", "--model", repo_id, "--use", use]) == code
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{use} use: ")
    assert "not legal advice" in captured.out
    assert captured.err == ""


def test_json(hub: HubServer, repo_id: str, capsys: pytest.CaptureFixture):
    hub.add_model(repo_id, card(license="apache-2.0"))
    assert main(["license", "--model", repo_id, "--dataset", "digits", "--use", "commercial", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert "not legal advice" in answer.pop("disclaimer")
    verdict = LicenseVerdict.from_dict(answer)
    assert verdict.grade is Grade.OBLIGATIONS
    assert [link.work for link in verdict.links] == [repo_id, "digits"]
    assert verdict.outgoing is not None
    assert verdict.outgoing.license == "apache-2.0"


def test_what_people_read(hub: HubServer, repo_id: str, capsys: pytest.CaptureFixture):
    hub.add_model(repo_id, card(license="apache-2.0", base_model="facebook/convnextv2-tiny-1k-224"))
    hub.add_model("facebook/convnextv2-tiny-1k-224", card(license="apache-2.0"))
    assert main(["license", "--model", repo_id, "--use", "commercial"]) == 4
    text = capsys.readouterr().out
    assert "commercial use: forbidden" in text
    assert "under cc-by-nc-4.0" in text
    assert "card: apache-2.0" in text
    assert "timm registry: cc-by-nc-4.0" in text
    assert "disagree" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--use pleasure", "invalid choice"),
        ("--model quickstart", "required: --use"),
        ("--use research --modle_revision x", "--model_revision"),
        ("--use research --license_override quickstart=mit", "one evidence for each"),
        ("--use research --license_override mit --license_evidence https://e.org", "WORK=ID"),
        ("--use research --license_override quickstart=mti --license_evidence https://e.org", "override mit"),
        ("--use research --license_override quickstart=other --license_evidence https://e.org", "nothing can be"),
        ("--use research --license_override quikstart=mit --license_evidence https://e.org", "quickstart=mit"),
        ("--use research --license_override quickstart=mit --license_evidence word", "neither a link"),
        ("--use research --license_override q=mit q=mit --license_evidence https://e.org https://e.org", "twice"),
        ("--use research --dataset digits --data_license free", "no licence that is known"),
        ("--use research --data_license own", "without a data set"),
        ("--use research --dataset digits --dataset_revision v1", "drop --dataset_revision"),
        ("--use research --model_revision v1", "drop --model_revision"),
        ("--use research --model hf-hub:timm/x", "--model timm/x"),
        ("--use research --model a/b/c", "there is no such folder"),
        ("--use research --model 'x", "neither a folder nor a Hub id"),
        ("--use research --dataset ./nothing", "no id of a Hub data set"),
        ("--use research --dataset nothing.csv", "no id of a Hub data set"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(words: str, said: str, capsys: pytest.CaptureFixture):
    assert main(["license", "--model", "quickstart", *words.split()]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_folder_that_does_not_exist(capsys: pytest.CaptureFixture):
    assert main(["license", "--model", "./nothing", "--use", "research"]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_an_override_with_a_file_as_evidence(hub: HubServer, repo_id: str, tmp_path: Path, capsys):
    hub.add_model(repo_id, card(license="other", license_name="house-terms"))
    letter = tmp_path / "letter.txt"
    letter.write_text("You may.", encoding="utf-8")
    words = ["license", "--model", repo_id, "--use", "commercial", "--json"]
    assert main(words) == 3
    capsys.readouterr()
    assert main([*words, "--license_override", f"{repo_id}=own", "--license_evidence", str(letter)]) == 0
    (override,) = json.loads(capsys.readouterr().out)["overrides"]
    assert override == {
        "work": repo_id,
        "license": "own",
        "evidence": f"letter.txt sha256:{hashlib.sha256(b'You may.').hexdigest()}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def project(folder: Path, license_id: str | None) -> list[str]:
    """Makes a tiny project whose checkpoint has this licence, and returns the words that train it."""
    torch.manual_seed(0)
    checkpoint, pictures = tiny_project(folder)
    if license_id:
        (checkpoint / "README.md").write_bytes(card(license=license_id)["README.md"])
    return [
        *("train", "--model", str(checkpoint), "--dataset", str(pictures), "--output_dir", str(folder / "run")),
        *RUN,
    ]


@pytest.mark.parametrize(("license_id", "code"), [("cc-by-nc-4.0", 4), (None, 3), ("llama3", 3)])
def test_a_run_stops_before_any_compute(
    license_id: str | None, code: int, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the run went on")

    words = project(tmp_path, license_id)
    for stage in ("load_image_data", "load_checkpoint", "build_trainer"):
        monkeypatch.setattr(f"hf_transfer.pipeline.{stage}", never)
    assert main([*words, "--use", "commercial", "--data_license", "own"]) == code
    captured = capsys.readouterr()
    assert "not legal advice" in captured.err
    assert str(tmp_path / "checkpoint") in captured.err
    assert ("--license_override" in captured.err) == (code in (3, 4))
    assert "Traceback" not in captured.err
    assert not (tmp_path / "run").exists()


def test_pictures_nobody_knows_the_licence_of_stop_a_commercial_run(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = project(tmp_path, "mit")
    assert main([*words, "--use", "commercial"]) == 3
    assert "--data_license own" in capsys.readouterr().err


def test_the_verdict_is_in_the_report_and_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = project(tmp_path, "mit")
    assert main([*words, "--use", "commercial", "--data_license", "own"]) == 0
    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    verdict = LicenseVerdict.from_dict(report["license"])
    assert (verdict.use, verdict.grade) == ("commercial", Grade.OBLIGATIONS)
    assert [(link.role, link.license) for link in verdict.links] == [("model", "mit"), ("dataset", "own")]
    (row,) = [decision for decision in report["decisions"] if decision["name"] == "licences"]
    assert row["value"] == "allowed with obligations"
    assert row["reason"].startswith("for commercial use; ")
    assert row["reason"].endswith("published under mit")
    assert "licences" in capsys.readouterr().out
    # What was made of it knows where it comes from.
    again = ["license", "--model", str(tmp_path / "run" / "model"), "--use", "commercial", "--json"]
    assert main(again) == 0
    links = json.loads(capsys.readouterr().out)["links"]
    assert [(link["role"], link["license"]) for link in links] == [
        ("model", "own"),
        ("base model", "mit"),
        ("dataset", "own"),
    ]


def test_without_a_declared_use_a_run_goes_on_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = project(tmp_path, None)
    assert main(words) == 0
    text = capsys.readouterr().out
    assert re.search(r"licences +needs review +for research, since --use was not given; ", text)
    assert "note: Not published as things stand" in text


def test_research_that_nobody_can_judge_goes_on_too(tmp_path: Path):
    assert main([*project(tmp_path, None), "--use", "research"]) == 0


def test_a_model_that_does_not_exist_is_a_mistake_and_not_a_licence(hub: HubServer, repo_id: str, capsys):
    assert main(["train", "--model", repo_id, "--dataset", "digits", "--use", "commercial", *RUN]) == 2
    assert "shows no model" in capsys.readouterr().err


def test_a_token_shows_up_nowhere(hub: HubServer, repo_id: str, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_marked0token")
    hub.add_model(repo_id, card(license="mit"))
    assert main(["license", "--model", repo_id, "--use", "commercial", "--json"]) == 3
    hub.users["hf_marked0token"] = "somebody"
    assert main(["license", "--model", repo_id, "--use", "commercial", "--json"]) == 0
    captured = capsys.readouterr()
    assert "hf_marked" not in captured.out + captured.err
