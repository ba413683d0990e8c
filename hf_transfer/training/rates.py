"""How fast each part of the network learns, at the peak of the schedule.

Knows our default rates and which of them a choice of the user replaces. Does not know how rates move over time or
which parts are frozen.
"""

from dataclasses import dataclass

from torch import nn

from hf_transfer.config import FinetuneConfig
from hf_transfer.errors import UserError
from hf_transfer.models.batch_norm import has_batch_norm
from hf_transfer.training.arguments import RATE_DEFAULTS, Default
from hf_transfer.training.head_rate import measured_head_rate
from hf_transfer.training.sampled_pictures import SampledPictures

YOURS = "as you asked"
HEAD_TO_BACKBONE = 10.0
"""The head's rate in units of the backbone's where the user gives the latter alone."""


@dataclass(frozen=True)
class LearningRates:
    """Peak rates of backbone and head, with the reason of each; the same where only the head learns."""

    backbone: float
    head: float
    backbone_reason: str
    head_reason: str
    norms: Default | None = None
    """Of normalisation layers, where these are all that learns below the head."""

    @property
    def below_head(self) -> float:
        """The rate of what learns below the head."""
        return self.backbone if self.norms is None else self.norms.value


def plan_rates(config: FinetuneConfig, sample: SampledPictures) -> LearningRates:
    """Chooses the rates: the user's, or by kind of network and by the features that the head sees.

    Args:
        config (`FinetuneConfig`):
            What the user asked for; `--learning_rate` is the backbone's, or the head's where only the head learns.
        sample (`SampledPictures`):
            The model, and pictures that are shown to it where the head's rate has to be measured.

    Returns:
        [`LearningRates`]
    """
    given = _given_rate(config)
    if given is not None:
        backbone = Default(float(given), YOURS)
    else:
        backbone = default_backbone_rate(config.strategy, sample.checkpoint.model)
    head = _head_rate(config, sample, backbone)
    if config.strategy == "feature-extraction":
        backbone = head
    norms = None if config.tune_norms is None else _norms_rate(config, sample.checkpoint.model)
    return LearningRates(backbone.value, head.value, backbone.reason, head.reason, norms)


def default_backbone_rate(strategy: str, model: nn.Module) -> Default:
    """Returns the rate of the backbone by strategy and kind of network, with its reason."""
    if strategy == "scratch":
        return RATE_DEFAULTS["scratch"]
    return RATE_DEFAULTS["backbone with BatchNorm" if has_batch_norm(model) else "backbone"]


def _given_rate(config: FinetuneConfig) -> float | None:
    given = config.training.get("learning_rate")
    if config.lr_backbone is None or config.tune_norms is not None:
        return given
    if given is not None:
        raise UserError("--learning_rate and --lr_backbone are two names for one rate.", hint="only --lr_backbone")
    if config.strategy == "feature-extraction":
        raise UserError(
            "--lr_backbone: --strategy feature-extraction does not train the backbone.",
            hint="--lr_head for the head, or --tune_norms 1 for normalisation layers that learn first",
        )
    return config.lr_backbone


def _norms_rate(config: FinetuneConfig, model: nn.Module) -> Default:
    if config.lr_backbone is not None:
        return Default(config.lr_backbone, YOURS)
    return RATE_DEFAULTS["BatchNorm alone" if has_batch_norm(model) else "other norms alone"]


def _head_rate(config: FinetuneConfig, sample: SampledPictures, backbone: Default) -> Default:
    given = _given_rate(config)
    if config.lr_head is not None:
        return Default(config.lr_head, YOURS)
    if config.strategy == "scratch" or (given is not None and config.strategy == "feature-extraction"):
        return backbone
    if given is not None:
        return Default(HEAD_TO_BACKBONE * backbone.value, "ten times the backbone's")
    measured = measured_head_rate(sample.head_inputs)
    if measured is None:
        return RATE_DEFAULTS["head"]
    return Default(measured, f"measured on the features of {len(sample)} training images")
