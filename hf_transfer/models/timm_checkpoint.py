"""Whatever timm checkpoints need beside transformers' own `TimmWrapper`.

Knows timm's `config.json` and three faults of the wrapper, each stepped around in a function of its own. Does not know
the Hub: `timm/...` ids and folders saved by timm come as one folder each.

timm itself, which transformers' wrapper imports too, is imported where it is needed: with all its architectures, which
other checkpoints start without.
"""

import copy
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from hf_transfer.errors import UserError


def is_timm_config(config_dict: dict[str, Any]) -> bool:
    """Returns whether a `config.json` describes a timm model."""
    return "pretrained_cfg" in config_dict or ("architecture" in config_dict and "model_type" not in config_dict)


def timm_config(
    config_dict: dict[str, Any], label_names: tuple[str, ...], source: str
) -> tuple[PreTrainedConfig, tuple[str, ...]]:
    """Reads timm's `config.json`, with new labels.

    Args:
        config_dict (`dict`):
            What the file holds.
        label_names (`tuple[str, ...]`):
            The labels of the new head.
        source (`str`):
            The checkpoint, for messages.

    Returns:
        `tuple[TimmWrapperConfig, tuple[str, ...]]`: the configuration, and the checkpoint's own labels in order.
    """
    import timm
    from transformers import TimmWrapperConfig

    config_dict = copy.deepcopy(config_dict)
    if "pretrained_cfg" not in config_dict:
        raise UserError(
            f"The config.json of {source!r} has no `pretrained_cfg`, so nobody knows which pixels its weights expect.",
            "a folder that timm 0.9 or later saved (`timm.models.save_for_hf`)",
        )
    architecture = str(config_dict.get("architecture"))
    if not timm.is_model(architecture):
        raise UserError(
            f"timm {timm.__version__} does not know the architecture {architecture!r} of {source!r}.",
            hint="pip install -U timm, if the model is newer than that",
        )
    _drop_num_classes_from_model_args(config_dict)
    old = TimmWrapperConfig.from_dict(_plain_label_names(config_dict))
    old_label_names = tuple(str(old.id2label[index]) for index in sorted(old.id2label or {}))
    _drop_old_labels(config_dict)
    config = TimmWrapperConfig.from_dict(config_dict, num_labels=len(label_names))
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    return config, old_label_names


def _drop_num_classes_from_model_args(config_dict: dict[str, Any]) -> None:
    """Step-around: `timm.push_to_hf_hub` and `save_for_hf` may write `model_args.num_classes`, and TimmWrapper passes
    `num_classes` itself: "got multiple values for keyword argument". No upstream issue found (transformers 5.23; the
    wrapper came with transformers#34564). Goes when TimmWrapperConfig drops the key itself.
    """
    if config_dict.get("model_args"):
        config_dict["model_args"].pop("num_classes", None)


def _drop_old_labels(config_dict: dict[str, Any]) -> None:
    """Step-around: `TimmWrapperConfig.to_dict` writes the `label_names` that it was read with, whatever `id2label`
    says since, and drops `id2label`; a second fine-tuning keeps the first one's names (since transformers#35553). Goes
    when `to_dict` takes the names from `id2label`.
    """
    for holder in (config_dict, config_dict["pretrained_cfg"]):
        for key in ("label_names", "label_descriptions", "num_classes"):
            holder.pop(key, None)


def _plain_label_names(config_dict: dict[str, Any]) -> dict[str, Any]:
    """Step-around: timm allows `label_names` as a map from index to name, TimmWrapperConfig enumerates its keys. No
    upstream issue found (transformers 5.23). Goes when `TimmWrapperConfig.from_dict` handles the map.
    """
    config_dict = copy.deepcopy(config_dict)
    names = config_dict.get("label_names")
    if isinstance(names, dict):
        config_dict["label_names"] = [names[key] for key in sorted(names, key=int)]
    return config_dict


def fresh_timm_weights(model: PreTrainedModel) -> None:
    """Draws a timm model's weights as timm does.

    Step-around: `TimmWrapper._init_weights` draws every linear and convolution layer from N(0, 0.02), over timm's own
    initialisation, as if only the head were ever new (discussed in transformers#34564). Goes when it leaves to timm
    what timm has initialised.

    Args:
        model (`TimmWrapperForImageClassification`):
            Changed in place.
    """
    import timm

    config = model.config
    fresh = timm.create_model(
        config.architecture, pretrained=False, num_classes=config.num_labels, **(config.model_args or {})
    )
    model.get_submodule("timm_model").load_state_dict(fresh.state_dict())
