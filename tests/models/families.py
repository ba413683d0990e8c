"""Tiny models with random weights: one of every image-classification family of transformers.

Knows the smallest configuration that each family accepts. Does not know what is tested with them.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from PIL import Image
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)

from tests.models.timm_architectures import TIMM_ARCHITECTURES as TIMM_ARCHITECTURES
from tests.models.timm_architectures import build_tiny_timm_checkpoint as build_tiny_timm_checkpoint

TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VIT = {**TRANSFORMER, "image_size": 32, "patch_size": 8}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
PYRAMID = {
    "image_size": 32,
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "hidden_sizes": [8, 16],
    "num_attention_heads": [1, 2],
    "patch_sizes": [7, 3],
    "strides": [4, 2],
    "sr_ratios": [2, 1],
    "mlp_ratios": [2, 2],
}
TWO_STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
CVT = {
    "patch_sizes": [7, 3],
    "patch_stride": [4, 2],
    "patch_padding": [2, 1],
    "embed_dim": [8, 16],
    "num_heads": [1, 2],
    "depth": [1, 2],  # the last stage needs as many blocks as there are stages
    "mlp_ratio": [2.0, 2.0],
    "attention_drop_rate": [0.0, 0.0],
    "drop_rate": [0.0, 0.0],
    "drop_path_rate": [0.0, 0.0],
    "qkv_bias": [True, True],
    "cls_token": [False, True],
    "qkv_projection_method": ["dw_bn", "dw_bn"],
    "kernel_qkv": [3, 3],
    "padding_kv": [1, 1],
    "stride_kv": [2, 2],
    "padding_q": [1, 1],
    "stride_q": [1, 1],
}
EFFICIENTNET = {
    "image_size": 32,
    "width_coefficient": 0.25,
    "depth_coefficient": 1.0,
    "kernel_sizes": [3, 3],
    "in_channels": [32, 32],
    "out_channels": [32, 64],
    "strides": [1, 2],
    "num_block_repeats": [1, 1],
    "expand_ratios": [1, 2],
    "hidden_dim": 320,
    "dropout_rate": 0.1,
}
FOCALNET = {
    "image_size": 32,
    "embed_dim": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "focal_levels": [1, 1],
    "focal_windows": [3, 3],
}
HGNET = {
    "embedding_size": 8,
    "depths": [1, 1],
    "hidden_sizes": [8, 16],
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 8],
    "stage_mid_channels": [8, 8],
    "stage_out_channels": [8, 16],
    "stage_num_blocks": [1, 1],
    "stage_downsample": [False, True],
    "stage_downsample_strides": [2, 2],
    "stage_light_block": [False, True],
    "stage_kernel_size": [3, 3],
    "stage_numb_of_layers": [1, 1],
}
HIERA = {
    "image_size": [32, 32],
    "patch_size": [7, 7],
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "num_query_pool": 1,
    "masked_unit_size": [4, 4],
    "masked_unit_attention": [True, False],
}
LEVIT = {
    "image_size": 32,
    "hidden_sizes": [16, 16, 16],
    "num_attention_heads": [2, 2, 2],
    "depths": [1, 1, 1],
    "key_dim": [4, 4, 4],
}
POOLFORMER = {
    "depths": [1, 1],
    "hidden_sizes": [8, 16],
    "patch_sizes": [7, 3],
    "strides": [4, 2],
    "padding": [2, 1],
    "num_encoder_blocks": 2,
    "patch_size": 7,
    "stride": 4,
}
PVT = {**PYRAMID, "patch_sizes": [4, 2], "sequence_reduction_ratios": [2, 1]}
SIGLIP2 = {**TRANSFORMER, "patch_size": 8, "num_patches": 16}
SWIFTFORMER = {"image_size": 64, "depths": [1, 1], "embed_dims": [8, 16], "downsamples": [True, True], "mlp_ratio": 2}
TEXTNET = {
    "stem_out_channels": 8,
    "hidden_sizes": [8, 8, 16],
    "conv_layer_kernel_sizes": [[[3, 3]], [[3, 3]]],
    "conv_layer_strides": [[2], [2]],
    "image_size": [32, 32],
}
PERCEIVER = {
    "num_latents": 4,
    "d_latents": 16,
    "d_model": 16,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
    "image_size": 32,
}


def _plain(model_type: str, **settings: object) -> Callable[[], PreTrainedConfig]:
    return lambda: CONFIG_MAPPING[model_type](**settings)


def _with_vision(model_type: str, **settings: object) -> Callable[[], PreTrainedConfig]:
    text = {**TRANSFORMER, "vocab_size": 32, "max_position_embeddings": 8}
    return lambda: CONFIG_MAPPING[model_type](text_config=text, vision_config=settings, projection_dim=8)


FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "beit": _plain("beit", **VIT),
    "bit": _plain("bit", **TWO_STAGES, num_groups=4),
    "clip": _with_vision("clip", **VIT),
    "convnext": _plain("convnext", num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], image_size=32),
    "convnextv2": _plain("convnextv2", num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], image_size=32),
    "cvt": _plain("cvt", **CVT),
    "data2vec-vision": _plain("data2vec-vision", **VIT),
    "deit": _plain("deit", **VIT),
    "dinov2": _plain("dinov2", **VIT),
    "dinov2_with_registers": _plain("dinov2_with_registers", **VIT),
    "donut-swin": _plain("donut-swin", **SWIN),
    "efficientnet": _plain("efficientnet", **EFFICIENTNET),
    "focalnet": _plain("focalnet", **FOCALNET),
    "hgnet_v2": _plain("hgnet_v2", **HGNET),
    "hiera": _plain("hiera", **HIERA),
    "ijepa": _plain("ijepa", **VIT),
    "imagegpt": _plain("imagegpt", vocab_size=9, n_positions=64, n_embd=16, n_layer=2, n_head=2),
    "levit": _plain("levit", **LEVIT),
    "metaclip_2": _with_vision("metaclip_2", **VIT),
    "mobilenet_v1": _plain("mobilenet_v1", depth_multiplier=0.125, image_size=32, classifier_dropout_prob=0.1),
    "mobilenet_v2": _plain("mobilenet_v2", depth_multiplier=0.125, image_size=32, classifier_dropout_prob=0.1),
    "mobilevit": _plain(
        "mobilevit",
        hidden_sizes=[8, 8, 8],
        neck_hidden_sizes=[4, 4, 8, 8, 8, 8, 16],
        num_attention_heads=2,
        image_size=64,
    ),
    "mobilevitv2": _plain(
        "mobilevitv2", n_attn_blocks=[1, 1, 1], base_attn_unit_dims=[8, 8, 8], width_multiplier=0.125, image_size=64
    ),
    "perceiver": _plain("perceiver", **PERCEIVER),
    "poolformer": _plain("poolformer", **POOLFORMER),
    "pp_lcnet": _plain("pp_lcnet", scale=0.25, class_expand=16),
    "pvt": _plain("pvt", **PVT),
    "pvt_v2": _plain("pvt_v2", **PYRAMID),
    "regnet": _plain("regnet", **TWO_STAGES, groups_width=4),
    "resnet": _plain("resnet", **TWO_STAGES),
    "segformer": _plain("segformer", **PYRAMID),
    "siglip": _with_vision("siglip", **VIT),
    "siglip2": _with_vision("siglip2", **SIGLIP2),
    "swiftformer": _plain("swiftformer", **SWIFTFORMER),
    "swin": _plain("swin", **SWIN),
    "swinv2": _plain("swinv2", **SWIN),
    "textnet": _plain("textnet", **TEXTNET),
    "vit": _plain("vit", **VIT),
    "vit_msn": _plain("vit_msn", **VIT),
}
"""Model type -> its smallest configuration."""


NOT_BUILT = {
    "dinat": "needs natten, a package with native code",
    "shieldgemma2": "answers with a language model's yes and no; it has no head that depends on the number of labels",
    "timm_wrapper": "the wrapper of timm, see tests/models/timm_architectures.py",
}
"""Entries of transformers' image-classification mapping that are not built here, and why."""

