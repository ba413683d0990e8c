"""A run whose head is solved: the network answers as the solution does, and what cannot be solved is refused."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageClassification

from hf_transfer.cli import main
from tests.tiny_project import tiny_project
from tests.training.cached_run import cached_trainer
from tests.training.tiny_run import tiny_model


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    torch.manual_seed(0)
    checkpoint, pictures = tiny_project(tmp_path)
    given = ["train", "--model", str(checkpoint), "--dataset", str(pictures), "--use_cpu", "true"]
    return [*given, "--output_dir", str(tmp_path / "run"), "--cache_dir", str(tmp_path / "cache")]


def test_a_run_without_a_step(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main([*words, "--head_solver", "lbfgs"]) == 0
    assert "head solved by L-BFGS" in capsys.readouterr().out
    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    training = report["training"]
    assert (training["steps"], training["stopped_early"]) == (0, False)
    assert training["solved_head"]["score"] == pytest.approx(report["evaluation"]["validation"]["metrics"]["accuracy"])
    assert len(report["history"]) == 1
    old = AutoModelForImageClassification.from_pretrained(tmp_path / "checkpoint").state_dict()
    new = AutoModelForImageClassification.from_pretrained(tmp_path / "run" / "model").state_dict()
    head = {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(old[name], new[name]) for name in new.keys() - head)


def test_the_solution_beats_a_few_steps_on_what_it_was_solved_for(tmp_path: Path):
    from hf_transfer.training.head_solver import solve_head

    model = tiny_model("vit")
    trainer = cached_trainer(
        model, tmp_path / "run", "vit", tmp_path / "cache", strategy="feature-extraction", num_train_epochs=4
    )
    trainer.train()
    kept = trainer.prefix.at_head()
    features = kept.kept("train").float()
    labels = torch.from_numpy(trainer.prefix.splits["train"].labels).repeat(2)

    def loss(weight: torch.Tensor, bias: torch.Tensor) -> float:
        return -float(torch.nn.functional.cross_entropy(features @ weight.T + bias, labels))

    solved = solve_head(features, labels, 2, 3, loss)
    assert solved.score > loss(model.classifier.weight.detach(), model.classifier.bias.detach())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strategy", "full"], "--strategy full trains more than the head"),
        (["--strategy", "lp-ft", "--probe", "1"], "--head_solver lbfgs and --probe exclude each other"),
        (["--cache", "off"], "--cache off exclude each other"),
        (["--ema", "0.9"], "--ema exclude each other"),
        (["--label_smoothing_factor", "0.1"], "--label_smoothing_factor exclude each other"),
        (["--mixup", "0.2"], "mix the pixels of different pictures"),
    ],
)
def test_what_cannot_be_solved_is_refused(options: list[str], message: str, words: list[str], capsys):
    assert main([*words, "--head_solver", "lbfgs", *options]) == 2
    assert message in capsys.readouterr().err


def test_lp_ft_from_the_solution(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture):
    options = ["--strategy", "lp-ft", "--num_train_epochs", "2", "--per_device_train_batch_size", "8"]
    assert main([*words, *options]) == 0
    printed = capsys.readouterr().out
    assert "solved before the first step (lbfgs)" in printed
    assert "head solved by L-BFGS" in printed
    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert [row["step"] for row in report["history"]] == [0, 3, 6]
    solved = report["training"]["solved_head"]
    assert solved.keys() == {"strength", "score", "seconds"}
    assert solved["score"] == pytest.approx(report["history"][0]["eval_accuracy"])
    assert report["training"]["steps"] == 6
    assert (tmp_path / "run" / "history.csv").read_text(encoding="utf-8").count("\n") == 4


def test_a_probe_means_steps(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture):
    options = ["--strategy", "lp-ft", "--probe", "2steps", "--num_train_epochs", "1"]
    assert main([*words, *options, "--per_device_train_batch_size", "8"]) == 0
    printed = capsys.readouterr().out
    assert "trained step by step (sgd)" in printed
    assert "--probe asks for steps of the head" in printed
    assert "step 2: thawed backbone" in printed
    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert report["training"]["solved_head"] is None
