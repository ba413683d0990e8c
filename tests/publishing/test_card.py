"""The card: what is on it, what is left out, and that whatever is put in comes out as text."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, metadata_eval_result
from huggingface_hub.repocard_data import model_index_to_eval_results

from hf_transfer.cli import main
from hf_transfer.publishing.card import render_card
from hf_transfer.publishing.card_lint import HEADINGS, lint_card
from hf_transfer.publishing.card_text import escape
from tests.publishing.card_reports import folder_of, kept_report, renamed
from tests.publishing.nasty import NASTY


@pytest.fixture
def report() -> dict[str, Any]:
    return kept_report()


def metadata(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def headings(card: str) -> list[str]:
    return re.findall(r"^## (.*)$", card, re.MULTILINE)


def test_all_sections_are_there_in_their_order(report: dict[str, Any]):
    assert headings(render_card(report)) == list(HEADINGS[2])


def test_a_late_step_that_is_kept_is_not_called_the_best(report: dict[str, Any]):
    report["training"] |= {"best_metric": 0.8724, "highest_metric": 0.8798}
    card = render_card(report)
    assert "the last whose validation accuracy (0.8724) is within a standard error of the highest (0.8798)" in card
    report["training"]["highest_metric"] = 0.8724
    assert "the best by validation accuracy (0.8724)" in render_card(report)


def test_metadata(report: dict[str, Any]):
    found = metadata(render_card(report))
    assert found["license"] == "apache-2.0"
    assert found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "image-classification"
    assert {"base_model", "datasets", "widget"} & found.keys() == set()
    assert found["metrics"] == ["accuracy", "balanced_accuracy", "macro_f1", "top5_accuracy"]


def test_model_index_is_metrics_json_and_huggingface_hub_reads_it(report: dict[str, Any], tmp_path: Path):
    card = ModelCard(render_card(report), ignore_metadata_errors=False)
    found: dict[str, dict[str, float]] = {}
    for result in card.data.eval_results:
        found.setdefault(result.dataset_split, {})[result.metric_type] = result.metric_value
    folder = folder_of(report, tmp_path)
    assert found == json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert all(type(value) is float for values in found.values() for value in values.values())


def test_metadata_are_of_the_shape_that_huggingface_hub_makes(report: dict[str, Any]):
    index = metadata(render_card(report))["model-index"]
    made = metadata_eval_result(
        model_pretty_name=index[0]["name"],
        task_pretty_name="Image classification",
        task_id="image-classification",
        metrics_pretty_name="Accuracy",
        metrics_id="accuracy",
        metrics_value=report["evaluation"]["test"]["metrics"]["accuracy"],
        dataset_pretty_name="digits",
        dataset_id="digits",
        dataset_split="test",
    )["model-index"]
    name, (expected,) = model_index_to_eval_results(made)
    ours = {(one.dataset_split, one.metric_type): one for one in model_index_to_eval_results(index)[1]}
    found = ours["test", "accuracy"]
    assert name == index[0]["name"]
    assert found.unique_identifier == expected.unique_identifier
    for field in ("metric_value", "metric_name", "task_name", "dataset_name"):
        assert getattr(found, field) == getattr(expected, field)


def test_works_of_the_hub_are_named_in_the_metadata(report: dict[str, Any]):
    commit = "0123456789abcdef0123456789abcdef01234567"
    report["checkpoint"] |= {"source": "google/vit-base-patch16-224", "revision": commit}
    report["lineage"]["base_model"] |= {"id": "google/vit-base-patch16-224", "commit": commit}
    report["data"] |= {"name": "someone/flowers", "kind": "hub", "revision": commit}
    card = render_card(report)
    found = metadata(card)
    assert (found["base_model"], found["base_model_relation"]) == ("google/vit-base-patch16-224", "finetune")
    assert found["datasets"] == ["someone/flowers"]
    dataset = found["model-index"][0]["results"][0]["dataset"]
    assert (dataset["type"], dataset["revision"]) == ("someone/flowers", commit)
    assert card.count(commit) >= 3
    assert "# vit-base-patch16-224 fine-tuned on flowers" in card


def test_from_scratch_there_is_no_base_model(report: dict[str, Any]):
    report["checkpoint"] |= {"source": "a/b", "revision": "1" * 40, "weights_sha256": None, "new_tensors": ["x"] * 7}
    report["lineage"]["base_model"] |= {"id": "a/b", "commit": "1" * 40, "weights_sha256": None}
    card = render_card(report)
    assert "base_model" not in metadata(card)
    assert "from fresh weights" in card
    assert "all 7" in card


def test_no_licence_is_written_that_nobody_decided(report: dict[str, Any], tmp_path: Path):
    report["license"] = None
    card = render_card(report)
    assert "license" not in metadata(card)
    assert "were not checked" in card
    assert "Licence" not in headings(card)
    report = kept_report()
    report["license"] |= {"outgoing": None, "publishing": "needs review", "grade": "needs review"}
    card = render_card(report)
    assert not [key for key in metadata(card) if key.startswith("license")]
    assert "**Licence: none was decided**" in card
    assert "needs review" in card
    assert lint_card(card, folder_of(report, tmp_path), report) == []


def test_another_licence_has_name_and_link(report: dict[str, Any], tmp_path: Path):
    outgoing = {"license": "other", "name": "a-licence", "link": "LICENSE", "reason": "so", "files": ["LICENSE"]}
    report["license"]["outgoing"] = outgoing
    card = render_card(report)
    found = metadata(card)
    assert (found["license"], found["license_name"], found["license_link"]) == ("other", "a-licence", "LICENSE")
    folder = folder_of(report, tmp_path)
    assert lint_card(card, folder, report) == []
    outgoing["files"] = []
    assert any("'LICENSE'" in problem for problem in lint_card(card, folder, report))


def test_an_override_is_on_the_card_with_its_evidence(report: dict[str, Any]):
    report["license"]["overrides"] = [
        {"work": "a/b", "license": "mit", "evidence": "https://example.org/<letter>", "date": "2026-11-23"}
    ]
    card = render_card(report)
    assert "a/b is mit (evidence: https&#58;//example.org/&lt;letter&gt;; 2026-11-23)" in card


def test_use_is_shown_only_where_it_was_tried(report: dict[str, Any]):
    assert "pipeline(" in render_card(report)
    for usage in (None, {"worked": False, "problem": "no such file"}):
        report["usage"] = usage
        card = render_card(report)
        assert "pipeline(" not in card
        assert "How to use" not in headings(card)
        assert "no such file" not in card


def test_what_a_run_did_not_record_is_left_out(report: dict[str, Any], tmp_path: Path):
    for key in ("license", "lineage", "usage", "not_measured"):
        del report[key]
    del report["data"]["duplicates"]
    del report["checkpoint"]["preprocessing"]
    del report["training"]["layer_groups"]
    for values in report["evaluation"].values():
        for key in ("calibration", "top_confusions", "majority"):
            del values[key]
        for row in values["per_class"]:
            del row["recall_interval"]
    for key in ("confusions", "calibration", "manifest", "card"):
        del report["outputs"][key]
    card = render_card(report)
    assert {"Calibration", "Licence", "How to use"} & set(headings(card)) == set()
    assert not re.search(r"\b(None|nan|undefined|TODO)\b|More information needed", card)
    assert lint_card(card, folder_of(report, tmp_path), report) == []


@pytest.mark.parametrize("start", range(0, len(NASTY), 10))
def test_class_names_do_not_get_out(report: dict[str, Any], start: int, tmp_path: Path):
    names = NASTY[start : start + 10]
    changed = renamed(report, names)
    card = render_card(changed)
    assert lint_card(card, folder_of(changed, tmp_path), changed) == []
    assert headings(card) == list(HEADINGS[2])
    for name in names:
        assert f"| {escape(name)} |" in card
    assert card.count("<") == 0


def test_nothing_else_from_outside_gets_out(report: dict[str, Any], tmp_path: Path):
    text = "\n".join(NASTY)
    for name in ("recipe", "dataset", "model"):
        report["config"][name] = text
    report["command"] = [text, "--x", "`" * 9]
    report["data"] |= {"name": text, "notes": [text], "revision": text, "kind": "hub"}
    report["data"]["split_methods"]["train"] = text
    report["checkpoint"] |= {"source": text, "revision": text, "notes": [text], "architecture": text}
    report["decisions"] = [{"name": one["name"], "value": text, "reason": text} for one in report["decisions"]]
    link = report["license"]["links"][0]
    link |= {"work": text, "reason": text, "license": text, "problem": text}
    link["statements"][0] |= {"license": text, "evidence": text, "name": text, "link": text}
    report["license"]["notes"] = [text]
    report["license"]["obligations"][0] |= {"work": text, "duty": text, "how_met": text}
    report["not_measured"] = [text]
    report["hardware"] |= {"processor": text}
    outgoing = {"license": "other", "name": text, "link": "https://x.org", "reason": text, "files": []}
    report["license"]["outgoing"] = outgoing
    card = render_card(report)
    assert lint_card(card, folder_of(report, tmp_path), report) == []
    prose = re.sub(r"^(`{3,}).*?^\1$", "", card.split("\n---\n", 1)[1], flags=re.DOTALL | re.MULTILINE)
    assert "<" not in prose
    assert headings(card) == list(HEADINGS[2])


def test_folders_of_this_computer_and_tokens_stay_here(report: dict[str, Any], tmp_path: Path):
    report["command"] = [
        "--dataset",
        "/home/me/my photos",
        "--model",
        "/srv/models/mine",
        "--hub_token=hf_abcdefghijklmnopqrs",
    ]
    report["config"] |= {"dataset": "/home/me/my photos", "model": "/srv/models/mine"}
    report["data"] |= {"name": "/home/me/my photos", "kind": "imagefolder"}
    report["data"]["notes"] = ["/home/me/my photos/cat/1.jpg cannot be read."]
    report["checkpoint"]["source"] = "/srv/models/mine"
    report["license"]["links"][1]["work"] = "/home/me/my photos"
    card = render_card(report)
    assert not re.search(r"/home|/srv|hf_abc", card)
    assert "# mine fine-tuned on my photos" in card
    assert metadata(card)["model-index"][0]["results"][0]["dataset"]["name"] == "my photos"
    assert lint_card(card, folder_of(report, tmp_path), report) == []


def test_many_classes_are_cut_down_to_the_worst(report: dict[str, Any], tmp_path: Path):
    names = [f"class {number}" for number in range(300)]
    data = report["data"]
    data |= {"label_names": names, "class_counts": {split: [40] * 300 for split in data["class_counts"]}}
    row = {"precision": 1.0, "recall": 1.0, "recall_interval": [0.9, 1.0], "count": 40}
    report["evaluation"]["test"]["per_class"] = [
        {"label": name, "f1": None if number == 7 else number / 300, **row} for number, name in enumerate(names)
    ]
    card = render_card(report)
    table = card.split("### By class")[1].split("###")[0]
    assert table.count("\n| class ") == 31
    assert "class 7 " not in table
    assert "the other 270 are in" in table
    assert "100 more classes" in card
    assert lint_card(card, folder_of(report, tmp_path), report) == []


def test_limits_say_what_is_thin(report: dict[str, Any]):
    data, test = report["data"], report["evaluation"]["test"]
    data["duplicates"] = {"within": {"train": 2, "validation": 0, "test": 0}, "across": {"test in train": 3}}
    for number, row in enumerate(test["per_class"]):
        row |= {"count": 100, "recall": 0.9, "recall_interval": [0.8, 0.95]}
        data["class_counts"]["train"][number] = 100
    test["per_class"][3] |= {"count": 0, "recall": None, "recall_interval": None}
    test["per_class"][4] |= {"count": 8, "recall": 0.25}
    limits = render_card(report).split("## Limits")[1].split("##")[0]
    assert "Worst recognised: 4 (recall 0.2500 on 8 pictures, 95 % interval 0.800 to 0.950);" in limits
    assert "one picture is 12.5 points of recall): 4 (8)." in limits
    assert "nothing is known of: 3." in limits
    assert "in two splits: 3 test in train." in limits
    assert "repeat another of their split: 2 in train." in limits
    assert "training pictures:" not in limits
    test["per_class"] = [row | {"recall": 1.0, "count": 100} for row in test["per_class"]]
    assert "Every test picture was recognised" in render_card(report)


def test_the_same_report_gives_the_same_page(report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = render_card(report)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somewhere/else")
    assert render_card(json.loads(json.dumps(report))) == first
    assert first.endswith("\n")
    assert "\n\n\n" not in first


def test_the_command_renders_again_from_run_json_alone(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
):
    folder = folder_of(report, tmp_path / "run")
    assert main(["card", str(folder)]) == 0
    assert (folder / "README.md").read_text(encoding="utf-8") == render_card(report)
    capsys.readouterr()
    assert main(["card", str(folder), "--json"]) == 0
    answer = {"card": str(folder / "README.md"), "changed": False, "problems": []}
    assert json.loads(capsys.readouterr().out) == answer
    (folder / "curves.png").unlink()
    assert main(["card", str(folder)]) == 1
    assert "curves.png, which is not there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no run.json"),
        (b"{", "damaged"),
        (b"\xff", "damaged"),
        (b"[]", "no report of a run"),
        (b'{"command": []}', "it lacks"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(
    content: bytes | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    for command in ("card", "verify"):
        assert main([command, str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert "Traceback" not in error


def test_a_report_of_another_schema_is_refused(report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["card", str(folder_of(report | {"schema_version": 99}, tmp_path))]) == 2
    assert "schema version 99" in capsys.readouterr().err
