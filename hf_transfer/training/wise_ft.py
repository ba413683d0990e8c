"""WiSE-FT: between the pretrained weights and the fine-tuned ones lies a network that is often better than both.

Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", section 3: the backbone is
`(1 - alpha) x pretrained + alpha x fine-tuned`, statistics of BatchNorm included, and alpha is chosen on validation
data. The paper's zero-shot head has no counterpart where the head is new, so the fine-tuned head serves throughout.

Does not know how the validation score is computed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

ALPHAS = tuple(round(0.1 * step, 1) for step in range(11))


@dataclass(frozen=True)
class ChosenAlpha:
    """The mixing weight and the validation score of every one that was tried."""

    alpha: float
    scores: tuple[tuple[float, float], ...]


def backbone_state(model: nn.Module, head_names: Collection[str]) -> dict[str, torch.Tensor]:
    """Returns a copy of all floating-point tensors but those of the head."""
    return {
        name: tensor.detach().clone()
        for name, tensor in model.state_dict().items()
        if name not in head_names and tensor.is_floating_point()
    }


@torch.no_grad()
def interpolate(
    model: nn.Module, start: Mapping[str, torch.Tensor], end: Mapping[str, torch.Tensor], alpha: float
) -> None:
    """Sets the model to `(1 - alpha) x start + alpha x end`; the ends are met exactly."""
    tensors = model.state_dict()
    for name, value in end.items():
        if alpha in (0.0, 1.0):
            tensors[name].copy_(value if alpha == 1.0 else start[name])
        else:
            tensors[name].copy_(torch.lerp(start[name].to(value.device), value, alpha))


def choose_alpha(
    model: nn.Module,
    start: Mapping[str, torch.Tensor],
    score: Callable[[], float],
    head_names: Collection[str],
    alphas: Sequence[float] = ALPHAS,
) -> ChosenAlpha:
    """Tries mixing weights, leaves the model at the best one, and says which it was.

    Args:
        model (`nn.Module`):
            The fine-tuned model, changed in place.
        start (`Mapping[str, torch.Tensor]`):
            What [`backbone_state`] gave before the training.
        score (`Callable[[], float]`):
            Scores the model as it is on validation data; the higher the better.
        head_names (`Collection[str]`):
            Names of the head's tensors, which stay.
        alphas (`Sequence[float]`, *optional*):
            What to try. Of equals the largest is taken: the one nearest to what was trained.

    Returns:
        [`ChosenAlpha`]
    """
    end = backbone_state(model, head_names)
    scores = []
    for alpha in sorted(alphas):
        interpolate(model, start, end, alpha)
        scores.append((alpha, score()))
    best = max(scores, key=lambda pair: (pair[1], pair[0]))[0]
    interpolate(model, start, end, best)
    return ChosenAlpha(best, tuple(scores))