IMAGE_SIZES = {"mobilevit": 64, "mobilevitv2": 64, "swiftformer": 64, "imagegpt": 8}
"""Side of the square image in pixels, where it is not 32."""

PROCESSORS = {
    "beit": "BeitImageProcessor",
    "clip": "CLIPImageProcessor",
    "data2vec-vision": "BeitImageProcessor",
    "imagegpt": "ImageGPTImageProcessor",
    "metaclip_2": "CLIPImageProcessor",
    "siglip": "SiglipImageProcessor",
    "siglip2": "Siglip2ImageProcessor",
}
"""Image processors that differ in more than their sizes from ViT's, which stands in for all others."""


def tiny_image(seed: int = 0, side: int = 48) -> Image.Image:
    """Returns a picture of random pixels."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (side, side, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def build_tiny_model(
    model_type: str, num_labels: int = 3, model_class: type[PreTrainedModel] | None = None
) -> PreTrainedModel:
    """Builds a model with random weights; seed torch first.

    Args:
        model_type (`str`):
            A key of [`FAMILIES`].
        num_labels (`int`, *optional*, defaults to 3):
            The labels are called `old_0`, `old_1`, and so on.
        model_class (`type`, *optional*):
            Where a family has several; by default its first.

    Returns:
        `PreTrainedModel`: in evaluation mode.
    """
    config = FAMILIES[model_type]()
    config.num_labels = num_labels
    config.id2label = {index: f"old_{index}" for index in range(num_labels)}
    config.label2id = {name: index for index, name in config.id2label.items()}
    return (model_class or classes_of(model_type)[0])(config).eval()


def classes_of(model_type: str) -> tuple[type[PreTrainedModel], ...]:
    """Returns the image-classification classes of a family."""
    classes = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[CONFIG_MAPPING[model_type]]
    return classes if isinstance(classes, tuple) else (classes,)


def tiny_image_processor(model_type: str) -> BaseImageProcessor:
    """Returns an image processor that makes what the tiny model of a family takes."""
    side = IMAGE_SIZES.get(model_type, 32)
    settings: dict[str, object] = {"size": {"height": side, "width": side}, "do_center_crop": False}
    if model_type == "imagegpt":
        settings["clusters"] = [[float(level)] * 3 for level in torch.linspace(-1, 1, 8)]
    if model_type == "siglip2":
        settings = {"patch_size": 8, "max_num_patches": 16}
    return getattr(transformers, PROCESSORS.get(model_type, "ViTImageProcessor"))(**settings)


def build_tiny_checkpoint(
    folder: Path, model_type: str, num_labels: int = 3, model_class: type[PreTrainedModel] | None = None
) -> Path:
    """Saves a tiny model with random weights and its image processor; seed torch first.

    Returns:
        `Path`: the folder.
    """
    build_tiny_model(model_type, num_labels, model_class).save_pretrained(folder)
    tiny_image_processor(model_type).save_pretrained(folder)
    return folder
