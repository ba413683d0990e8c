"""What a run trains and what it is, from the wishes of the user.

Knows how options become layer groups, an unfreezing and an identity. Does not know how any of them is carried out.
"""

import dataclasses
from typing import Any

from transformers import TrainingArguments

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.decode_once import TrainingInput
from hf_transfer.data.image_data import ImageData
from hf_transfer.data.transforms import AugmentationSettings
from hf_transfer.models.checkpoint import Checkpoint
from hf_transfer.models.layer_groups import LayerGroup, layer_groups
from hf_transfer.models.two_groups import backbone_and_head
from hf_transfer.training.kept_epoch import keeps_last_good
from hf_transfer.training.layer_decay import plan_layer_decay
from hf_transfer.training.rates import LearningRates
from hf_transfer.training.resume_record import trajectory_settings
from hf_transfer.training.strategies import Unfreezing

VARIED_ON = "varied on"
"""Where pictures are varied moves them by a level here and there. A resumed run takes this from its checkpoint."""

_UNFREEZING_OPTIONS = ("train_last", "unfreeze_every", "unfreeze_at", "unfreeze_on_plateau", "probe", "tune_norms")


def run_identity(
    config: FinetuneConfig,
    data: ImageData,
    checkpoint: Checkpoint,
    args: TrainingArguments,
    rates: LearningRates,
    augmentation: AugmentationSettings,
    pictures: TrainingInput,
) -> dict[str, Any]:
    """Returns what must be the same when a run is continued; how long it takes may change."""
    return {
        **trajectory_settings(config, args),
        "architecture": checkpoint.architecture,
        "weights": checkpoint.weights_sha256,
        "data": data.fingerprint,
        "labels": list(data.label_names),
        "augmentation": dataclasses.asdict(augmentation),
        VARIED_ON: pictures.varied.place,
        "learning rates": [rates.backbone, rates.head],
        "learning rate of norms": None if rates.norms is None else rates.norms.value,
        "kept epoch": "the last good one" if keeps_last_good(config, args) else "the best",
    }


def planned_groups(config: FinetuneConfig, checkpoint: Checkpoint) -> tuple[LayerGroup, ...]:
    """Returns the layer groups of a run: backbone and head, or as fine as the user's wishes need them."""
    decay = plan_layer_decay(config.layer_decay, config.strategy, checkpoint.model)
    by_strategy = config.strategy in ("partial", "progressive") or config.tune_norms is not None
    by_group = by_strategy or decay.factor is not None or config.lr_groups
    if not by_group and config.granularity == "auto":
        return backbone_and_head(checkpoint.model, checkpoint.head_parameter_names)
    return layer_groups(checkpoint.model, None if config.granularity == "auto" else config.granularity)


def planned_unfreezing(config: FinetuneConfig, rates: LearningRates) -> Unfreezing:
    """Returns which groups learn when."""
    return Unfreezing(
        strategy=config.strategy,
        **{name: getattr(config, name) for name in _UNFREEZING_OPTIONS},
        # After the probe the head is no longer fresh: it goes on at the backbone's rate.
        head_peak_after_probe=rates.backbone / rates.head,
    )
