"""The history of a run, a row for each evaluation.

Knows Trainer's log and how to make one table of it. Does not know how it is drawn (`hf_transfer.evaluation.curves`).
"""

from collections.abc import Sequence
from typing import Any

_SPEED_KEYS = ("_runtime", "_per_second")


def epoch_history(log_history: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Joins the training log and the evaluations, a row for each evaluation.

    The training loss of a row is the mean over the optimizer steps since the row before, each log entry weighted by
    the steps that it covers.

    Args:
        log_history (`Sequence[dict]`):
            `trainer.state.log_history`.

    Returns:
        `list[dict]`: rows with `epoch`, `step`, `train_loss`, `learning_rate...` and `eval_...`.
    """
    rows: list[dict[str, float]] = []
    pending: list[tuple[int, float]] = []
    rates: dict[str, float] = {}
    last_logged = 0
    for entry in log_history:
        if "loss" in entry:
            pending.append((entry["step"] - last_logged, entry["loss"]))
            last_logged = entry["step"]
            rates = {key: value for key, value in entry.items() if key.startswith("learning_rate")}
        elif "eval_loss" in entry:
            row = {"epoch": entry["epoch"], "step": entry["step"], **_mean_loss(pending), **rates}
            row |= {key: value for key, value in entry.items() if _is_metric(key)}
            rows.append(row)
            pending = []
    return rows


def _mean_loss(pending: list[tuple[int, float]]) -> dict[str, float]:
    steps = sum(count for count, _ in pending)
    return {"train_loss": sum(count * loss for count, loss in pending) / steps} if steps else {}


def _is_metric(key: str) -> bool:
    return key.startswith("eval_") and not key.endswith(_SPEED_KEYS)
