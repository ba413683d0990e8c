"""Every parameter that learns in exactly one group, at the right rate."""

import pytest

from hf_transfer.models.head import find_head
from hf_transfer.models.two_groups import backbone_and_head
from hf_transfer.training.parameter_groups import build_parameter_groups
from tests.models.families import build_tiny_model


def built(model, *, head_rate: float = 1.0, weight_decay: float = 0.1, learning=(0, 1)) -> list[dict]:
    groups = backbone_and_head(model, find_head(model))
    rates = {
        name: rate for group, rate in zip(groups, (1e-4, head_rate), strict=True) for name in group.parameter_names
    }
    return build_parameter_groups(model, groups, rates, weight_decay, learning)


@pytest.mark.parametrize("family", ["vit", "convnextv2", "resnet", "swin", "levit", "deit"])
def test_groups_hold_every_parameter_once(family: str):
    model = build_tiny_model(family)
    groups = built(model, head_rate=1e-3)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in model.parameters()}
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == (1e-3 if name in find_head(model) else 1e-4), name


def test_norms_biases_scales_and_single_tokens_do_not_decay():
    for family in ("vit", "convnextv2", "resnet"):
        model = build_tiny_model(family)
        decay = {id(parameter): group["weight_decay"] for group in built(model) for parameter in group["params"]}
        for name, parameter in model.named_parameters():
            plain = any(word in name for word in ("bias", "norm", "cls_token", "grn"))
            if plain:
                assert decay[id(parameter)] == 0.0, name
            elif name.endswith("weight") and parameter.ndim == 4 and parameter.shape[1] > 1:
                assert decay[id(parameter)] == 0.1, name


def test_groups_that_never_learn_are_left_out():
    groups = built(build_tiny_model("vit"), learning=[1])
    assert [group["name"] for group in groups] == ["head", "head_no_decay"]


def test_frozen_parameters_of_a_group_that_will_learn_are_in():
    model = build_tiny_model("vit").requires_grad_(False)
    assert sum(len(group["params"]) for group in built(model)) == len(list(model.parameters()))


def test_a_parameter_with_a_rate_of_its_own_gets_a_group_of_its_own():
    model = build_tiny_model("vit")
    groups = backbone_and_head(model, find_head(model))
    rates = {name: 1e-4 for name, _ in model.named_parameters()} | {"vit.embeddings.cls_token": 0.5}
    made = build_parameter_groups(model, groups, rates, 0.1, (0, 1))
    own = [group for group in made if group["lr"] == 0.5]
    assert len(own) == 1
    assert own[0]["name"].startswith("backbone at 0.5")
    assert [id(parameter) for parameter in own[0]["params"]] == [id(model.vit.embeddings.cls_token)]
