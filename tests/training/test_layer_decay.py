"""Published factors, and what they become in our groups."""

from typing import Any

import pytest

from hf_transfer.errors import UserError
from hf_transfer.models.layer_groups import layer_groups
from hf_transfer.training.layer_decay import LayerDecay, plan_layer_decay, published_decay
from tests.models.families import build_tiny_model


def tiny(family: str, **settings: Any):
    model: Any = build_tiny_model(family, num_labels=2)
    for name, value in settings.items():
        setattr(model.config, name, value)
    return model


def as_timm(architecture: str, tag: str, blocks: int = 12):
    """Returns a model whose configuration is that of a timm checkpoint."""
    return tiny("resnet", architecture=architecture, pretrained_cfg={"tag": tag}, num_hidden_layers=blocks)


@pytest.mark.parametrize(
    ("model", "factor", "layers"),
    [
        (tiny("beit", architectures=["BeitForMaskedImageModeling"], num_hidden_layers=12), 0.65, 12),
        (tiny("beit", architectures=["BeitForMaskedImageModeling"], num_hidden_layers=24), 0.75, 24),
        (tiny("beit", architectures=["BeitForImageClassification"], num_hidden_layers=12), 0.85, 12),
        (tiny("beit", architectures=["BeitForImageClassification"], num_hidden_layers=24), 0.9, 24),
        (tiny("convnext", architectures=["ConvNextForImageClassification"]), 0.7, 12),
        (tiny("convnextv2", architectures=["ConvNextV2Model"]), 0.9, 12),
        (tiny("convnextv2", architectures=["ConvNextV2ForImageClassification"]), None, None),
        (tiny("vit", architectures=["ViTForImageClassification"]), None, None),
        (as_timm("vit_base_patch16_224", "mae"), 0.65, 12),
        (as_timm("vit_large_patch16_224", "mae", 24), 0.75, 24),
        (as_timm("vit_base_patch16_224", "augreg_in21k_ft_in1k"), None, None),
        (as_timm("beit_base_patch16_224", "in22k_ft_in22k"), 0.85, 12),
        (as_timm("beitv2_base_patch16_224", "in1k_ft_in22k"), 0.75, 12),
        (as_timm("convnext_base", "fb_in22k"), 0.8, 12),
        (as_timm("convnext_base", "fb_in1k"), 0.7, 12),
        (as_timm("convnextv2_tiny", "fcmae"), 0.9, 12),
        (as_timm("convnextv2_tiny", "fcmae_ft_in22k_in1k"), None, None),
        (as_timm("resnet50", "a1_in1k"), None, None),
    ],
)
def test_published_factors(model, factor: float | None, layers: int | None):
    decay = published_decay(model)
    assert (decay.factor, decay.layers) == (factor, layers)
    assert ("none published" in decay.reason) is (factor is None)


def test_the_stem_learns_at_the_same_share_however_many_groups_there_are():
    published = LayerDecay(0.8, 12, "")
    for groups in (3, 6, 14, 38):
        factor = published.per_group(groups)
        assert factor is not None
        assert factor ** (groups - 2) == pytest.approx(0.8**12)
    assert published.per_group(2) == 0.8
    assert LayerDecay(0.5, None, "").per_group(6) == 0.5


def test_a_vit_by_block_has_the_published_factor_itself():
    model = tiny("beit", architectures=["BeitForMaskedImageModeling"])
    groups = layer_groups(model, "block")
    assert published_decay(model).layers == len(groups) - 2
    assert published_decay(model).per_group(len(groups)) == pytest.approx(0.65)


def test_wishes():
    beit = tiny("beit", architectures=["BeitForMaskedImageModeling"])
    assert plan_layer_decay("auto", "full", beit).factor == 0.65
    assert plan_layer_decay("none", "full", beit).factor is None
    assert plan_layer_decay("0.5", "full", beit).factor == 0.5
    assert plan_layer_decay("auto", "scratch", beit).factor is None
    assert plan_layer_decay("auto", "feature-extraction", beit).factor is None


@pytest.mark.parametrize("wish", ["0", "1.5", "-1", "much", "nan"])
def test_factors_that_cannot_be(wish: str):
    with pytest.raises(UserError, match=f"--layer_decay {wish}") as error:
        plan_layer_decay(wish, "full", tiny("vit"))
    assert "none" in (error.value.allowed or "")
