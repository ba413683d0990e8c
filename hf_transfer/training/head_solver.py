"""A linear head solved in one go, in place of many steps.

With the frozen features of all training pictures at hand, the best linear head is the solution of a convex problem:
multinomial logistic regression, solved by L-BFGS (Liu and Nocedal 1989) of scipy. How strongly it is held back is
chosen on validation data, from strong to weak, each solution beginning where the last one ended. Features are
standardised for it and the head is scaled back, so that it works on the features as they are.

scipy takes the steps; the loss and its gradient, which is where the time goes, are torch's, on the device of the
training: scikit-learn's own can run on no GPU, and is slower on a processor too.

Knows features and labels. Does not know where features come from (`hf_transfer.training.prefix_cache`) or what becomes
of the head.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize

STRENGTHS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)
"""By which the sum of the losses is multiplied, beside half the squared norm of the weights, for one view of each
picture; weak ones are left out once the score falls twice in a row."""
_STOP = {"maxiter": 500, "gtol": 1e-4, "ftol": 64 * float(np.finfo(float).eps), "maxls": 50}
"""As scikit-learn's logistic regression stops; the weakest need not be solved to the end to be told from the best."""


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
    device: torch.device | None = None,
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
        device (`torch.device`, *optional*):
            Where to compute; where the features are when left out.

    Returns:
        [`SolvedHead`]
    """
    standard = features.to(device or features.device, torch.float32, copy=True)
    mean, spread = standard.mean(0), standard.std(0)
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    standard.sub_(mean).div_(spread)
    problem = _Problem(standard, labels.to(standard.device), num_labels, class_weights)
    head = problem.start()
    best: SolvedHead | None = None
    lowest = math.inf
    falls = 0
    for strength in STRENGTHS:
        head = problem.solved(head, strength / views)
        weight, bias = problem.parts(head)
        weight = weight / spread
        weight, bias = weight.cpu(), (bias.double() - weight.double() @ mean.double()).float().cpu()
        found = SolvedHead(weight, bias, strength, score(weight, bias))
        missed = 0.0 if loss is None else loss(found.weight, found.bias)
        falls = falls + 1 if best is not None and found.score < best.score else 0
        if best is None or (found.score, -missed) > (best.score, -lowest):
            best, lowest = found, missed
        if falls == 2:
            break
    assert best is not None
    return best


class _Problem:
    """The penalised loss of a linear head, as a function of all its numbers in a row: of each label weights and bias.

    Args:
        features (`torch.Tensor` of shape `(num_rows, num_features)`):
            Standardised.
        labels (`torch.Tensor` of shape `(num_rows,)`):
            Their labels.
        num_labels (`int`):
            Number of labels.
        class_weights (`torch.Tensor` of shape `(num_labels,)`, *optional*):
            Weight of each class in the loss.
    """

    def __init__(
        self, features: torch.Tensor, labels: torch.Tensor, num_labels: int, class_weights: torch.Tensor | None
    ):
        self.features = features
        self.targets = torch.nn.functional.one_hot(labels, num_labels).to(features)
        weights = torch.ones(num_labels) if class_weights is None else class_weights
        self.row_weights = weights.to(features)[labels][:, None]
        self.total = float(self.row_weights.sum())

    def start(self) -> np.ndarray:
        """Returns the head that knows the frequencies of the labels alone, at which strong penalties hold it."""
        bias = ((self.row_weights * self.targets).sum(0) / self.total).log()
        weight = torch.zeros(self.features.shape[1], len(bias))
        return torch.cat([weight, bias.cpu()[None]]).T.reshape(-1).double().numpy()

    def parts(self, head: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns weight of shape `(num_labels, num_features)` and bias of shape `(num_labels,)`."""
        rows = torch.from_numpy(head).to(self.features).view(self.targets.shape[1], -1)
        return rows[:, :-1], rows[:, -1]

    def solved(self, start: np.ndarray, strength: float) -> np.ndarray:
        """Returns the optimum for a strength, looked for from a head on."""
        # The mean loss, so that what counts as flat does not depend on the number of rows.
        penalty = 1 / (strength * self.total)

        def value_and_gradient(head: np.ndarray) -> tuple[float, np.ndarray]:
            weight, bias = self.parts(head)
            log_shares = torch.addmm(bias, self.features, weight.T).log_softmax(1)
            value = -(self.row_weights * self.targets * log_shares).sum() / self.total
            value = value + penalty * weight.square().sum() / 2
            error = self.row_weights * (log_shares.exp() - self.targets) / self.total
            gradient = torch.cat([error.T @ self.features + penalty * weight, error.sum(0)[:, None]], 1)
            return float(value), gradient.reshape(-1).double().cpu().numpy()

        return minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=_STOP).x
