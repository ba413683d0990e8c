"""L2-SP: pulled towards the start, once for each step, frozen layers untouched."""

from pathlib import Path

import pytest
import torch

from hf_transfer.cli import main
from hf_transfer.errors import UserError
from hf_transfer.models.head import find_head
from hf_transfer.training.l2sp import L2SPCallback
from tests.tiny_project import tiny_project
from tests.training.tiny_run import tiny_model, tiny_trainer


def trained(
    folder: Path, strength: float | None, strategy: str = "full", batch: int = 4, accumulation: int = 1, **settings
):
    model = tiny_model("vit")
    start = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    trainer = tiny_trainer(
        model,
        folder,
        strategy=strategy,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        callbacks=[L2SPCallback(model, find_head(model), strength)],
        weight_decay=0.1,
        **settings,
    )
    trainer.train()
    return start, {name: tensor.detach() for name, tensor in model.named_parameters()}, trainer


def distance(start: dict, end: dict, head: tuple[str, ...]) -> float:
    return float(sum((end[name] - start[name]).square().sum() for name in start if name not in head))


def test_the_stronger_the_pull_the_nearer_to_the_start(tmp_path: Path):
    head = find_head(tiny_model("vit"))
    distances = [distance(*trained(tmp_path / str(s), s)[:2], head) for s in (1e-6, 1.0, 10.0)]
    assert distances[0] > distances[1] > distances[2]


def test_one_step_is_the_formula(tmp_path: Path):
    settings = {"max_steps": 2, "learning_rate": 0.05, "max_grad_norm": 0.0}
    start, end, trainer = trained(tmp_path / "pulled", 0.5, **settings)
    # The first step begins at the start, where there is no pull; by hand from there on.
    one = trained(tmp_path / "one", 1e-12, max_steps=1, learning_rate=0.05, max_grad_norm=0.0)[1]
    two = trained(tmp_path / "two", 1e-12, **settings)[1]
    for name in ("vit.layers.0.mlp.fc1.weight", "vit.embeddings.cls_token"):
        key = next(found for found in start if found == name or found.endswith(name.split(".", 1)[1]))
        update = two[key] - one[key]
        torch.testing.assert_close(
            end[key], torch.lerp(one[key], start[key], 0.05 * 0.5) + update, rtol=1e-4, atol=1e-5
        )
    decays = {group["name"]: group["weight_decay"] for group in trainer.optimizer.param_groups}
    assert decays["backbone"] == 0.0
    assert decays["head"] == 0.1


def test_accumulation_does_not_change_the_pull(tmp_path: Path):
    _, whole, _ = trained(tmp_path / "4x1", 1.0, batch=4)
    _, cut, _ = trained(tmp_path / "2x2", 1.0, batch=2, accumulation=2)
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, cut[name], rtol=1e-4, atol=2e-6)


def test_frozen_layers_are_not_touched(tmp_path: Path):
    start, end, trainer = trained(tmp_path, 5.0, strategy="partial")
    frozen = {name for group in trainer.groups[:-2] for name in group.parameter_names}
    assert frozen
    assert all(torch.equal(start[name], end[name]) for name in frozen)


def test_weights_that_were_replaced_are_noticed(tmp_path: Path):
    model = tiny_model("vit")
    trainer = tiny_trainer(model, tmp_path, callbacks=[L2SPCallback(tiny_model("vit"), find_head(model), 1.0)])
    with pytest.raises(UserError, match="none of the weights that learn came from the checkpoint"):
        trainer.train()


@pytest.mark.parametrize("words", [["--l2_sp", "0"], ["--l2_sp", "0.1", "--strategy", "feature-extraction"]])
def test_a_pull_that_cannot_be_is_refused(words: list[str], tmp_path: Path, capsys):
    torch.manual_seed(0)
    checkpoint, pictures = tiny_project(tmp_path)
    given = ["train", "--model", str(checkpoint), "--dataset", str(pictures), "--use_cpu", "--strategy", "full"]
    assert main([*given, "--output_dir", str(tmp_path / "run"), *words]) == 2
    assert "--l2_sp" in capsys.readouterr().err
