"""Layer groups of every family: whole, disjoint, in order, with the head last; and no order that timm contradicts."""

import itertools
import re
import warnings

import pytest
import timm
import torch
from timm.models import group_parameters, model_entrypoint
from torch import nn

from hf_transfer.errors import UserError
from hf_transfer.models.execution_order import input_shape, trace_execution
from hf_transfer.models.head import find_head
from hf_transfer.models.layer_groups import LayerGroup, layer_groups
from tests.models.families import FAMILIES, build_tiny_model

# Refused by the package: one wants pixels as tokens, the other pictures of any shape.
TRACEABLE = sorted(set(FAMILIES) - {"imagegpt", "siglip2"})
NO_OPINION = {
    "csatv2": "has no group_matcher",
    "metaformer": "has no group_matcher",
    "pit": "has no group_matcher",
    "rdnet": "its coarse grouping is not implemented",
    "coat": "its matcher puts the class token of each stage with that stage; here all are in the stem",
    "visformer": "its matcher puts position embeddings with the stage they come before; here all are in the stem",
    "efficientvim": "its matcher puts the norms and weights that stages 0 and 1 feed behind the last stage",
}


def assert_whole(model: nn.Module, groups: tuple[LayerGroup, ...]) -> None:
    names = [name for group in groups for name in group.parameter_names]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    modules = [name for group in groups for name in group.module_names]
    assert len(modules) == len(set(modules))
    assert len({group.name for group in groups}) == len(groups)
    known = dict(model.named_modules())
    owner = {id(model.get_parameter(name)): group for group in groups for name in group.parameter_names}
    for group in groups:
        for module in group.module_names:
            assert all(owner[id(parameter)] is group for parameter in known[module].parameters()), module


@pytest.mark.parametrize("family", TRACEABLE)
@pytest.mark.parametrize("granularity", [None, "stage", "block"])
def test_groups_are_whole_and_end_in_the_head(family: str, granularity):
    model = build_tiny_model(family)
    groups = layer_groups(model, granularity)
    assert_whole(model, groups)
    assert len(groups) >= 3
    assert groups[-1].name == "head"
    head = {name for name in find_head(model) if name in dict(model.named_parameters())}
    assert set(groups[-1].parameter_names) == head


@pytest.mark.parametrize("family", TRACEABLE)
def test_groups_follow_the_order_in_which_layers_run(family: str):
    model = build_tiny_model(family)
    first_use = trace_execution(model).first_use
    reached = -1
    for group in layer_groups(model, "block")[1:]:
        used = [first_use[name] for name in group.parameter_names if name in first_use]
        assert min(used) > reached, group.name
        reached = min(used)


@pytest.mark.parametrize("family", sorted(set(TRACEABLE) - {"pp_lcnet"}))  # it has no `logits`, and is refused
def test_contributing_parameters_are_those_with_a_gradient(family: str):
    model = build_tiny_model(family)
    shape = input_shape(model)
    model(pixel_values=torch.randn(1, *shape)).logits.square().sum().backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trace_execution(model).contributing == with_gradient


@pytest.mark.parametrize("family", ["vit", "resnet", "swin", "efficientnet"])
def test_looking_changes_nothing(family: str):
    model = build_tiny_model(family).train()
    next(iter(model.parameters())).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    state = torch.get_rng_state()
    layer_groups(model)
    assert torch.equal(state, torch.get_rng_state())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == gradients
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_module_in_two_places_keeps_its_weights():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            shared = nn.Conv2d(3, 3, 1)
            self.stages = nn.Sequential(*(nn.Sequential(shared, nn.Conv2d(3, 3, 3, padding=1)) for _ in range(3)))
            self.tied = nn.Conv2d(3, 3, 1)
            self.tied.weight = shared.weight
            self.head = nn.Linear(3, 2)

        def forward(self, pixels):
            return self.head(self.tied(self.stages(pixels)).mean((2, 3)))

        def get_classifier(self):
            return self.head

    model = Twice()
    before = dict(model.named_parameters())
    groups = layer_groups(model)
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    assert [group.name for group in groups] == ["stages.0", "stages.1", "stages.2", "head"]
    assert "stages.0.0.weight" in groups[0].parameter_names, "shared: in the first group that uses it"
    assert "tied.bias" in groups[2].parameter_names
    assert "stages.1" not in groups[1].module_names, "it holds a weight of the group before"


def test_a_network_without_a_head_is_refused():
    with pytest.raises(UserError, match="no head with weights"):
        layer_groups(timm.create_model("test_resnet", num_classes=0))


def timm_samples() -> dict[str, str]:
    """Returns one of the smallest architectures of each of timm's model files, by file."""
    smaller = (
        "atto",
        "femto",
        "pico",
        "nano",
        "xxs",
        "tiny",
        "xs",
        "small",
        "_s",
        "base",
        "large",
        "xl",
        "huge",
        "giant",
    )

    def size(name: str) -> tuple:
        words = [place for place, word in enumerate(smaller) if word in name]
        numbers = re.findall(r"\d+", name)
        return (min(words, default=9), int(numbers[0]) if numbers else 0, name)

    by_file: dict[str, list[str]] = {}
    for name in timm.list_models(exclude_filters="test_*"):
        by_file.setdefault(model_entrypoint(name).__module__.rpartition(".")[2], []).append(name)
    return {file: min(names, key=size) for file, names in sorted(by_file.items())}


def build(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return timm.create_model(name, num_classes=10)
        except (RuntimeError, NotImplementedError):
            return timm.create_model(name, num_classes=10)


def contradictions(groups: tuple[LayerGroup, ...], layers: dict[str, float]) -> list[tuple[str, str]]:
    """Returns pairs of parameters of which one comes earlier for timm and later for us."""
    ours = {name: number for number, group in enumerate(groups) for name in group.parameter_names}
    found, latest = [], ""
    for _, names in itertools.groupby(sorted(layers, key=layers.__getitem__), key=layers.__getitem__):
        names = list(names)
        found += [(latest, name) for name in names if latest and ours[name] < ours[latest]]
        latest = max([*names, *([latest] if latest else [])], key=ours.__getitem__)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(timm_samples()))
def test_timm_never_orders_layers_the_other_way(file: str):
    model = build(timm_samples()[file])
    for granularity in ("stage", "block"):
        groups = layer_groups(model, granularity)
        assert_whole(model, groups)
        assert len(groups) >= 3
        if file in NO_OPINION:
            continue
        for coarse in (True, False):
            layers = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
            assert not contradictions(groups, layers)
