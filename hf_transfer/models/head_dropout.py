"""Dropout right before the head: noticed where it stops learning, replaced on request.

Knows which setting of a configuration it comes from, found by building the model without memory for two values of
each candidate and comparing; for timm it is `drop_rate`. Does not know what value is good: that is the user's choice.
"""

import copy
import dataclasses
from collections.abc import Sequence

from transformers import PreTrainedConfig, PreTrainedModel

from hf_transfer.errors import UserError
from hf_transfer.models.configuration import ModelPlan
from hf_transfer.models.head import find_head, find_head_dropout, meta_twin

TOO_MUCH = 0.5
"""Above one half, more features are dropped than kept. transformers' defaults for MobileNetV1 (0.999) and V2 (0.8)
keep fine-tuning at chance."""


def set_head_dropout(plan: ModelPlan, probability: float) -> ModelPlan:
    """Sets the dropout before the head in the configuration, so that the model is built with it and saves it.

    Args:
        plan ([`ModelPlan`]):
            Class and configuration; not changed.
        probability (`float`):
            Share of the features dropped in training.

    Returns:
        [`ModelPlan`]: with the changed configuration.

    Raises:
        [`~hf_transfer.errors.UserError`]: where the value is no probability, or the model has no such dropout.
    """
    if not 0 <= probability < 1:
        raise UserError(
            f"--head_dropout {probability}", "a number from 0 up to, not including, 1", "--head_dropout 0.2"
        )
    for config in _candidates(plan, probability):
        twin = meta_twin(plan.model_class, config)
        if _head_dropout(twin, find_head(twin)) == probability:
            return dataclasses.replace(plan, config=config)
    raise UserError(
        f"--head_dropout {probability}: {plan.architecture} has no dropout right before its head.",
        "--head_dropout for architectures that have one (MobileNet, EfficientNet, MobileViT, most of timm)",
        "drop --head_dropout",
    )


def dropout_note(model: PreTrainedModel, head: Sequence[str]) -> tuple[str, ...]:
    """Returns a note where the dropout before the head is above one half."""
    probability = _head_dropout(model, head)
    if probability is None or probability <= TOO_MUCH:
        return ()
    return (
        f"The dropout before the head is {probability:g}, so most features never reach it in training; if accuracy "
        "stays at chance, type --head_dropout 0.2.",
    )


def _candidates(plan: ModelPlan, probability: float) -> list[PreTrainedConfig]:
    """Returns configurations, each with one setting changed that may be the one."""
    if plan.is_timm:
        config = copy.deepcopy(plan.config)
        config.model_args = {**(config.model_args or {}), "drop_rate": probability}
        return [config]
    configs = []
    for name, value in vars(plan.config).items():
        if "drop" in name and isinstance(value, int | float):
            config = copy.deepcopy(plan.config)
            setattr(config, name, probability)
            configs.append(config)
    return configs


def _head_dropout(model: PreTrainedModel, head: Sequence[str]) -> float | None:
    layers = find_head_dropout(model, head)
    if layers:
        return max(layer.p for layer in layers)
    inner = getattr(model, "timm_model", None)  # timm's convolution networks keep the rate and call F.dropout
    return getattr(inner, "drop_rate", None)
