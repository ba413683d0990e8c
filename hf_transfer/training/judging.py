"""The evaluations of a run as scores: what they are judged by, and where they no longer rise.

Knows Trainer's log. Does not know what follows from a score: a checkpoint that is kept, or a thaw.
"""

import math
from collections.abc import Sequence
from typing import Any


def judged_evaluations(
    log_history: Sequence[dict[str, Any]], metric: str | None, greater_is_better: bool | None
) -> list[tuple[int, float]]:
    """Returns step and score of each evaluation in a Trainer's log; the higher the score the better.

    Args:
        log_history (`Sequence[dict]`):
            `trainer.state.log_history`.
        metric (`str`, *optional*):
            `TrainingArguments.metric_for_best_model`; the loss when left out.
        greater_is_better (`bool`, *optional*):
            `TrainingArguments.greater_is_better`; by the name of the metric when left out.
    """
    judge, rises = judged_by(metric, greater_is_better)
    name = f"eval_{judge}"
    return [
        (int(entry["step"]), float(entry[name]) if rises else -float(entry[name]))
        for entry in log_history
        if name in entry
    ]


def judged_by(metric: str | None, greater_is_better: bool | None) -> tuple[str, bool]:
    """Returns the name of the metric that weights are judged by, without `eval_`, and whether more of it is better.

    Args:
        metric, greater_is_better:
            As in [`judged_evaluations`].
    """
    name = (metric or "loss").removeprefix("eval_")
    return name, not name.endswith("loss") if greater_is_better is None else greater_is_better


def plateaus(evaluations: Sequence[tuple[int, float]], patience: int) -> list[int]:
    """Returns the steps at which `patience` evaluations in a row were no better; counting starts anew."""
    steps, best, waited = [], -math.inf, 0
    for step, score in evaluations:
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited == patience:
            steps.append(step)
            waited = 0
    return steps
