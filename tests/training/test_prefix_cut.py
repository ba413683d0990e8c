"""Cuts: found without names, exact or refused, and gone without a trace."""

import pytest
import timm
import torch
from torch import nn
from transformers import PreTrainedModel

from hf_transfer.models.execution_order import input_shape
from hf_transfer.models.head import find_head
from hf_transfer.models.layer_groups import LayerGroup, layer_groups
from hf_transfer.models.two_groups import backbone_and_head
from hf_transfer.training.frozen import open_groups
from hf_transfer.training.prefix_cut import PrefixCut
from hf_transfer.training.prefix_search import cut_at, find_cut
from tests.models.families import FAMILIES, build_tiny_model

NOT_CLASSIFIERS = ("imagegpt", "siglip2", "pp_lcnet")
BUILDABLE = tuple(family for family in FAMILIES if family not in NOT_CLASSIFIERS)


def frozen_below(model: nn.Module, groups, lowest_open: int) -> torch.Tensor:
    """Freezes a model as a training has it; returns pictures."""
    open_groups(model, groups, range(lowest_open, len(groups)))
    model.train()
    for group in groups[:lowest_open]:
        for name in group.module_names:
            model.get_submodule(name).training = False
    return torch.randn(5, *input_shape(model))


def cut_below_last_block(model: nn.Module) -> tuple[PrefixCut, torch.Tensor, int]:
    """Returns the cut where the last block and the head learn, pictures, and the number of the lowest open group."""
    groups = layer_groups(model, "block")
    lowest_open = max(1, len(groups) - 2)
    pictures = frozen_below(model, groups, lowest_open)
    cut = find_cut(model, groups, lowest_open, pictures)
    assert cut is not None
    return cut, pictures, lowest_open


def cut_below_head(family: str) -> tuple[PrefixCut, torch.Tensor]:
    """Returns a network in evaluation mode, cut where the head alone learns, and pictures."""
    model = build_tiny_model(family)
    groups = backbone_and_head(model, find_head(model))
    pictures = frozen_below(model, groups, 1)
    cut = find_cut(model, groups, 1, pictures)
    assert cut is not None
    model.eval()
    return cut, pictures


