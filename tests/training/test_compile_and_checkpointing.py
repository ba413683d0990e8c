"""Activation checkpointing, torch.compile and the memory of frozen layers, with every strategy."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from hf_transfer import cpu_products
from hf_transfer.training.frozen import open_groups
from hf_transfer.training.strategies import Unfreezing
from tests.training.test_unfreezing import Observer, lively
from tests.training.tiny_run import tiny_trainer

STRATEGIES = {
    "feature-extraction": Unfreezing(strategy="feature-extraction"),
    "norms first": Unfreezing(strategy="feature-extraction", tune_norms="2 steps"),
    "partial": Unfreezing(strategy="partial", train_last=1),
    "progressive": Unfreezing(strategy="progressive", unfreeze_every="1 step"),
    "lp-ft": Unfreezing(strategy="lp-ft", probe="2 steps"),
    "full": Unfreezing(strategy="full"),
}


def trained(family: str, strategy: str, folder: Path, **settings) -> tuple[Observer, dict[str, torch.Tensor]]:
    model, _ = lively(family, folder)
    observer = Observer()
    trainer = tiny_trainer(
        model,
        folder,
        family,
        split_size=8,
        strategy=STRATEGIES[strategy],
        callbacks=[observer],
        learning_rate=1e-3,
        **settings,
    )
    trainer.train()
    assert len(observer.changed) == trainer.state.global_step == 4
    return observer, {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("family", ["vit", "resnet", "convnext"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_activation_checkpointing_changes_no_gradient(family: str, strategy: str, tmp_path: Path):
    plain, weights = trained(family, strategy, tmp_path / "plain")
    model, _ = lively(family, tmp_path)
    if not model.supports_gradient_checkpointing:
        pytest.skip(f"{family} does not support activation checkpointing")
    saving, same = trained(family, strategy, tmp_path / "saving", activation_checkpointing=True)
    assert saving.with_gradient == plain.with_gradient
    for name, tensor in weights.items():
        # BatchNorm counts a recomputed batch twice; its statistics are then those of two equal batches.
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(tensor, same[name], rtol=1e-5, atol=1e-6)


def test_activations_in_bfloat16_can_be_computed_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where attention in bfloat16 goes another way (`hf_transfer.cpu_products`), which no backward pass can."""
    monkeypatch.setattr(cpu_products, "mkl_is_slow", lambda: True)
    settings = {"bf16": True, "use_cpu": True}
    _, weights = trained("vit", "full", tmp_path / "plain", **settings)
    _, same = trained("vit", "full", tmp_path / "saving", activation_checkpointing=True, **settings)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, same[name], rtol=0.02, atol=5e-3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("strategy", ["feature-extraction", "norms first", "partial", "progressive", "full"])
def test_a_compiled_model_thaws_as_any_other(strategy: str, tmp_path: Path):
    plain, weights = trained("vit", strategy, tmp_path / "plain")
    compiled, same = trained("vit", strategy, tmp_path / "compiled", torch_compile=True)
    assert compiled.with_gradient == plain.with_gradient
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, same[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["vit", "resnet", "convnext"])
def test_activations_are_kept_for_open_groups_alone(family: str, tmp_path: Path):
    model, _ = lively(family, tmp_path)
    trainer = tiny_trainer(model, tmp_path, family, strategy=STRATEGIES["progressive"])
    kept = []
    for opened in range(1, len(trainer.groups) + 1):
        open_groups(model, trainer.groups, range(len(trainer.groups) - opened, len(trainer.groups)))
        kept.append(bytes_kept(model))
    assert kept == sorted(kept)
    assert kept[0] < kept[-1] / 10


def bytes_kept(model: nn.Module) -> int:
    """Returns the size of what autograd keeps of one forward pass, without the weights themselves."""
    own = {parameter.data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = model(pixel_values=torch.randn(4, 3, 32, 32)).logits
    assert output.requires_grad
    return sum(sizes.values())
