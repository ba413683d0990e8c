"""Stochastic depth is the checkpoint's own: as its configuration says, in the layers, and in what is saved."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from hf_transfer.models.checkpoint import load_checkpoint
from tests.models.checkpoint_folders import edit_config
from tests.models.families import build_tiny_model, tiny_image_processor
from tests.models.timm_architectures import build_tiny_timm_checkpoint

LABELS = ("cat", "dog", "owl")


def drop_rates(model: nn.Module) -> list[float]:
    """Returns the probability of every layer that drops whole paths, whatever its class calls it."""
    rates = []
    for module in model.modules():
        if "droppath" in type(module).__name__.lower():
            rates.append(float(next(vars(module)[name] for name in ("drop_prob", "p") if name in vars(module))))
    return rates


def saved(family: str, folder: Path, rate: float) -> Path:
    torch.manual_seed(0)
    build_tiny_model(family).save_pretrained(folder)
    tiny_image_processor(family).save_pretrained(folder)
    edit_config(folder, lambda config: config.update(drop_path_rate=rate))
    return folder


@pytest.mark.parametrize("family", ["beit", "convnext", "convnextv2", "dinov2", "swin"])
def test_the_rate_of_the_configuration_is_kept(family: str, tmp_path: Path):
    model = load_checkpoint(str(saved(family, tmp_path / "old", 0.3)), label_names=LABELS).model
    assert max(drop_rates(model)) == pytest.approx(0.3)
    model.save_pretrained(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["drop_path_rate"] == 0.3


@pytest.mark.parametrize("family", ["beit", "convnext", "swin"])
def test_none_is_added(family: str, tmp_path: Path):
    model = load_checkpoint(str(saved(family, tmp_path, 0.0)), label_names=LABELS).model
    assert not any(drop_rates(model))


def test_timm_keeps_it_too(tmp_path: Path):
    folder = build_tiny_timm_checkpoint(tmp_path / "old", "test_convnext")
    edit_config(folder, lambda config: config.update(model_args={"drop_path_rate": 0.2}))
    model = load_checkpoint(str(folder), label_names=LABELS).model
    assert max(drop_rates(model)) == pytest.approx(0.2)
    model.save_pretrained(tmp_path / "new")
    again = load_checkpoint(str(saved_with_processor(tmp_path / "new", folder)), label_names=LABELS).model
    assert drop_rates(again) == drop_rates(model)


def saved_with_processor(folder: Path, original: Path) -> Path:
    for path in original.glob("preprocessor_config.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_it_acts_in_training_and_not_in_evaluation(tmp_path: Path):
    model = load_checkpoint(str(saved("beit", tmp_path, 0.5)), label_names=LABELS).model
    pixels = torch.randn(2, 3, model.config.image_size, model.config.image_size)
    torch.manual_seed(1)
    with torch.no_grad():
        model.eval()
        assert torch.equal(model(pixel_values=pixels).logits, model(pixel_values=pixels).logits)
        model.train()
        seen = [model(pixel_values=pixels).logits for _ in range(4)]
    assert any(not torch.equal(seen[0], other) for other in seen[1:])