def logits(model: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    return model.eval()(pixel_values=pixel_values).logits.detach()


@pytest.mark.parametrize("family", BUILDABLE)
def test_what_enters_the_head_is_all_that_has_to_be_kept(family: str):
    torch.manual_seed(0)
    model = build_tiny_model(family)
    groups = backbone_and_head(model, find_head(model))
    pictures = frozen_below(model, groups, 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cut = find_cut(model, groups, 1, pictures)
    assert cut is not None
    # A vector a picture, for each head; not the feature maps or tokens that it was made of.
    assert all(torch.Size(inlet.shape).numel() <= 4 * max(model_widths(model)) for inlet in cut.inlets)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    others = torch.randn(3, *pictures.shape[1:])
    whole = logits(model, others)
    kept = cut.collect(others)
    assert all(not values.requires_grad for values in kept)
    with cut.fed_with(kept) as without_content:
        assert not without_content.any()
        part = logits(model, without_content)
    torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits(model, others), whole, rtol=0, atol=0)


@pytest.mark.parametrize("family", BUILDABLE)
def test_nothing_below_is_computed_where_inputs_are_kept(family: str):
    torch.manual_seed(0)
    model = build_tiny_model(family)
    cut, pictures, _ = cut_below_last_block(model)
    computed: list[str] = []

    def note(name: str):
        # A stub is called too; what it stands in for is not.
        return lambda module, inputs: computed.append(name) if "forward" not in vars(module) else None

    for below in cut.below:
        for name, module in model.get_submodule(below).named_modules(prefix=below):
            module.register_forward_pre_hook(note(name))
    model.eval()
    kept = cut.collect(pictures)
    assert computed
    computed.clear()
    with cut.fed_with(kept) as without_content:
        model(pixel_values=without_content)
    assert computed == []


def model_widths(model: nn.Module) -> list[int]:
    return [parameter.shape[0] for parameter in model.parameters() if parameter.dim()]


@pytest.mark.parametrize(
    "family",
    [
        *("vit", "swin", "resnet"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("convnext", "efficientnet", "dinov2", "beit")),
        pytest.param("mobilenet_v2", marks=pytest.mark.slow),
    ],
)
def test_every_boundary_between_groups_can_be_cut(family: str):
    torch.manual_seed(0)
    for lowest_open in range(1, len(layer_groups(build_tiny_model(family), "block"))):
        torch.manual_seed(0)
        model = build_tiny_model(family)
        groups = layer_groups(model, "block")
        pictures = frozen_below(model, groups, lowest_open)
        cut = find_cut(model, groups, lowest_open, pictures)
        assert cut is not None
        exact = cut_at(model, groups, lowest_open)
        assert (cut.below, cut.above) == (exact.below, exact.above), f"the cut slipped from group {lowest_open}"


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_timm_without_the_wrapper_of_transformers(name: str):
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    torch.manual_seed(0)
    config = TimmWrapperConfig(architecture=name, num_labels=3, initializer_range=0.02)
    config.pretrained_cfg = timm.create_model(name).pretrained_cfg
    model = TimmWrapperForImageClassification(config)
    groups = layer_groups(model)
    for lowest_open in (1, len(groups) - 1):
        pictures = frozen_below(model, groups, lowest_open)
        assert find_cut(model, groups, lowest_open, pictures) is not None


class Skipping(nn.Module):
    """Adds what an early layer returned to what the last one does."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third, self.head = (nn.Linear(3, 3) for _ in range(4))

    def forward(self, pixel_values):
        below = self.second(self.first(pixel_values.mean((2, 3))))
        return type("Output", (), {"logits": self.head(self.third(below)) + below})()


@pytest.mark.parametrize(("lowest_open", "inlet"), [(3, "second"), (2, "second"), (1, "second")])
def test_a_connection_past_the_cut_is_noticed_and_the_cut_moves_below_it(lowest_open: int, inlet: str):
    torch.manual_seed(0)
    model = Skipping()
    names = ("first", "second", "third", "head")
    groups = [LayerGroup(name, (f"{name}.weight", f"{name}.bias"), (name,)) for name in names]
    open_groups(model, groups, range(lowest_open, 4))
    cut = find_cut(model, groups, lowest_open, torch.randn(5, 3, 8, 8))
    assert cut is not None
    assert [found.module for found in cut.inlets] == [inlet]


def test_where_no_cut_is_exact_there_is_none():
    torch.manual_seed(0)
    model = Skipping()
    model.first = nn.Identity()
    groups = [
        LayerGroup("backbone", ("second.weight", "second.bias", "third.weight", "third.bias"), ("second", "third")),
        LayerGroup("head", ("head.weight", "head.bias"), ("head",)),
    ]
    open_groups(model, groups, (1,))
    assert find_cut(model, groups, 1, torch.randn(5, 3, 8, 8)) is None


def test_layers_that_write_into_their_input_are_cut_as_well():
    torch.manual_seed(0)
    model = build_tiny_model("mobilenet_v1")
    model.dropout.inplace = True
    groups = backbone_and_head(model, find_head(model))
    pictures = frozen_below(model, groups, 1)
    cut = find_cut(model, groups, 1, pictures)
    assert cut is not None
    assert [inlet.module for inlet in cut.inlets] == ["dropout"]


class Writing(nn.Module):
    """Adds one frozen layer's output to another's in place, as ResNets do."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = (nn.Linear(3, 3) for _ in range(3))

    def forward(self, pixel_values):
        below = self.first(pixel_values.mean((2, 3)))
        added = self.second(below)
        added += below
        return type("Output", (), {"logits": self.head(added)})()


def test_what_stubs_return_lies_in_the_same_memory():
    torch.manual_seed(0)
    model = Writing()
    names = ("first", "second", "head")
    groups = [LayerGroup(name, (f"{name}.weight", f"{name}.bias"), (name,)) for name in names]
    open_groups(model, groups, (2,))
    pictures = torch.randn(5, 3, 8, 8)
    cut = find_cut(model, groups, 2, pictures)
    assert cut is not None
    returned = {}
    with cut.fed_with(cut.collect(pictures)) as without_content:
        for name in ("first", "second"):
            returned[name] = model.get_submodule(name)(without_content).untyped_storage().data_ptr()
    assert set(returned.values()) == {without_content.untyped_storage().data_ptr()}
    torch.testing.assert_close(logits(model, pictures), logits_of_part(model, cut, pictures))


def logits_of_part(model: nn.Module, cut, pictures: torch.Tensor) -> torch.Tensor:
    """Returns the logits of the part above the cut."""
    with cut.fed_with(cut.collect(pictures)) as without_content:
        return logits(model, without_content)
