"""LP-FT from a solved head: where it begins, what learns, what is kept, continued and in several processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from hf_transfer.training.averaging import WeightAverage
from hf_transfer.training.checkpoints import is_whole
from hf_transfer.training.head_solver import solve_head
from hf_transfer.training.solved_start import solved_facts
from hf_transfer.training.strategies import Unfreezing
from tests.processes import launched, run_on_cpus
from tests.training.cached_run import cached_trainer, weights_of
from tests.training.test_thawing_processes import assert_same
from tests.training.tiny_run import tiny_model

LP_FT = Unfreezing(strategy="lp-ft", head_peak_after_probe=0.5)
CHECKPOINTS = {"eval_strategy": "epoch", "save_strategy": "steps", "save_steps": 3}


class Weights(TrainerCallback):
    """Keeps the weights as they are at the beginning of each step."""

    def __init__(self):
        self.at_step: list[dict[str, torch.Tensor]] = []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.at_step.append(weights_of(model))


def solved_trainer(folder: Path, model: Any, cache: Path | None = None, **settings: Any):
    settings = {"strategy": LP_FT, "num_train_epochs": 2, "solved": True} | settings
    return cached_trainer(model, folder, "vit", cache or folder / "cache", **settings)


def evaluations(trainer: Any) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "eval_loss" in entry]


def solution(folder: Path) -> dict[str, torch.Tensor]:
    """Solves for the head of the same network apart from any training, by its validation loss."""
    model = tiny_model("vit").eval()
    trainer = cached_trainer(model, folder, "vit", folder, strategy="feature-extraction")
    splits = trainer.prefix.splits

    def seen(pictures: Any, rows: int) -> torch.Tensor:
        pixels = torch.stack([pictures[row]["pixel_values"] for row in range(rows)])
        features: list[torch.Tensor] = []
        hook = model.classifier.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
        with torch.no_grad():
            model(pixel_values=pixels)
        hook.remove()
        return features[0]

    train, held_out = seen(splits["train"].pictures, 40), seen(splits["validation"].pictures, 9)
    answers = torch.from_numpy(splits["validation"].labels)

    def score(weight: torch.Tensor, bias: torch.Tensor) -> float:
        return -float(torch.nn.functional.cross_entropy(held_out @ weight.T + bias, answers))

    labels = torch.from_numpy(splits["train"].labels).repeat(2)
    solved = solve_head(train, labels, 2, 3, score)
    return {"classifier.weight": solved.weight, "classifier.bias": solved.bias}


def test_it_begins_at_the_solution_and_everything_learns(tmp_path: Path):
    model = tiny_model("vit")
    before = weights_of(model)
    seen = Weights()
    trainer = solved_trainer(tmp_path / "run", model, callbacks=[seen], eval_strategy="epoch")
    trainer.train()
    first, second = seen.at_step[:2]
    alone = solution(tmp_path / "alone")
    assert all(torch.equal(first[name], before[name]) for name in first.keys() - alone.keys())
    for name, tensor in alone.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-3, atol=1e-4)
    for group in trainer.groups:
        assert any(not torch.equal(first[name], second[name]) for name in group.parameter_names), group.name
    assert [entry["step"] for entry in evaluations(trainer)] == [0, 5, 10]
    facts = solved_facts(trainer.state.log_history)
    assert facts is not None
    assert facts["score"] == pytest.approx(-evaluations(trainer)[0]["eval_loss"], rel=1e-4)
    schedule = trainer.unfreezing.schedule
    assert schedule.changes() == ()
    assert (schedule.factor(0, 0), schedule.factor(len(trainer.groups) - 1, 0)) == (1.0, 0.5)


def test_the_solution_is_kept_where_no_step_makes_it_better(tmp_path: Path):
    model = tiny_model("vit")
    seen = Weights()
    trainer = solved_trainer(
        tmp_path / "run",
        model,
        callbacks=[seen],
        learning_rate=3.0,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        save_total_limit=1,
        **CHECKPOINTS | {"save_strategy": "epoch"},
    )
    trainer.train()
    losses = [entry["eval_loss"] for entry in evaluations(trainer)]
    assert not any(loss < losses[0] for loss in losses[1:])
    assert trainer.state.best_global_step == 0
    assert is_whole(tmp_path / "run" / "checkpoint-0")
    assert all(torch.equal(tensor, seen.at_step[0][name]) for name, tensor in weights_of(model).items())


@pytest.mark.parametrize("step", [0, 6])
def test_continued_is_uninterrupted_and_solves_nothing(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = {"load_best_model_at_end": True, "metric_for_best_model": "loss", **CHECKPOINTS, "eval_steps": 3}
    settings |= {"eval_strategy": "steps", "optim": "adamw_torch", "learning_rate": 1e-3}
    whole = tiny_model("vit")
    trainer = solved_trainer(tmp_path / "whole", whole, tmp_path / "cache", **settings)
    trainer.train()
    monkeypatch.setattr("hf_transfer.training.solved_start.solve_head", lambda *args: pytest.fail("solved again"))
    model = tiny_model("vit")
    again = solved_trainer(tmp_path / "again", model, tmp_path / "cache", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
    assert all(torch.equal(tensor, weights_of(model)[name]) for name, tensor in weights_of(whole).items())
    assert solved_facts(again.state.log_history) == solved_facts(trainer.state.log_history)
    losses = [[(entry["step"], entry["eval_loss"]) for entry in evaluations(run)] for run in (trainer, again)]
    assert losses[0] == losses[1]
    assert (again.state.best_metric, again.state.best_global_step) == (
        trainer.state.best_metric,
        trainer.state.best_global_step,
    )


def test_features_that_were_kept_are_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trainer = cached_trainer(
        tiny_model("vit"),
        tmp_path / "fe",
        "vit",
        tmp_path / "cache",
        strategy="feature-extraction",
        num_train_epochs=4,
    )
    trainer.train()
    monkeypatch.setattr(
        "hf_transfer.training.prefix_build.PrefixBuilder._fill", lambda *args: pytest.fail("computed a second time")
    )
    trainer = solved_trainer(tmp_path / "run", tiny_model("vit"), tmp_path / "cache", max_steps=1)
    trainer.train()
    assert solved_facts(trainer.state.log_history) is not None


def test_nothing_is_left_where_the_user_wants_nothing_kept(tmp_path: Path):
    solved_trainer(tmp_path / "run", tiny_model("vit"), tmp_path / "cache", keep=False, max_steps=1).train()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_where_it_cannot_be_solved_the_head_is_probed_as_ever(tmp_path: Path, capsys: pytest.CaptureFixture):
    weights = []
    for solved in (False, True):
        model = tiny_model("vit")
        solved_trainer(tmp_path / str(solved), model, solved=solved, limit=1000, num_train_epochs=3).train()
        weights.append(weights_of(model))
    assert "the head is trained step by step: " in capsys.readouterr().out
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_an_average_begins_at_the_solution(tmp_path: Path):
    model = tiny_model("vit")
    trainer = solved_trainer(
        tmp_path / "run", model, average=WeightAverage(model, 0.9), eval_strategy="epoch", num_train_epochs=1
    )
    trainer.train()
    facts = solved_facts(trainer.state.log_history)
    assert facts is not None
    assert evaluations(trainer)[0]["eval_loss"] == pytest.approx(-facts["score"], rel=1e-4)


def test_half_precision_is_no_other_network(tmp_path: Path):
    trainer = solved_trainer(tmp_path / "run", tiny_model("vit"), bf16=True, max_steps=1)
    trainer.train()
    assert solved_facts(trainer.state.log_history) is not None


def test_two_processes_begin_at_one_solution(tmp_path: Path):
    two, one = tmp_path / "two.safetensors", tmp_path / "one.safetensors"
    done = run_on_cpus(launched("tests.training.cached_run", str(two), str(tmp_path / "two"), "solved", "2"))
    assert done.returncode == 0, done.stderr[-3000:]
    words = ("tests.training.cached_run", str(one), str(tmp_path / "one"), "solved", "4")
    done = run_on_cpus(launched(*words, processes=1))
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(load_file(one), load_file(two))
