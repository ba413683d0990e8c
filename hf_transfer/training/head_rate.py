"""A learning rate for a fresh head, measured on the features that it will see.

One step of Adam moves every weight of a linear head by about its learning rate, so that a logit moves by up to the
rate times the L1 norm of the features. Features of different networks differ in that norm by a factor of ten, and so
does the rate that suits their head; rate times norm hardly differs (`benchmarks/results/head_rate.md`).

Knows the norm and the rate that follows. Does not know whether the user wants another (`hf_transfer.training.rates`).
"""

from collections.abc import Sequence

import torch

LOGIT_STEP = 1.5
"""How far a logit may move in one step of Adam at the peak of the schedule; measured on frozen features."""


def measured_head_rate(features: Sequence[torch.Tensor]) -> float | None:
    """Returns a learning rate at which one Adam step moves a logit by about `LOGIT_STEP`.

    Args:
        features (`Sequence[torch.Tensor]`):
            What the layers of the head see, of shape `(num_images, ..., num_features)`.

    Returns:
        `float` or `None`: with two digits; `None` where there are no features, or nothing but zeros.
    """
    norms = [seen.abs().sum(-1).flatten() for seen in features]
    norm = float(torch.cat(norms).mean()) if norms else 0.0
    # Two digits: the same rate on machines whose last bits differ.
    return float(f"{LOGIT_STEP / norm:.1e}") if 0.0 < norm < float("inf") else None
