"""The average of the weights: by the formula, evaluated, kept, and never mixed up with what is trained."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from hf_transfer.cli import main
from hf_transfer.training.averaging import AVERAGE_FILE, WeightAverage, decay_at
from tests.tiny_project import tiny_project
from tests.training.test_best_checkpoint import FirstIsBest
from tests.training.tiny_run import tiny_model, tiny_trainer


class Recorder(TrainerCallback):
    """Keeps the weights after every step."""

    def __init__(self):
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append({name: tensor.detach().clone() for name, tensor in model.named_parameters()})


def averaged(model, folder: Path, decay: float | None, **settings):
    recorder = Recorder()
    average = None if decay is None else WeightAverage(model, decay)
    settings = {"optim": "adamw_torch", "learning_rate": 1e-3} | settings
    return tiny_trainer(model, folder, average=average, callbacks=[recorder], **settings), recorder


def test_the_average_is_the_formula_and_the_model_ends_with_it(tmp_path: Path):
    model = tiny_model("resnet")
    expected = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    trainer, recorder = averaged(model, tmp_path, 0.8, model_type="resnet")
    trainer.train()
    for step, weights in enumerate(recorder.weights, start=1):
        keep = min(0.8, (1 + step) / (10 + step))
        expected = {name: keep * old + (1 - keep) * weights[name] for name, old in expected.items()}
    last = recorder.weights[-1]
    assert any(not torch.allclose(expected[name], last[name], atol=1e-4) for name in last)
    for name, tensor in model.named_parameters():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)


def test_the_decay_grows_with_the_run():
    assert [decay_at(step, 0.999) for step in (0, 1, 90)] == [0.1, 2 / 11, 0.91]
    assert decay_at(10**6, 0.999) == 0.999


def test_training_is_the_same_with_an_average(tmp_path: Path):
    _, alone = (parts := averaged(tiny_model("vit"), tmp_path / "a", None, eval_strategy="epoch"))
    parts[0].train()
    _, beside = (parts := averaged(tiny_model("vit"), tmp_path / "b", 0.9, eval_strategy="epoch"))
    parts[0].train()
    assert len(alone.weights) == len(beside.weights) == 10
    for one, other in zip(alone.weights, beside.weights, strict=True):
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_evaluation_sees_the_average_and_the_checkpoint_holds_both(tmp_path: Path):
    model = tiny_model("vit")
    seen: list[torch.Tensor] = []
    trainer, recorder = averaged(
        model, tmp_path, 0.9, eval_strategy="steps", eval_steps=5, save_strategy="steps", save_steps=5
    )
    head = "classifier.weight"
    model.register_forward_pre_hook(
        lambda module, _: None if module.training else seen.append(module.get_parameter(head).detach().clone())
    )
    trainer.train()
    checkpoint = tmp_path / "checkpoint-5"
    average, own = load_file(checkpoint / AVERAGE_FILE)[head], load_file(checkpoint / "model.safetensors")[head]
    assert torch.equal(seen[0], average)
    assert torch.equal(own, recorder.weights[4][head])
    assert not torch.equal(own, average)


def test_the_best_average_comes_back(tmp_path: Path):
    model = tiny_model("vit")
    trainer, _ = averaged(
        model,
        tmp_path,
        0.9,
        compute_metrics=FirstIsBest(),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=True,
    )
    trainer.train()
    best = load_file(tmp_path / "checkpoint-5" / AVERAGE_FILE)
    for name, tensor in model.named_parameters():
        assert torch.equal(tensor, best[name])


def test_frozen_layers_stay_bit_for_bit(tmp_path: Path):
    model = tiny_model("vit")
    start = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    trainer, _ = averaged(model, tmp_path, 0.9, strategy="partial")
    trainer.train()
    frozen = [name for group in trainer.groups[:-2] for name in group.parameter_names]
    assert frozen
    now = dict(model.named_parameters())
    assert all(torch.equal(start[name], now[name]) for name in frozen)


@pytest.mark.parametrize("decay", ["1", "0", "-0.5"])
def test_a_decay_that_cannot_be_is_refused(decay: str, tmp_path: Path, capsys):
    torch.manual_seed(0)
    checkpoint, pictures = tiny_project(tmp_path)
    given = ["train", "--model", str(checkpoint), "--dataset", str(pictures), "--use_cpu", "--strategy", "full"]
    assert main([*given, "--output_dir", str(tmp_path / "run"), "--ema", decay]) == 2
    assert "--ema" in capsys.readouterr().err
