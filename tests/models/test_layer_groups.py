"""Golden maps: the groups of published architectures, written down by hand."""

import time

import pytest
import timm
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel, TimmWrapperConfig, TimmWrapperForImageClassification

from hf_transfer.models.head import meta_twin
from hf_transfer.models.layer_groups import LayerGroup, layer_groups

VIT_BLOCKS = [f"layers.{number}" for number in range(12)]
SWIN_BLOCKS = [f"layers.{stage}.blocks.{block}" for stage, depth in enumerate((2, 2, 6, 2)) for block in range(depth)]
CONVNEXT_BLOCKS = [
    f"stages.{stage}.layers.{block}" for stage, depth in enumerate((3, 3, 9, 3)) for block in range(depth)
]
RESNET_BLOCKS = [
    f"stages.{stage}.layers.{block}" for stage, depth in enumerate((3, 4, 6, 3)) for block in range(depth)
]
EFFICIENTNET_B0 = {
    "image_size": 224, "width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280, "dropout_rate": 0.2
}  # fmt: skip
GOLDEN = {
    # family: (settings, stages, blocks, the default)
    "ViT": ({}, VIT_BLOCKS, VIT_BLOCKS, "block"),
    "Dinov2": (
        {"image_size": 224},
        [f"layer.{number}" for number in range(12)],
        [f"layer.{number}" for number in range(12)],
        "block",
    ),
    "Siglip": ({}, VIT_BLOCKS, VIT_BLOCKS, "block"),
    "Swin": ({}, [f"layers.{stage}" for stage in range(4)], SWIN_BLOCKS, "stage"),
    "ConvNext": ({}, [f"stages.{stage}" for stage in range(4)], CONVNEXT_BLOCKS, "stage"),
    "ResNet": ({}, [f"stages.{stage}" for stage in range(4)], RESNET_BLOCKS, "stage"),
    # Blocks that work at one size make a stage: 112, 56, 28, 14 and 7 pixels wide.
    "EfficientNet": (
        EFFICIENTNET_B0,
        ["blocks.0", "blocks.1-2", "blocks.3-4", "blocks.5-10", "blocks.11-15"],
        [f"blocks.{number}" for number in range(16)],
        "stage",
    ),
    "MobileNetV1": (
        {},
        ["layer.0-1", "layer.2-5", "layer.6-9", "layer.10-21", "layer.22-25"],
        [f"layer.{number}" for number in range(26)],
        "stage",
    ),
    "MobileNetV2": (
        {},
        ["layer.0-1", "layer.2-4", "layer.5-11", "layer.12-15"],
        [f"layer.{number}" for number in range(16)],
        "stage",
    ),
}


def published(family: str) -> PreTrainedModel:
    """Builds the architecture without memory for its weights."""
    return meta_twin(
        getattr(transformers, f"{family}ForImageClassification"),
        getattr(transformers, f"{family}Config")(**GOLDEN[family][0], num_labels=7),
    )


def group_of(groups: tuple[LayerGroup, ...], parameter: str) -> str:
    return next(group.name for group in groups if parameter in group.parameter_names)


@pytest.mark.parametrize("family", GOLDEN)
def test_stages_and_blocks(family: str):
    _, stages, blocks, default = GOLDEN[family]
    model = published(family)
    assert [group.name for group in layer_groups(model, "stage")] == ["stem", *stages, "head"]
    assert [group.name for group in layer_groups(model, "block")] == ["stem", *blocks, "head"]
    expected = stages if default == "stage" else blocks
    assert [group.name for group in layer_groups(model)] == ["stem", *expected, "head"]


@pytest.mark.parametrize(
    ("family", "granularity", "parameter", "group"),
    [
        ("ViT", None, "vit.embeddings.cls_token", "stem"),
        ("ViT", None, "vit.embeddings.position_embeddings", "stem"),
        ("ViT", None, "vit.embeddings.patch_embeddings.projection.weight", "stem"),
        ("ViT", None, "vit.layers.3.attention.q_proj.weight", "layers.3"),
        ("ViT", None, "vit.layernorm.weight", "layers.11"),
        ("ViT", None, "classifier.bias", "head"),
        ("Dinov2", None, "dinov2.embeddings.mask_token", "stem"),
        ("Dinov2", None, "dinov2.layernorm.bias", "layer.11"),
        ("Siglip", None, "vision_model.post_layernorm.weight", "layers.11"),
        ("Siglip", None, "vision_model.embeddings.position_embedding.weight", "stem"),
        ("Swin", "stage", "swin.encoder.layers.0.downsample.reduction.weight", "layers.0"),
        ("Swin", "block", "swin.encoder.layers.0.downsample.reduction.weight", "layers.0.blocks.1"),
        ("Swin", "stage", "swin.layernorm.weight", "layers.3"),
        ("ConvNext", "stage", "convnext.embeddings.layernorm.weight", "stem"),
        ("ConvNext", "stage", "convnext.encoder.stages.1.downsampling_layer.0.weight", "stages.1"),
        ("ConvNext", "block", "convnext.encoder.stages.1.downsampling_layer.0.weight", "stages.1.layers.0"),
        ("ConvNext", "stage", "convnext.layernorm.weight", "stages.3"),
        ("ResNet", "stage", "resnet.embedder.embedder.normalization.weight", "stem"),
        ("ResNet", "block", "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight", "stages.1.layers.0"),
        ("EfficientNet", "stage", "efficientnet.encoder.top_conv.weight", "blocks.11-15"),
        ("MobileNetV2", "stage", "mobilenet_v2.conv_1x1.convolution.weight", "layer.12-15"),
    ],
)
def test_where_single_parameters_go(family: str, granularity, parameter: str, group: str):
    assert group_of(layer_groups(published(family), granularity), parameter) == group


