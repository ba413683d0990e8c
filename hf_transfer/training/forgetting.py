"""A warning when a run forgets: validation gets worse again and again while the training loss still falls.

Knows what that looks like in a history and which remedies there are. Does not stop anything: early stopping does.
"""

from collections.abc import Mapping, Sequence

from transformers import TrainerCallback

from hf_transfer.training.history import epoch_history

EVALUATIONS = 3
"""How many evaluations in a row have to be worse than the one before."""


def is_forgetting(history: Sequence[Mapping[str, float]], evaluations: int = EVALUATIONS) -> bool:
    """Tells whether the last evaluations were each worse than the one before while the training loss fell each time.

    Args:
        history (`Sequence[Mapping[str, float]]`):
            Rows of [`~hf_transfer.training.history.epoch_history`], with `train_loss` and `eval_loss`.
        evaluations (`int`, *optional*, defaults to 3):
            How many in a row.
    """
    rows = [row for row in history if "train_loss" in row and "eval_loss" in row][-evaluations - 1 :]
    if len(rows) <= evaluations:
        return False
    pairs = list(zip(rows, rows[1:], strict=False))
    return all(after["eval_loss"] > before["eval_loss"] for before, after in pairs) and all(
        after["train_loss"] < before["train_loss"] for before, after in pairs
    )


def remedies(strategy: str, learning_rate: float, augmentation: str) -> str:
    """Names what to try, as far as the run does not do it already."""
    tries = [f"--learning_rate {learning_rate / 3:.1g}"]
    if strategy in ("full", "scratch"):
        tries.append("--layer_decay 0.75")
    if strategy == "full":
        tries.append("--strategy progressive or partial")
    if augmentation != "strong":
        tries.append("--augmentation strong")
    tries.append("fewer epochs")
    return ", ".join(tries)


class ForgettingCallback(TrainerCallback):
    """Says once that a run forgets, and what may help.

    Args:
        advice (`str`):
            What [`remedies`] returned.
    """

    def __init__(self, advice: str):
        self.advice = advice
        self._said = False

    def on_evaluate(self, args, state, control, **kwargs):
        if self._said or not is_forgetting(epoch_history(state.log_history)):
            return
        self._said = True
        if state.is_world_process_zero:
            print(
                f"warning: validation loss has risen {EVALUATIONS} times in a row while the training loss fell: the "
                f"network learns these pictures by heart and forgets. Try {self.advice}.",
                flush=True,
            )
