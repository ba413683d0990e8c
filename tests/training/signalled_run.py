"""A tiny run that is sent SIGTERM as schedulers send it, in processes of its own.

`python -m tests.training.signalled_run FOLDER TARGET STEP` trains, and at optimizer step STEP sends SIGTERM to TARGET:
`last`, the process of the highest rank alone; `group`, every process of its group, workers of data loaders among
them. It ends with the exit code that the command line would have.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from transformers import TrainerCallback

from hf_transfer.errors import UserError
from hf_transfer.training.session import train
from tests.training.tiny_run import tiny_model, tiny_trainer


class Sender(TrainerCallback):
    """Sends SIGTERM at a step."""

    def __init__(self, target: str, step: int):
        self.target = target
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step != self.step or args.process_index != args.world_size - 1:
            return
        if self.target == "last":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            # From outside: workers of a data loader take a signal of their own parent as the order to end quietly.
            subprocess.run(["kill", "-TERM", "--", f"-{os.getpgid(0)}"], check=False)


def main(folder: str, target: str, step: str) -> int:
    trainer = tiny_trainer(
        tiny_model("vit"),
        Path(folder),
        optim="adamw_torch",
        learning_rate=1e-3,
        split_size=200,
        num_train_epochs=4,
        dataloader_num_workers=2 if target == "group" else 0,
        dataloader_persistent_workers=target == "group",
        callbacks=[Sender(target, int(step))],
    )
    try:
        train(trainer, trainer.args)
    except UserError as error:
        print(f"rank {trainer.args.process_index}: {error}", flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
