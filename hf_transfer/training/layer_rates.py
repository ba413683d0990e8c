"""A peak learning rate for every parameter: by layer group, by layer decay, by name.

Knows groups, rates and patterns. Does not know where the rates of backbone and head come from
(`hf_transfer.training.rates`).
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from hf_transfer.errors import UserError, nearest
from hf_transfer.models.layer_groups import LayerGroup
from hf_transfer.training.rates import LearningRates


def parameter_rates(
    groups: Sequence[LayerGroup],
    rates: LearningRates,
    layer_decay: float | None = None,
    patterns: Sequence[str] | None = None,
) -> dict[str, float]:
    """Returns the peak learning rate of every parameter.

    The head learns at `rates.head` and the last group of the backbone at `rates.below_head`. With layer decay, each
    group below learns at `layer_decay` times the rate of the one above, as in ELECTRA (Clark et al. 2020, appendix A)
    and BEiT (Bao et al. 2022, section 3).

    Args:
        groups (`Sequence[LayerGroup]`):
            The layer groups from stem to head.
        rates (`LearningRates`):
            Peak rates of backbone and head.
        layer_decay (`float`, *optional*):
            The factor from one group to the one below.
        patterns (`Sequence[str]`, *optional*):
            `PATTERN=RATE` each: a group's name, or names of groups or parameters with `*` and `?`. A later one wins.

    Returns:
        `dict[str, float]`: by parameter name.

    Raises:
        UserError: for a rate that is none, or a pattern that matches nothing.
    """
    found: dict[str, float] = {}
    for below_last, group in enumerate(reversed(groups[:-1])):
        rate = rates.below_head * (layer_decay or 1.0) ** below_last
        found |= dict.fromkeys(group.parameter_names, rate)
    found |= dict.fromkeys(groups[-1].parameter_names, rates.head)
    for pattern in patterns or ():
        found |= _pattern_rates(pattern, groups)
    return found


def _pattern_rates(pattern: str, groups: Sequence[LayerGroup]) -> dict[str, float]:
    name, _, written = pattern.rpartition("=")
    try:
        rate = float(written)
    except ValueError:
        rate = -1.0
    if not name or not 0 <= rate < float("inf"):
        raise UserError(
            f"--lr_groups {pattern}", "PATTERN=RATE with a rate of 0 or more", "--lr_groups 'embeddings=1e-6'"
        )
    groups_matched = [group for group in groups if fnmatchcase(group.name, name)]
    matched = [parameter for group in groups_matched for parameter in group.parameter_names]
    every_parameter = [parameter for group in groups for parameter in group.parameter_names]
    matched = matched or [parameter for parameter in every_parameter if fnmatchcase(parameter, name)]
    if not matched:
        group_names = [group.name for group in groups]
        close = nearest(name, [*group_names, *every_parameter])
        raise UserError(
            f"--lr_groups {pattern}: no group and no parameter is called {name!r}.",
            f"groups {', '.join(group_names)}, or names of parameters, with * and ?",
            f"--lr_groups '{close}={written}'" if close else "hf-transfer inspect --model MODEL lists the groups",
        )
    return dict.fromkeys(matched, rate)
