"""Layers that learn in half precision: frozen ones and the head as in float32, kept or not, and no trace of it."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from hf_transfer.cli import main
from hf_transfer.models.layer_groups import layer_groups
from hf_transfer.training import precision
from hf_transfer.training.half_learning import HalfLearning
from hf_transfer.training.strategies import Unfreezing
from tests.tiny_project import train_words
from tests.training.cached_run import cached_trainer, weights_of
from tests.training.test_prefix_cache import STRATEGIES
from tests.training.test_prefix_cut import BUILDABLE, cut_below_last_block
from tests.training.test_thawing_processes import assert_same
from tests.training.test_unfreezing import lively
from tests.training.tiny_run import tiny_model, tiny_trainer

HALF = torch.bfloat16


def outputs_of(model: nn.Module, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Returns a dictionary that holds what modules return, once the model has run."""
    found: dict[str, torch.Tensor] = {}
    for name in names:
        keep = lambda module, inputs, output, name=name: found.update({name: output})  # noqa: E731
        model.get_submodule(name).register_forward_hook(keep)
    return found


def trainer_of(family: str, folder: Path, half: bool, **settings):
    model, _ = lively(family, folder)
    trainer = tiny_trainer(model, folder, family, **{"strategy": Unfreezing(strategy="partial")} | settings)
    if half:
        trainer.learn_in(HalfLearning(HALF, "cpu"))
    return model, trainer


WATCHED = {
    "vit": ("vit.layers.0.mlp.fc2", "vit.layers.1.mlp.fc1", "classifier"),
    "resnet": (
        "resnet.encoder.stages.0.layers.0.layer.2.convolution",
        "resnet.encoder.stages.1.layers.0.layer.0.convolution",
        "classifier.1",
    ),
}


