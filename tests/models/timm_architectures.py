"""Tiny timm models with random weights, saved as timm saves them.

Knows which architectures stand for timm, and how to make the bigger ones tiny. Does not know what is tested with them.
"""

from pathlib import Path

import timm
from timm.models import save_for_hf

TIMM_ARCHITECTURES = (
    "test_byobnet",
    "test_convnext",
    "test_efficientnet",
    "test_efficientnet_gn",
    "test_mambaout",
    "test_nfnet",
    "test_resnet",
    "test_vit",
    "test_vit3",
    "deit_tiny_distilled_patch16_224",
    "ghostnet_050",
    "levit_conv_128s",
    "mixer_s32_224",
    "mobilenetv3_small_050",
    "regnetx_002",
    "swin_tiny_patch4_window7_224",
)
SMALL_TIMM = {
    "deit_tiny_distilled_patch16_224": {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2},
    "levit_conv_128s": {"embed_dim": (16, 16, 16), "num_heads": (2, 2, 2), "depth": (1, 1, 1), "key_dim": 4},
    "mixer_s32_224": {"img_size": 64, "mlp_ratio": (0.1, 0.1)},
    "swin_tiny_patch4_window7_224": {
        "img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2)
    },
}  # fmt: skip
"""Arguments that make the bigger architectures tiny; the others are small enough as they are."""


def build_tiny_timm_checkpoint(folder: Path, architecture: str, num_labels: int = 3, **model_config: object) -> Path:
    """Saves a tiny timm model with random weights as timm itself does; seed torch first.

    Returns:
        `Path`: the folder, without preprocessor_config.json, as timm leaves it.
    """
    settings = SMALL_TIMM.get(architecture, {})
    model = timm.create_model(architecture, num_classes=num_labels, **settings)
    names = [f"old_{index}" for index in range(num_labels)]
    save_for_hf(
        model,
        str(folder),
        model_config={"label_names": names, **model_config},
        model_args=settings or None,
        safe_serialization=True,
    )
    return folder
