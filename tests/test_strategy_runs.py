"""Every strategy through the whole walk: what is decided, what is written, what is refused."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_transfer.cli import main
from tests.tiny_project import train_words


def run(folder: Path, *options: str) -> Path:
    words = train_words(folder)
    words += ["--per_device_train_batch_size", "4", "--num_train_epochs", "2", "--output_dir", str(folder / "run")]
    assert main([*words, *options]) == 0
    return folder / "run"


def changed_tensors(folder: Path) -> set[str]:
    before = load_file(folder / "checkpoint" / "model.safetensors")
    after = load_file(folder / "run" / "model" / "model.safetensors")
    return {name for name, tensor in after.items() if name not in before or not torch.equal(tensor, before[name])}


def rates(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_progressive_thaws_group_by_group(tmp_path: Path, capsys):
    folder = run(tmp_path, "--strategy", "progressive", "--unfreeze_every", "2steps")
    printed = capsys.readouterr().out
    thaws = [line for line in printed.splitlines() if ": thawed " in line]
    assert [line.split(" (")[0] for line in thaws] == [
        "step 2: thawed layers.1",
        "step 4: thawed layers.0",
        "step 6: thawed stem",
    ]
    assert "the head learns first, then group by group" in printed
    assert "4, from stem to head" in printed
    names = [key for key in rates(folder)[0] if key.startswith("learning_rate/")]
    assert names == ["learning_rate/stem", "learning_rate/layers.0", "learning_rate/layers.1", "learning_rate/head"]


def test_partial_leaves_the_rest_as_it_came(tmp_path: Path):
    run(tmp_path, "--strategy", "partial", "--train_last", "1")
    changed = changed_tensors(tmp_path)
    assert changed
    assert not any("embeddings" in name or ".layer.0." in name or "layers.0." in name for name in changed)
    assert any(".layer.1." in name or "layers.1." in name for name in changed)


def test_feature_extraction_keeps_the_last_good_epoch_and_says_so(tmp_path: Path, capsys):
    folder = run(tmp_path, "--strategy", "feature-extraction", "--num_train_epochs", "4")
    assert "the last within chance of the best validation accuracy" in capsys.readouterr().out
    report = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    training, history = report["training"], report["history"]
    kept = next(row for row in history if row["step"] == training["best_step"])
    assert training["best_metric"] == kept["eval_accuracy"]
    assert training["highest_metric"] == max(row["eval_accuracy"] for row in history)
    assert report["evaluation"]["validation"]["metrics"]["accuracy"] == pytest.approx(training["best_metric"])


def test_where_the_last_weights_are_kept_no_other_step_is_said_to_be(tmp_path: Path):
    folder = run(tmp_path, "--strategy", "full", "--num_train_epochs", "3", "--load_best_model_at_end", "false")
    report = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert report["training"]["best_step"] is None
    assert report["evaluation"]["validation"]["metrics"]["accuracy"] == pytest.approx(
        report["history"][-1]["eval_accuracy"]
    )
    assert "kept is step" not in (folder / "README.md").read_text(encoding="utf-8")


def test_tokens_that_nobody_reads_make_no_difference(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    folders = {}
    for attached in (True, False):
        folder = tmp_path / str(attached)
        if not attached:
            monkeypatch.setattr("hf_transfer.training.session.attach_read_token", lambda trainer, validation: None)
        options = ("--strategy", "partial", "--train_last", "1", "--optim", "sgd", "--bf16", "false")
        folders[attached] = run(folder, *options)
        assert ("The head reads 1 of " in capsys.readouterr().out) is attached
    weights = {attached: load_file(folder / "model" / "model.safetensors") for attached, folder in folders.items()}
    assert weights[True].keys() == weights[False].keys()
    for name, tensor in weights[False].items():
        torch.testing.assert_close(weights[True][name], tensor, rtol=1e-4, atol=1e-5)
    metrics = {attached: json.loads((folder / "metrics.json").read_text()) for attached, folder in folders.items()}
    assert metrics[True]["test"]["accuracy"] == metrics[False]["test"]["accuracy"]


def test_lp_ft_probes_first(tmp_path: Path, capsys):
    run(tmp_path, "--strategy", "lp-ft", "--probe", "3steps")
    thaws = [line for line in capsys.readouterr().out.splitlines() if ": thawed " in line]
    assert len(thaws) == 1
    assert thaws[0].startswith("step 3: thawed backbone (")


def test_norms_learn_first_and_every_file_says_so(tmp_path: Path, capsys):
    options = ("--strategy", "feature-extraction", "--tune_norms", "1", "--lr_backbone", "0.02")
    folder = run(tmp_path, *options, "--num_train_epochs", "5")
    printed = capsys.readouterr().out
    assert re.search(r"learning first +the head and norms, from stem on +then the head alone, after 1\n", printed)
    assert "norms of the backbone learn at first, the rest of it stays as pretrained" in printed
    assert "only the head learns" not in printed
    assert "no cache: normalisation layers learn" in printed
    assert "froze stem to layers.1 (" in printed
    changed = {name for name in changed_tensors(tmp_path) if not name.startswith("classifier")}
    assert changed
    assert all("norm" in name for name in changed)
    report = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    groups = report["training"]["layer_groups"]
    assert [(group["name"], group["learned"]) for group in groups] == [
        ("stem", False),
        ("layers.0 but for its norms", False),
        ("norms of layers.0", True),
        ("layers.1 but for its norms", False),
        ("norms of layers.1", True),
        ("head", True),
    ]
    weights = load_file(folder / "model" / "model.safetensors")
    assert sum(group["num_parameters"] for group in groups) == sum(tensor.numel() for tensor in weights.values())
    norms = sum(group["num_parameters"] for group in groups if group["name"].startswith("norms of"))
    assert norms == sum(weights[name].numel() for name in weights if "norm" in name)
    decided = {entry["name"]: entry["value"] for entry in report["decisions"]}
    assert decided["learning rate, norms"] == "0.02"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "trained: norms of layers.0, norms of layers.1, head (" in card
    assert "frozen throughout: stem, layers.0 but for its norms, layers.1 but for its norms (" in card


def test_layer_decay_and_rates_by_name_are_in_the_history(tmp_path: Path):
    options = ["--strategy", "full", "--learning_rate", "1e-3", "--layer_decay", "0.5", "--lr_groups", "stem=0"]
    folder = run(tmp_path, *options, "--lr_scheduler_type", "constant")
    row = rates(folder)[0]
    assert float(row["learning_rate/layers.1"]) == pytest.approx(1e-3)
    assert float(row["learning_rate/layers.0"]) == pytest.approx(5e-4)
    assert float(row["learning_rate/head"]) == pytest.approx(1e-2)
    assert float(row["learning_rate/stem"]) == 0
    assert not any("embeddings" in name for name in changed_tensors(tmp_path))
    decisions = {entry["name"] for entry in json.loads((folder / "run.json").read_text(encoding="utf-8"))["decisions"]}
    assert {"layer groups", "layer decay", "learning rate, backbone", "learning rate, head"} <= decisions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strategy", "partial", "--train_last", "7"], "the backbone has 3 groups"),
        (["--strategy", "full", "--train_last", "1"], "--train_last belongs to --strategy partial"),
        (["--strategy", "progressive", "--unfreeze_every", "never"], "--unfreeze_every never"),
        (["--strategy", "progressive", "--lr_scheduler_type", "polynomial"], "--lr_scheduler_type"),
        (["--strategy", "full", "--lr_groups", "layers.7=1"], "no group and no parameter is called 'layers.7'"),
        (["--strategy", "full", "--lr_backbone", "1", "--learning_rate", "1"], "two names for one rate"),
        (["--strategy", "feature-extraction", "--lr_backbone", "1"], "does not train the backbone"),
        (["--strategy", "progresive"], "progressive"),
        (["--strategy", "partial", "--tune_norms", "1"], "--tune_norms belongs to --strategy feature-extraction"),
        (["--strategy", "feature-extraction", "--tune_norms", "99"], "a part of the run"),
        (["--tune_norms", "1", "--head_solver", "lbfgs"], "--head_solver lbfgs and --tune_norms exclude each other"),
    ],
)
def test_mistakes_get_one_message(options: list[str], message: str, tmp_path: Path, capsys):
    words = train_words(tmp_path)
    assert main([*words, "--output_dir", str(tmp_path / "run"), *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "run" / "model").exists()