@pytest.mark.parametrize("family", WATCHED)
def test_frozen_layers_give_what_they_give_in_float32(family: str, tmp_path: Path):
    frozen, learning, head = WATCHED[family]
    seen = {}
    for half in (False, True):
        model, trainer = trainer_of(family, tmp_path / str(half), half)
        found = outputs_of(model, WATCHED[family])
        batch = next(iter(trainer.get_train_dataloader()))
        torch.manual_seed(0)
        trainer.training_step(model, batch)
        assert not model.get_submodule(frozen).weight.requires_grad
        assert model.get_submodule(learning).weight.grad is not None
        seen[half] = found
    assert torch.equal(seen[True][frozen], seen[False][frozen])
    assert [seen[True][name].dtype for name in WATCHED[family]] == [torch.float32, HALF, torch.float32]
    assert [seen[False][name].dtype for name in WATCHED[family]] == [torch.float32] * 3
    torch.testing.assert_close(seen[True][head], seen[False][head], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("family", BUILDABLE)
def test_what_enters_the_layers_that_learn_is_float32(family: str):
    torch.manual_seed(0)
    model = tiny_model(family)
    cut, pictures, lowest_open = cut_below_last_block(model)
    model.eval()
    alone = cut.collect(pictures)
    half = HalfLearning(HALF, "cpu")
    half.follow(model, layer_groups(model, "block"), lowest_open)
    with half.computing():
        again = cut.collect(pictures)
        logits = model(pixel_values=pictures).logits
    assert all(torch.equal(one, other) for one, other in zip(again, alone, strict=True))
    assert logits.dtype is torch.float32


def test_a_thawed_layer_learns_in_half_precision_from_then_on(tmp_path: Path):
    model = tiny_model("vit")
    groups = layer_groups(model, "block")
    half = HalfLearning(HALF, "cpu")

    def left_out() -> list[str]:
        return [name for name, module in model.named_modules() if "forward" in vars(module)]

    half.follow(model, groups, len(groups) - 1)
    with half.computing():
        assert not torch.is_autocast_enabled("cpu"), "with the head alone nothing is in half precision"
    half.follow(model, groups, 2)
    assert left_out() == ["vit.embeddings", "vit.layers.0", "classifier"]
    with half.computing():
        assert torch.is_autocast_enabled("cpu")
    half.follow(model, groups, 0)
    assert left_out() == ["classifier"]
    half.release()
    assert left_out() == []


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_every_strategy_learns_the_same_on_what_is_kept(family: str, strategy: str, tmp_path: Path):
    found = {}
    for mode in ("off", "auto"):
        model = tiny_model(family)
        settings = {"strategy": STRATEGIES[strategy], "num_train_epochs": 6, "eval_strategy": "epoch"}
        trainer = cached_trainer(model, tmp_path / mode, family, tmp_path / "cache", mode=mode, **settings)
        trainer.learn_in(HalfLearning(HALF, "cpu"))
        trainer.train()
        assert trainer.prefix is not None
        assert trainer.prefix.facts[0]["cached"] is (mode == "auto")
        found[mode] = weights_of(model)
    assert_same(found["off"], found["auto"])


def test_a_copy_of_the_network_runs_its_own_layers(tmp_path: Path):
    model, trainer = trainer_of("vit", tmp_path, half=True)
    pictures = torch.randn(2, 3, 32, 32)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.vit.embeddings.parameters():
            parameter.add_(1.0)
        apart = (other.vit.embeddings(pictures) - model.vit.embeddings(pictures)).abs().mean()
    assert apart > 0.5


def test_activation_checkpointing_changes_no_gradient(tmp_path: Path):
    found = {}
    for saving in (False, True):
        folder = tmp_path / str(saving)
        model, trainer = trainer_of("vit", folder, True, activation_checkpointing=saving, learning_rate=1e-3)
        trainer.train()
        found[saving] = weights_of(model)
    assert_same(found[False], found[True])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("strategy", ["partial", "progressive"])
def test_a_compiled_network_learns_as_any_other(strategy: str, tmp_path: Path):
    found = {}
    for compiled in (False, True):
        wish = Unfreezing(strategy=strategy, unfreeze_every="1 step") if strategy == "progressive" else strategy
        settings = {"strategy": wish, "torch_compile": compiled, "learning_rate": 1e-3, "max_steps": 4}
        model, trainer = trainer_of("vit", tmp_path / str(compiled), True, **settings)
        trainer.train()
        found[compiled] = weights_of(model)
    for name, tensor in found[False].items():
        # AdamW's first steps go by the sign of a gradient: a rounding can turn a small one around.
        torch.testing.assert_close(tensor, found[True][name], rtol=0.02, atol=5e-3)


def test_a_run_says_so_and_is_continued_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(precision, "bfloat16_is_faster", lambda: True)
    monkeypatch.setattr(precision, "moved_share", lambda full, half: 1.0)
    begun, run = HalfLearning.computing, tmp_path / "run"
    steps: list[HalfLearning] = []
    monkeypatch.setattr(HalfLearning, "computing", lambda half: [steps.append(half), begun(half)][1])
    words = [*train_words(tmp_path), "--strategy", "partial", "--per_device_train_batch_size", "4"]
    words += ["--output_dir", str(run), "--use_cpu", "true", "--save_strategy", "epoch"]
    assert main([*words, "--num_train_epochs", "1"]) == 0
    assert "float32, bfloat16 where it learns" in capsys.readouterr().out
    assert steps
    report = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert report["training_arguments"]["bf16"] is False
    # What a measurement finds now is of no consequence.
    monkeypatch.setattr(precision, "bfloat16_is_faster", lambda: pytest.fail("measured, and need not be"))
    steps.clear()
    assert main([*words, "--num_train_epochs", "2", "--resume_from_checkpoint", "last"]) == 0
    assert "as the run began" in capsys.readouterr().out
    assert steps
    # Another precision is another run.
    assert main([*words, "--num_train_epochs", "3", "--resume_from_checkpoint", "last", "--bf16", "false"]) == 2
    assert "bf16 where it learns" in capsys.readouterr().err
