"""Frozen means: no parameter, no buffer and no statistic of the backbone moves."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from hf_transfer.models.head import find_head
from hf_transfer.models.two_groups import backbone_and_head
from hf_transfer.training.frozen import frozen_modules
from tests.models.families import build_tiny_model
from tests.training.tiny_run import tiny_model, tiny_trainer

FAMILIES = ("vit", "swin", "convnext", "resnet", "mobilenet_v1", "mobilenet_v2", "regnet")


def lively_model(family: str) -> PreTrainedModel:
    """Returns a tiny model with kernels large enough for a signal to reach its end."""
    model = tiny_model(family)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_feature_extraction_changes_the_head_and_nothing_else(family: str, tmp_path: Path):
    model = lively_model(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tiny_trainer(model, tmp_path, family, strategy="feature-extraction").train()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(find_head(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_full_changes_every_parameter_that_is_used(family: str, tmp_path: Path):
    model = lively_model(family)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    tiny_trainer(model, tmp_path, family, strategy="full", optim="adamw_torch", learning_rate=0.01).train()
    unchanged = {name for name, tensor in model.named_parameters() if torch.equal(tensor, before[name])}
    # A parameter may be there without being used, as a mask token is; then it never has a gradient.
    probe = model(pixel_values=torch.randn(2, 3, 32, 32)).logits.square().sum()
    probe.backward()
    unused = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert unchanged <= unused | {name for name, tensor in before.items() if tensor.numel() == 0}


def test_frozen_batch_norm_keeps_its_statistics_though_trainer_calls_train(tmp_path: Path):
    model = tiny_model("resnet")
    trainer = tiny_trainer(model, tmp_path, "resnet", strategy="feature-extraction")
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    trainer.train()
    assert all(norm.num_batches_tracked == 0 for norm in norms)


def test_dropout_before_the_head_stays_on_and_the_rest_is_off(tmp_path: Path):
    model = build_tiny_model("mobilenet_v2")
    trainer = tiny_trainer(model, tmp_path, "mobilenet_v2", strategy="feature-extraction")
    model.train()
    inputs = {"pixel_values": torch.randn(2, 3, 32, 32), "labels": torch.tensor([0, 1])}
    trainer.compute_loss(model, inputs)
    assert model.dropout.training
    assert model.classifier.training
    assert not any(module.training for module in model.mobilenet_v2.modules())


def test_nothing_is_frozen_when_everything_trains():
    model = build_tiny_model("vit")
    assert frozen_modules(model, backbone_and_head(model, find_head(model)), (0, 1)) == ()


def test_optimizer_holds_the_head_alone(tmp_path: Path):
    model = tiny_model("vit")
    trainer = tiny_trainer(model, tmp_path, strategy="feature-extraction")
    trainer.train()
    groups = trainer.optimizer.param_groups
    held = {id(parameter) for group in groups for parameter in group["params"]}
    assert held == {id(dict(model.named_parameters())[name]) for name in find_head(model)}
