"""Every trainable parameter in exactly one group, at the right rate."""

import pytest

from hf_transfer.models.head import find_head
from hf_transfer.training.parameter_groups import build_parameter_groups
from tests.models.families import build_tiny_model


@pytest.mark.parametrize("family", ["vit", "convnextv2", "resnet", "swin", "levit", "deit"])
def test_groups_hold_every_parameter_once(family: str):
    model = build_tiny_model(family)
    head = find_head(model)
    groups = build_parameter_groups(model, head, learning_rate=1e-4, lr_head=1e-3, weight_decay=0.05)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in model.parameters()}
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == (1e-3 if name in head else 1e-4), name


def test_norms_biases_scales_and_single_tokens_do_not_decay():
    for family in ("vit", "convnextv2", "resnet"):
        model = build_tiny_model(family)
        groups = build_parameter_groups(model, (), learning_rate=1.0, lr_head=1.0, weight_decay=0.1)
        decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
        for name, parameter in model.named_parameters():
            plain = any(word in name for word in ("bias", "norm", "cls_token", "grn"))
            if plain:
                assert decay[id(parameter)] == 0.0, name
            elif name.endswith("weight") and parameter.ndim == 4 and parameter.shape[1] > 1:
                assert decay[id(parameter)] == 0.1, name


def test_frozen_parameters_are_left_out():
    model = build_tiny_model("vit")
    head = find_head(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in head)
    groups = build_parameter_groups(model, head, learning_rate=1e-4, lr_head=1e-3, weight_decay=0.05)
    assert [group["name"] for group in groups] == ["head", "head_no_decay"]