@pytest.mark.parametrize(
    ("family", "module", "group"),
    [
        ("ViT", "vit.embeddings.dropout", "stem"),
        ("ViT", "vit.layers.0.mlp", "layers.0"),
        ("EfficientNet", "dropout", "head"),
        ("MobileNetV2", "dropout", "head"),
        ("ResNet", "classifier.1", "head"),
        ("ResNet", "resnet.embedder.pooler", "stem"),
    ],
)
def test_where_single_modules_go(family: str, module: str, group: str):
    owners = [found.name for found in layer_groups(published(family)) if module in found.module_names]
    assert owners == [group]


@pytest.mark.parametrize("family", ["ViT", "ResNet"])
def test_modules_around_several_groups_belong_to_none(family: str):
    model = published(family)
    held = {name for group in layer_groups(model) for name in group.module_names}
    assert "" not in held
    assert model.base_model_prefix not in held


@pytest.mark.parametrize(
    ("architecture", "stages"),
    [
        # VGG's five rows of convolutions between poolings (configuration E: two, two, four, four, four).
        (
            "vgg19",
            ["features.0-2", "features.5-7", "features.10-16", "features.19-25", "features.28-34", "pre_logits"],
        ),
        # A normalisation goes with the convolution before it.
        (
            "vgg11_bn",
            ["features.0", "features.4", "features.8-11", "features.15-18", "features.22-25", "pre_logits"],
        ),
        # Branches at four resolutions run side by side, then join from one resolution to the next.
        ("hrnet_w18", ["stem", "stage2", "stage3", "stage4", *(f"downsamp_modules.{n}" for n in range(3))]),
        # Two sequences, one after the other; the second is called `head` without being one.
        ("selecsls84", ["stem", "features.0-1", "features.2-6", "features.7-12", "head.0-1", "head.2-3"]),
        # Entry flow, middle flow (eight blocks at 19 pixels, after the entry's last one), exit flow.
        ("legacy_xception", ["stem", "block1", "block2", "block3-block11", "block12-conv4"]),
        # 10 x block35, 20 x block17, 10 x block8.
        ("inception_resnet_v2", ["stem", "repeat", "repeat_1", "repeat_2"]),
        # The first normalisation belongs to the stem, the last one to the last block.
        (
            "densenet121",
            [
                "stem",
                "denseblock1",
                *(f"transition{n}-denseblock{n + 1}" for n in (1, 2, 3)),
            ],
        ),
    ],
)
def test_networks_whose_stages_lie_in_no_list(architecture: str, stages: list[str]):
    with torch.device("meta"):
        model = timm.create_model(architecture, num_classes=7)
    assert [group.name for group in layer_groups(model, "stage")] == [*stages, "head"]


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit", "test_efficientnet"])
def test_a_wrapped_timm_model_has_the_groups_of_the_bare_one(architecture: str):
    wrapped = meta_twin(TimmWrapperForImageClassification, TimmWrapperConfig(architecture=architecture, num_labels=7))
    with torch.device("meta"):
        bare = timm.create_model(architecture, num_classes=7)
    for granularity in ("stage", "block"):
        assert [
            (group.name, tuple(name.removeprefix("timm_model.") for name in group.parameter_names))
            for group in layer_groups(wrapped, granularity)
        ] == [(group.name, group.parameter_names) for group in layer_groups(bare, granularity)]


@pytest.mark.parametrize(
    ("family", "heads"),
    [
        ("DeiT", {"cls_classifier", "distillation_classifier"}),
        # Each has a normalisation as well, which does not depend on the labels and so stays with the last stage.
        ("Levit", {"classifier.linear", "classifier_distill.linear"}),
    ],
)
def test_the_two_heads_of_a_distilled_network_are_one_group(family: str, heads: set[str]):
    model = meta_twin(
        getattr(transformers, f"{family}ForImageClassificationWithTeacher"),
        getattr(transformers, f"{family}Config")(num_labels=7),
    )
    expected = {f"{head}.{kind}" for head in heads for kind in ("weight", "bias")}
    assert set(layer_groups(model)[-1].parameter_names) == expected


def test_a_network_that_is_all_head():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3 * 224 * 224, 2)

        def forward(self, pixels):
            return self.fc(pixels.flatten(1))

        def get_classifier(self):
            return self.fc

    assert [(group.name, group.parameter_names) for group in layer_groups(Linear())] == [
        ("head", ("fc.weight", "fc.bias"))
    ]


def test_it_is_quick():
    model = published("ViT")
    start = time.process_time()
    layer_groups(model)
    assert time.process_time() - start < 2
