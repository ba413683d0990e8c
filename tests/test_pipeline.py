"""The whole walk on a tiny checkpoint: what is written, that it is true, and that nothing is lost."""

import csv
import dataclasses
import hashlib
import importlib.util
import json
from importlib import metadata
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, pipeline

from hf_transfer.cli import main
from hf_transfer.config import FinetuneConfig
from hf_transfer.errors import UserError
from hf_transfer.publishing.card import render_card
from hf_transfer.publishing.card_lint import lint_card
from hf_transfer.run_folder import prepare_run_folder
from tests.tiny_project import CLASSES, tiny_pictures, tiny_project

OPTIONS = ["--num_train_epochs", "6", "--learning_rate", "3e-3", "--augmentation", "none", "--disable_tqdm", "true"]
QUICK = ["--check_usage", "false"]
"""Running the card's lines takes seconds; one run is enough for that."""


def run(folder: Path, *options: str, model_type: str = "vit", quick: bool = True) -> Path:
    if not (folder / "checkpoint").exists():
        torch.manual_seed(0)
        tiny_project(folder, model_type)
    words = ["train", "--model", str(folder / "checkpoint"), "--dataset", str(folder / "pictures"), "--use_cpu"]
    words += ["--output_dir", str(folder / "run"), "--strategy", "full", *OPTIONS, *options]
    words += QUICK if quick else []
    assert main(words) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("whole"), quick=False)


