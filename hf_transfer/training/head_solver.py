"""A linear head solved in one go, in place of many steps.

With the frozen features of all training pictures at hand, the best linear head is the solution of a convex problem:
multinomial logistic regression, solved by L-BFGS (Liu and Nocedal 1989) through scikit-learn. How strongly it is held
back is chosen on validation data, from strong to weak, each solution beginning where the last one ended. Features are
standardised for it and the head is scaled back, so that it works on the features as they are.

scikit-learn solves in float32 what comes in float32: half the memory and two thirds of the time, for the same optimum
within a few parts in a hundred thousand of the penalised loss; L-BFGS of torch takes longer.

Knows features and labels. Does not know where features come from (`hf_transfer.training.prefix_cache`) or what becomes
of the head.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

STRENGTHS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)
"""scikit-learn's C, for one view of each picture; weak ones are left out once the score falls twice in a row."""
_ITERATIONS = 500


@dataclass(frozen=True)
class SolvedHead:
    """A head and how it did."""

    weight: torch.Tensor
    """Of shape `(num_labels, num_features)`."""
    bias: torch.Tensor
    """Of shape `(num_labels,)`."""
    strength: float
    score: float
    """On validation data; higher is better."""


def solve_head(
    features: torch.Tensor,
    labels: torch.Tensor,
    views: int,
    num_labels: int,
    score: Callable[[torch.Tensor, torch.Tensor], float],
    class_weights: torch.Tensor | None = None,
    loss: Callable[[torch.Tensor, torch.Tensor], float] | None = None,
) -> SolvedHead:
    """Solves for the head that does best on validation data.

    Args:
        features (`torch.Tensor` of shape `(num_rows, num_features)`):
            What the head sees of the training pictures; they are copied once.
        labels (`torch.Tensor` of shape `(num_rows,)`):
            Their labels; every label occurs.
        views (`int`):
            How many rows there are of each picture.
        num_labels (`int`):
            Number of labels.
        score (`Callable[[torch.Tensor, torch.Tensor], float]`):
            Judges weight and bias on validation data; the higher the better.
        class_weights (`torch.Tensor` of shape `(num_labels,)`, *optional*):
            Weight of each class in the loss.
        loss (`Callable[[torch.Tensor, torch.Tensor], float]`, *optional*):
            Breaks ties of the score, which are many on few pictures; the lower the better.

    Returns:
        [`SolvedHead`]
    """
    standard = features.to("cpu", torch.float32, copy=True)
    mean, spread = standard.mean(0), standard.std(0)
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    standard.sub_(mean).div_(spread)
    weights = None if class_weights is None else dict(enumerate(class_weights.double().tolist()))
    head = LogisticRegression(max_iter=_ITERATIONS, warm_start=True, class_weight=weights)
    best: SolvedHead | None = None
    lowest = math.inf
    falls = 0
    for strength in STRENGTHS:
        head.set_params(C=strength / views)
        # BLAS has threads of its own, which wait for each other by spinning where cores are shared.
        with warnings.catch_warnings(), threadpool_limits(torch.get_num_threads(), "blas"):
            # The weakest ones need not be solved to the end to be told from the best.
            warnings.simplefilter("ignore", ConvergenceWarning)
            head.fit(standard.numpy(), labels.numpy())
        weight, bias = _of_each_label(head.coef_, head.intercept_, num_labels)
        weight = weight.double() / spread
        bias = bias.double() - weight @ mean.double()
        found = SolvedHead(weight.float(), bias.float(), strength, score(weight.float(), bias.float()))
        missed = 0.0 if loss is None else loss(found.weight, found.bias)
        falls = falls + 1 if best is not None and found.score < best.score else 0
        if best is None or (found.score, -missed) > (best.score, -lowest):
            best, lowest = found, missed
        if falls == 2:
            break
    assert best is not None
    return best


def _of_each_label(weight: np.ndarray, bias: np.ndarray, num_labels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a row for each label; scikit-learn has a single one for two labels."""
    if num_labels == 2 and len(weight) == 1:
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    return torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy())
