"""From `config.json` to the class that will hold the weights, with the labels asked for.

Knows which families transformers can classify images with, and what to say of the others. Does not load weights.
"""

from dataclasses import dataclass
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

from hf_transfer.errors import UserError
from hf_transfer.models.source import CheckpointFiles
from hf_transfer.models.timm_checkpoint import is_timm_config, timm_config

TIMM_TWINS = {
    "aimv2": "timm/aimv2_large_patch14_224.apple_pt",
    "dinov3_convnext": "timm/convnext_tiny.dinov3_lvd1689m",
    "dinov3_vit": "timm/vit_small_patch16_dinov3.lvd1689m",
    "vit_mae": "timm/vit_base_patch16_224.mae",
}
"""Families without an image-classification class in transformers, and a timm checkpoint of the same weights family."""

OTHER_INTERFACE = {
    "imagegpt": "reads colour clusters instead of pixels",
    "pp_lcnet": "does not call its scores `logits`, so that `transformers.pipeline` cannot serve it",
    "siglip2": "reads images of varying shape as packed patches instead of `pixel_values` of one shape (checkpoints "
    "for one image size, such as `google/siglip2-base-patch16-224`, are of the family `siglip` and work)",
}
"""Families whose classifier is not a function from `pixel_values` to `logits`, and in which way."""


@dataclass(frozen=True)
class ModelPlan:
    """Which class to build, from which configuration."""

    model_class: type[PreTrainedModel]
    config: PreTrainedConfig
    """With the labels asked for."""
    old_label_names: tuple[str, ...]
    """The checkpoint's own labels, in the order of its logits."""
    is_timm: bool
    trained_as: tuple[str, ...]
    """`architectures` in the checkpoint's configuration: the classes its weights were saved from."""

    @property
    def architecture(self) -> str:
        """The class, and for timm the architecture inside it."""
        name = self.model_class.__name__
        return f"{name} ({self.config.architecture})" if self.is_timm else name


def plan_model(files: CheckpointFiles, label_names: tuple[str, ...]) -> ModelPlan:
    """Reads a checkpoint's configuration and sets the labels in it.

    Args:
        files ([`CheckpointFiles`]):
            The checkpoint.
        label_names (`tuple[str, ...]`):
            The labels of the new head.

    Returns:
        [`ModelPlan`]: class and configuration.

    Raises:
        [`~hf_transfer.errors.UserError`]: where the checkpoint is no image classifier that transformers or timm knows.
    """
    config_dict = files.read_config()
    is_timm = is_timm_config(config_dict)
    config: PreTrainedConfig
    if is_timm:
        config, old_label_names = timm_config(config_dict, label_names, files.source)
    else:
        config = _transformers_config(config_dict, files)
        old_label_names = _names_in_order(config.id2label or {})
        # PvtConfig has a field `num_labels` of its own, 1000 by default, which does not follow id2label as it does in
        # all other families (transformers 5.23).
        config.num_labels = len(label_names)
        config.id2label = dict(enumerate(label_names))
        config.label2id = {name: index for index, name in enumerate(label_names)}
    config.problem_type = "single_label_classification"
    trained_as = tuple(config_dict.get("architectures") or ())
    return ModelPlan(_model_class(config, trained_as, files), config, old_label_names, is_timm, trained_as)


def _transformers_config(config_dict: dict[str, Any], files: CheckpointFiles) -> PreTrainedConfig:
    model_type = config_dict.get("model_type")
    if model_type is None:
        raise UserError(
            f"The config.json of {files.source!r} names neither a transformers `model_type` nor a timm "
            "`architecture`.",
            "a checkpoint saved by transformers (`save_pretrained`) or timm (`save_for_hf`)",
        )
    if model_type not in transformers.CONFIG_MAPPING:
        if "auto_map" in config_dict:
            raise UserError(
                f"{files.source!r} brings its own code (model type {model_type!r}), which is not run here.",
                f"model types that transformers {transformers.__version__} knows, and timm checkpoints",
                "look for the same weights under `timm/...`, or a version converted to transformers",
            )
        raise UserError(
            f"transformers {transformers.__version__} does not know the model type {model_type!r} of "
            f"{files.source!r}.",
            hint="pip install -U transformers, if the model is newer than that",
        )
    try:
        return AutoConfig.from_pretrained(files.folder, trust_remote_code=False)
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise UserError(f"The config.json of {files.source!r} cannot be used: {str(error).strip()}") from error


def _model_class(
    config: PreTrainedConfig, trained_as: tuple[str, ...], files: CheckpointFiles
) -> type[PreTrainedModel]:
    if type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise _no_classifier(config.model_type, files)
    if config.model_type in OTHER_INTERFACE:
        raise UserError(
            f"{files.source!r} is a {config.model_type!r} checkpoint; that family "
            f"{OTHER_INTERFACE[config.model_type]}.",
            "a classifier that takes `pixel_values` and returns `logits`",
            "choose one from huggingface.co/models?pipeline_tag=image-classification, or any `timm/...`",
        )
    classes: Any = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]
    if not isinstance(classes, tuple):
        return classes
    named = [candidate for candidate in classes if candidate.__name__ in trained_as]
    return (*named, *classes)[0]


def _no_classifier(model_type: str, files: CheckpointFiles) -> UserError:
    twin = TIMM_TWINS.get(model_type)
    if twin:
        return UserError(
            f"{files.source!r} is a {model_type!r} backbone, and transformers {transformers.__version__} has no "
            "image-classification class for that family.",
            "the same family from timm",
            f"--model {twin} (or another of its sizes)",
        )
    return UserError(
        f"{files.source!r} is a {model_type!r} checkpoint, no image classifier: transformers "
        f"{transformers.__version__} has no image-classification class for that family.",
        "an image-classification checkpoint",
        "choose one from huggingface.co/models?pipeline_tag=image-classification, or any `timm/...`",
    )


def _names_in_order(id2label: dict[Any, str]) -> tuple[str, ...]:
    return tuple(str(id2label[index]) for index in sorted(id2label))