def report_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def test_every_file_of_the_contract_is_there(finished: Path):
    report = report_of(finished)
    names = {path.name for path in finished.iterdir() if not path.name.startswith("checkpoint-")}
    assert names == set(report["outputs"].values())
    assert names == {
        "run.json", "metrics.json", "history.csv", "curves.png", "confusion_matrix.png", "calibration.png",
        "manifest.jsonl", "README.md", "model",
    }  # fmt: skip
    assert {path.name for path in (finished / "model").iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    for name in ("curves.png", "confusion_matrix.png", "calibration.png"):
        with Image.open(finished / name) as figure:
            assert figure.width > 400


def test_the_card_is_that_of_run_json_and_has_no_fault(finished: Path, capsys: pytest.CaptureFixture):
    report = report_of(finished)
    card = (finished / "README.md").read_text(encoding="utf-8")
    assert card == render_card(report)
    assert lint_card(card, finished, report) == []
    assert report["usage"] == {"worked": True, "problem": None}
    assert "## How to use" in card
    assert str(finished.parent) not in card
    assert main(["verify", str(finished), "--dataset", str(finished.parent / "pictures")]) == 0


def test_lineage_is_that_of_the_files(finished: Path):
    report = report_of(finished)
    lineage = report["lineage"]
    for name, expected in lineage["model_files"].items():
        assert hashlib.sha256((finished / "model" / name).read_bytes()).hexdigest() == expected
    weights = (finished.parent / "checkpoint" / "model.safetensors").read_bytes()
    assert lineage["base_model"] == {
        "id": None, "commit": None, "weights_sha256": hashlib.sha256(weights).hexdigest()
    }  # fmt: skip
    assert lineage["data"]["fingerprint"] == report["data"]["fingerprint"]
    assert lineage["code"]["version"] == report["versions"]["hf-transfer-learning"]
    assert report["data"]["duplicates"]["across"]["test in train"] == 0


def test_what_learned_is_recorded_group_by_group(tmp_path: Path):
    report = report_of(run(tmp_path, "--strategy", "progressive", "--unfreeze_at", "2", "--num_train_epochs", "3"))
    groups = report["training"]["layer_groups"]
    assert [group["learned"] for group in groups] == [False] * (len(groups) - 2) + [True, True]
    assert sum(group["num_parameters"] for group in groups) == report["checkpoint"]["num_parameters"]
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert f"Layer groups trained: {groups[-2]['name']}, head (".replace("_", "\\_") in card
    assert "Layer groups frozen throughout: " in card


def test_a_card_whose_lines_fail_says_nothing_about_use(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hf_transfer.publishing.usage.SECONDS", 0.01)
    folder = run(tmp_path, "--max_steps", "1", quick=False)
    assert "note: the card says nothing about use" in capsys.readouterr().out
    assert report_of(folder)["usage"]["problem"] == "it gave no answer within 0.01 seconds"
    assert "pipeline(" not in (folder / "README.md").read_text(encoding="utf-8")


def test_pipeline_predicts_the_classes(finished: Path):
    classifier = pipeline("image-classification", str(finished / "model"))
    pictures = finished.parent / "pictures" / "test"
    answers = {name: classifier(str(pictures / name / "0.png"))[0]["label"] for name in CLASSES}
    assert answers == {name: name for name in CLASSES}


def test_reported_metrics_are_those_of_the_saved_model(finished: Path):
    classifier = pipeline("image-classification", str(finished / "model"))
    report = report_of(finished)
    for split in ("validation", "test"):
        files = sorted((finished.parent / "pictures" / split).rglob("*.png"))
        hits = [classifier(str(file))[0]["label"] == file.parent.name for file in files]
        assert report["evaluation"][split]["metrics"]["accuracy"] == pytest.approx(sum(hits) / len(hits))
        assert report["evaluation"][split]["num_images"] == len(files)
    metrics = json.loads((finished / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == {split: report["evaluation"][split]["metrics"] for split in ("validation", "test")}
    assert metrics["test"]["accuracy"] > 0.9


def test_run_json_says_what_was_done(finished: Path):
    report = report_of(finished)
    assert report["data"]["split_sizes"] == {"train": 24, "validation": 24, "test": 24}
    assert report["data"]["label_names"] == sorted(CLASSES)
    assert len(report["data"]["fingerprint"]) == 64
    assert report["checkpoint"]["new_tensors"] == ["classifier.weight", "classifier.bias"]
    assert len(report["checkpoint"]["weights_sha256"]) == 64
    assert report["config"]["strategy"] == "full"
    assert report["versions"]["torch"] == metadata.version("torch")
    assert report["seed"] == 42
    assert {"data", "checkpoint", "training", "evaluation"} <= set(report["seconds"])
    assert all(decision["reason"] for decision in report["decisions"])
    assert report["hardware"]["num_processes"] == 1


def test_history_has_a_row_for_each_epoch(finished: Path):
    with (finished / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(float(row["train_loss"]) > 0 and float(row["eval_loss"]) > 0 for row in rows)
    assert float(rows[0]["learning_rate/head"]) == pytest.approx(10 * float(rows[0]["learning_rate/backbone"]))


def test_the_best_epoch_is_the_one_saved(finished: Path):
    report = report_of(finished)
    best = max(row["eval_accuracy"] for row in report["history"])
    assert report["training"]["best_metric"] == pytest.approx(best)
    assert report["evaluation"]["validation"]["metrics"]["accuracy"] == pytest.approx(best)


def test_a_second_run_into_the_same_folder_is_refused(finished: Path, capsys: pytest.CaptureFixture):
    before = (finished / "run.json").read_bytes()
    words = ["train", "--model", str(finished.parent / "checkpoint"), "--dataset", str(finished.parent / "pictures")]
    assert main([*words, "--output_dir", str(finished), "--use_cpu"]) == 2
    assert "--overwrite_output_dir" in capsys.readouterr().err
    assert (finished / "run.json").read_bytes() == before


def test_a_refused_run_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = ["train", "--model", "m", "--dataset", str(tmp_path / "nowhere at all")]
    assert main([*words, "--output_dir", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert main([*words, "--output_dir", str(tmp_path / "file" / "run")]) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_a_readme_of_somebody_else_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture):
    checkpoint, pictures = tiny_project(tmp_path)
    readme = tmp_path / "project" / "README.md"
    readme.parent.mkdir()
    readme.write_text("---\ntitle: mine\n---\n\n- hf-transfer-learning\n", encoding="utf-8")
    words = ["train", "--model", str(checkpoint), "--dataset", str(pictures), "--output_dir", str(readme.parent)]
    for option in ([], ["--overwrite_output_dir"]):
        assert main([*words, *option]) == 2
        assert "README.md that is no model card" in capsys.readouterr().err
    assert "title: mine" in readme.read_text(encoding="utf-8")


@pytest.mark.parametrize("word", ["no", "None", "False", "off"])
def test_words_that_ask_for_a_beginning_replace_nothing(word: str, tmp_path: Path):
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    config = FinetuneConfig(model="m", dataset="d", training={"resume_from_checkpoint": word})
    with pytest.raises(UserError, match="holds a finished run already"):
        prepare_run_folder(config, tmp_path)
    prepare_run_folder(dataclasses.replace(config, training={"resume_from_checkpoint": "last"}), tmp_path)


def test_overwriting_replaces_and_resuming_goes_on(tmp_path: Path):
    folder = run(tmp_path, "--save_total_limit", "10")
    first = report_of(folder)
    assert (folder / "checkpoint-6").is_dir()
    run(tmp_path, "--overwrite_output_dir", "--seed", "7")
    second = report_of(folder)
    assert second["seed"] == 7
    run(tmp_path, "--resume_from_checkpoint", "last", "--seed", "7", "--num_train_epochs", "8")
    third = report_of(folder)
    assert third["training"]["resumed_from"].endswith("checkpoint-6")
    assert (first["training"]["steps"], third["training"]["steps"]) == (6, 8)


def test_resuming_without_a_checkpoint_says_so(tmp_path: Path, capsys: pytest.CaptureFixture):
    tiny_project(tmp_path)
    words = ["train", "--model", str(tmp_path / "checkpoint"), "--dataset", str(tmp_path / "pictures"), "--use_cpu"]
    assert main([*words, "--output_dir", str(tmp_path / "run"), "--resume_from_checkpoint", "last"]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err


def test_soft_labels_do_not_make_the_saved_model_multi_label(tmp_path: Path):
    folder = run(tmp_path, "--mixup", "0.4", "--cutmix", "1.0", "--max_steps", "3")
    config = AutoModelForImageClassification.from_pretrained(folder / "model").config
    assert config.problem_type in (None, "single_label_classification")
    scores = pipeline("image-classification", str(folder / "model"))(Image.new("RGB", (20, 20)))
    assert sum(score["score"] for score in scores) == pytest.approx(1, abs=1e-5)


def test_options_reach_the_training(tmp_path: Path):
    folder = run(
        tmp_path, "--max_steps", "3", "--class_weights", "balanced", "--label_smoothing_factor", "0.1",
        "--gradient_accumulation_steps", "2", "--per_device_train_batch_size", "4", "--channels_last", "on",
        "--metrics", "macro_f1", "--early_stopping_patience", "0", "--images_per_class", "5", model_type="resnet",
    )  # fmt: skip
    report = report_of(folder)
    assert report["training"]["steps"] == 3
    assert report["data"]["class_counts"]["train"] == [5, 5, 5]
    assert report["training_arguments"]["gradient_accumulation_steps"] == 2


def test_a_broken_picture_is_named_and_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture):
    tiny_project(tmp_path)
    broken = tmp_path / "pictures" / "train" / "dark" / "0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    words = ["train", "--model", str(tmp_path / "checkpoint"), "--dataset", str(tmp_path / "pictures"), "--use_cpu"]
    for workers in ("0", "1"):
        options = [
            "--output_dir",
            str(tmp_path / workers),
            "--dataloader_num_workers",
            workers,
            "--disable_tqdm",
            "true",
        ]
        assert main([*words, *options]) == 2
        error = capsys.readouterr().err
        assert str(broken) in error
        assert "Traceback" not in error


def test_a_loss_that_is_no_number_stops_with_a_hint(tmp_path: Path, capsys: pytest.CaptureFixture):
    torch.manual_seed(0)
    tiny_project(tmp_path, "resnet")
    words = ["train", "--model", str(tmp_path / "checkpoint"), "--dataset", str(tmp_path / "pictures"), "--use_cpu"]
    words += ["--strategy", "full", "--learning_rate", "1e30", "--max_grad_norm", "0", "--optim", "sgd"]
    words += ["--output_dir", str(tmp_path / "run"), "--logging_strategy", "steps", "--logging_steps", "1"]
    assert main([*words, "--disable_tqdm", "true", "--warmup_steps", "0", "--num_train_epochs", "9"]) == 2
    assert "--learning_rate" in capsys.readouterr().err


def test_splits_are_made_where_there_are_none(tmp_path: Path):
    torch.manual_seed(0)
    checkpoint, _ = tiny_project(tmp_path)
    pictures = tiny_pictures(tmp_path / "single", per_class=20, splits=("",))
    words = ["train", "--model", str(checkpoint), "--dataset", str(pictures), "--use_cpu", "--max_steps", "1"]
    assert main([*words, "--output_dir", str(tmp_path / "run"), "--disable_tqdm", "true"]) == 0
    data = report_of(tmp_path / "run")["data"]
    assert data["split_sizes"] == {"train": 42, "validation": 9, "test": 9}
    assert "by content" in data["split_methods"]["test"]


@pytest.mark.slow
def test_a_compiled_model_is_saved_under_plain_names(tmp_path: Path):
    folder = run(
        tmp_path, "--torch_compile", "true", "--max_steps", "6", "--eval_strategy", "steps", "--eval_steps", "3"
    )
    assert not [name for name in load_file(folder / "model" / "model.safetensors") if "orig_mod" in name]
    assert report_of(folder)["training"]["steps"] == 6


def test_bfloat16_autocast_leaves_float32_weights(tmp_path: Path):
    folder = run(tmp_path, "--bf16", "--max_steps", "3")
    assert {tensor.dtype for tensor in load_file(folder / "model" / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize(
    ("model_type", "option", "words"),
    [
        ("vit", ["--report_to", "wandb"], "the package wandb is not installed"),
        ("resnet", ["--activation_checkpointing"], "does not support it"),
        ("vit", ["--lr_scheduler_type", "cosine", "--metric_for_best_model", "beauty"], "beauty"),
    ],
)
def test_what_cannot_be_done_is_said_before_training(
    model_type: str, option: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else find_spec(name, *a))
    tiny_project(tmp_path, model_type)
    command = ["train", "--model", str(tmp_path / "checkpoint"), "--dataset", str(tmp_path / "pictures"), "--use_cpu"]
    assert main([*command, "--output_dir", str(tmp_path / "run"), "--disable_tqdm", "true", *option]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert "epoch" not in captured.out
