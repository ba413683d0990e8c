"""By how much the learning rate falls from one layer group to the one below, and who says so.

Knows the factors that were published with families of checkpoints. They belong to the layers of those recipes: 12 for
every size of ConvNeXt, one a block for ViTs. Where our groups are fewer or more, the factor is converted so that the
stem learns at the same share of the last group's rate. Does not know the rates themselves
(`hf_transfer.training.rates`).

The rawer a checkpoint, the smaller its factor: one from masked-image pretraining has features that no classifier has
used yet. Families without a published factor learn at one rate.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from hf_transfer.errors import UserError

_BEIT = "BEiT, get_started_for_image_classification.md in microsoft/unilm"
_BEIT2 = "BEiT v2, get_started_for_image_classification.md in microsoft/unilm"
_MAE = "MAE, FINETUNE.md in facebookresearch/mae"
_CONVNEXT = "ConvNeXt, TRAINING.md in facebookresearch/ConvNeXt"
_CONVNEXT_V2 = "ConvNeXt V2, TRAINING.md in facebookresearch/ConvNeXt-V2"
_CONVNEXT_LAYERS = 12
"""`optim_factory.py` in facebookresearch/ConvNeXt: three blocks of the third stage make a layer."""
_LARGE = 24
"""Blocks of a ViT-L; the recipes know a factor for base and one for large."""


@dataclass(frozen=True)
class LayerDecay:
    """The factor of one run."""

    factor: float | None
    """`None`: one rate for all."""
    layers: int | None
    """Over how many layers the factor was meant to be applied; `None`: over our groups, as they are."""
    reason: str

    def per_group(self, num_groups: int) -> float | None:
        """Returns the factor from one group to the one below.

        Args:
            num_groups (`int`):
                Groups from stem to head, both of them counted.
        """
        steps = num_groups - 2  # From the last group of the backbone down to the stem.
        if self.factor is None or self.layers is None or steps <= 0:
            return self.factor
        return self.factor ** (self.layers / steps)


def plan_layer_decay(wish: str, strategy: str, model: nn.Module) -> LayerDecay:
    """Chooses the factor: the user's, or the published one.

    Args:
        wish (`str`):
            `auto`, `none` or a number.
        strategy (`str`):
            The strategy; the head alone and fresh weights have no use for a factor.
        model (`nn.Module`):
            The model, with its configuration.

    Returns:
        [`LayerDecay`]

    Raises:
        UserError: for a factor outside of (0, 1].
    """
    if wish == "none":
        return LayerDecay(None, None, "as you asked")
    if wish != "auto":
        return LayerDecay(_number(wish), None, "as you asked")
    if strategy in ("feature-extraction", "scratch"):
        return LayerDecay(None, None, "nothing to keep")
    return published_decay(model)


def published_decay(model: nn.Module) -> LayerDecay:
    """Returns the factor that was published with the checkpoint's family and kind of pretraining."""
    config: Any = model.config
    timm_name = str(getattr(config, "architecture", None) or "")
    tag = str((getattr(config, "pretrained_cfg", None) or {}).get("tag", ""))
    family = timm_name or config.model_type
    blocks = _num_blocks(model)
    large = blocks >= _LARGE
    raw = "_ft_" not in f"_{tag}_" if timm_name else not _was_classifier(config)
    if family.startswith("convnextv2"):
        # Published for the checkpoints of masked pretraining alone.
        if not (raw and (not timm_name or tag.startswith("fcmae"))):
            return LayerDecay(None, None, "none published for it")
        return LayerDecay(0.9, _CONVNEXT_LAYERS, _CONVNEXT_V2)
    if family.startswith("convnext"):
        wide = any(name in tag for name in ("in22k", "in12k"))
        return LayerDecay(0.8 if wide else 0.7, _CONVNEXT_LAYERS, _CONVNEXT)
    if family.startswith("beitv2"):
        factor = 0.8 if large else (0.65 if raw else 0.75)
        return LayerDecay(factor, blocks, _BEIT2)
    if family.startswith("beit"):
        factor = (0.75 if large else 0.65) if raw else (0.9 if large else 0.85)
        return LayerDecay(factor, blocks, _BEIT)
    if family.startswith("vit_") and tag == "mae":
        return LayerDecay(0.75 if large else 0.65, blocks, _MAE)
    return LayerDecay(None, None, "none published for it")


def _number(wish: str) -> float:
    try:
        factor = float(wish)
    except ValueError:
        factor = 0.0
    if not 0 < factor <= 1:
        raise UserError(f"--layer_decay {wish}", "auto, none, or a number above 0, up to 1", "--layer_decay 0.75")
    return factor


def _was_classifier(config: Any) -> bool:
    return any("Classification" in name for name in config.architectures or ())


def _num_blocks(model: Any) -> int:
    """Returns the length of the trunk of a transformer."""
    timm_model = getattr(model, "timm_model", None)
    blocks = getattr(timm_model, "blocks", None)
    return len(blocks) if blocks is not None else int(getattr(model.config, "num_hidden_layers", 0) or 0)
