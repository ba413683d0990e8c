"""One trajectory, however a global batch is cut: micro-batches and processes leave the same weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

from hf_transfer.training.trainer import TransferTrainer
from tests.processes import launched, run_on_cpus
from tests.training.tiny_run import tiny_model, tiny_trainer, trained_weights

# Without BatchNorm, whose statistics belong to a micro-batch by definition.
FAMILIES = ("vit", "deit", "beit", "swin", "convnext", "convnextv2", "dinov2", "siglip")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("family", FAMILIES)
def test_accumulation_does_not_change_the_weights(family: str, tmp_path: Path):
    """20 pictures in global batches of 16: the second one is filled up, and is whole in every cut."""
    before = {f"{family}/{name}": tensor.clone() for name, tensor in tiny_model(family).state_dict().items()}
    whole = trained_weights(family, tmp_path / "16x1", 16, 1)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in whole.items())
    assert_same(whole, trained_weights(family, tmp_path / "8x2", 8, 2))
    assert_same(whole, trained_weights(family, tmp_path / "4x4", 4, 4))


def test_smoothing_and_class_weights_do_not_depend_on_the_cut(tmp_path: Path):
    settings = {"label_smoothing_factor": 0.1, "class_weights": torch.tensor([0.5, 1.0, 1.5])}
    assert_same(
        trained_weights("vit", tmp_path / "16x1", 16, 1, **settings),
        trained_weights("vit", tmp_path / "4x4", 4, 4, **settings),
    )


def test_two_processes_train_what_one_does(tmp_path: Path):
    out = tmp_path / "two.safetensors"
    result = run_on_cpus(launched("tests.training.tiny_run", str(out), "8", "1", *FAMILIES))
    assert result.returncode == 0, result.stderr[-3000:]
    two = load_file(out)
    one: dict[str, torch.Tensor] = {}
    for family in FAMILIES:
        one |= trained_weights(family, tmp_path / family, 16, 1)
    assert_same(one, two)


def test_upstream_still_scales_gradients_by_accumulation(tmp_path: Path):
    """transformers#47688: when this fails, stock Trainer is right and our own loss may rest on it."""

    class StockLoss(TransferTrainer):
        compute_loss = Trainer.compute_loss
        _get_num_items_in_batch = Trainer._get_num_items_in_batch

    weights = []
    for batch, accumulation in ((16, 1), (4, 4)):
        model = tiny_model("beit")
        trainer = tiny_trainer(
            model,
            tmp_path,
            "beit",
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            max_grad_norm=0.0,
        )
        trainer.__class__ = StockLoss
        trainer.loss_is_scaled_for_ga = None
        trainer.train()
        weights.append(model.state_dict())
    assert any((weights[0][name] - weights[1][name]).abs().max() > 1e-3 for name in weights[0])
