"""A tiny run through the real pipeline's training room that can be killed at a step, in a process of its own.

`python -m tests.training.killed_run FOLDER STRATEGY KILL [WHERE]` trains with checkpoints in FOLDER, continues from
the last whole one if there is one, and kills itself with SIGKILL at optimizer step KILL (0: never). WHERE is `step`,
right after the step, `save`, in the middle of the next checkpoint, or `term`, SIGTERM after the step, which is to
save and stop. What the training ended with is written to FOLDER/result.json and FOLDER/result.safetensors.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from hf_transfer.training.averaging import WeightAverage
from hf_transfer.training.process_group import end_processes
from hf_transfer.training.session import train
from hf_transfer.training.strategies import Unfreezing
from hf_transfer.training.trainer import TransferTrainer
from tests.models.families import build_tiny_model
from tests.processes import launched
from tests.training.tiny_run import NUM_LABELS, tiny_trainer

STRATEGIES = {
    "full": Unfreezing(strategy="full"),
    "feature-extraction": Unfreezing(strategy="feature-extraction"),
    "progressive": Unfreezing(strategy="progressive", unfreeze_every="3 steps"),
    "plateau": Unfreezing(strategy="progressive", unfreeze_on_plateau=1),
    "lp-ft": Unfreezing(strategy="lp-ft", probe="4 steps"),
    "averaged": Unfreezing(strategy="full"),
    "norms": Unfreezing(strategy="feature-extraction", tune_norms="7 steps"),
}
TIMING = ("runtime", "per_second")


def command(folder: Path, strategy: str, kill: int, where: str, processes: int) -> list[str]:
    """Returns the command line of a run, to be started with `on_cpus` of `tests.processes`."""
    return launched("tests.training.killed_run", str(folder), strategy, str(kill), where, processes=processes)


class Killer(TrainerCallback):
    """Ends the process at a step, as a machine does that is taken away."""

    def __init__(self, step: int, where: str):
        self.step = step
        self.where = where

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step and self.where in ("step", "term"):
            os.kill(os.getpid(), signal.SIGKILL if self.where == "step" else signal.SIGTERM)


def kill_while_saving(step: int) -> None:
    """Lets the process die after the weights of a checkpoint are written and before its optimizer is."""
    save = Trainer._save_optimizer_and_scheduler

    def save_or_die(trainer: Trainer, output_dir: str) -> None:
        if trainer.state.global_step >= step:
            (Path(output_dir) / "optimizer.pt").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        save(trainer, output_dir)

    Trainer._save_optimizer_and_scheduler = save_or_die  # type: ignore[method-assign]


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float(np.mean(prediction.predictions.argmax(-1) == prediction.label_ids))}


def build(folder: Path, strategy: str, killer: Killer) -> TransferTrainer:
    """Returns a trainer with everything in it that a resumed run has to take up: see the settings."""
    torch.manual_seed(0)
    model = build_tiny_model("vit", num_labels=NUM_LABELS)
    model.config.hidden_dropout_prob = 0.1
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    return tiny_trainer(
        model,
        folder,
        split_size=18,
        strategy=STRATEGIES[strategy],
        optim="adamw_torch",
        learning_rate=3e-3,
        lr_head=1e-2,
        num_train_epochs=4,
        per_device_train_batch_size=4 // int(os.environ.get("WORLD_SIZE", "1")),
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        eval_strategy="epoch",
        save_strategy="steps",
        save_steps=2,
        logging_strategy="epoch",
        save_total_limit=2,
        metric_for_best_model="accuracy",
        load_best_model_at_end=False,
        compute_metrics=accuracy,
        resume_from_checkpoint="auto",
        restore_callback_states_from_checkpoint=True,
        callbacks=[EarlyStoppingCallback(3), killer],
        average=WeightAverage(model, 0.9) if strategy == "averaged" else None,
    )


def result(trainer: TransferTrainer) -> dict[str, Any]:
    """Returns what must not depend on whether the run was killed, without weights."""
    state = trainer.state
    log = [{key: value for key, value in entry.items() if not key.endswith(TIMING)} for entry in state.log_history]
    stopping = state.stateful_callbacks["EarlyStoppingCallback"]
    optimizer: Any = trainer.optimizer
    return {
        "log": log,
        "best": [state.best_metric, state.best_global_step],
        "steps": state.global_step,
        "patience": stopping,
        "rates": [group["lr"] for group in optimizer.param_groups],
    }


def main(folder: str, strategy: str, kill: str, where: str = "step") -> None:
    torch.set_num_threads(1)
    if where == "save" and int(kill):
        kill_while_saving(int(kill))
    trainer = build(Path(folder), strategy, Killer(int(kill), where))
    train(trainer, trainer.args)
    if trainer.args.should_save:
        optimizer: Any = trainer.optimizer
        states = optimizer.state_dict()["state"]
        tensors = {f"weights/{name}": tensor for name, tensor in trainer.model.state_dict().items()}
        for number, values in states.items():
            tensors |= {f"optimizer/{number}/{name}": torch.as_tensor(value) for name, value in values.items()}
        save_file(
            {name: tensor.clone().contiguous() for name, tensor in tensors.items()},
            Path(folder) / "result.safetensors",
        )
        (Path(folder) / "result.json").write_text(json.dumps(result(trainer)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_processes()
