"""A tiny training with a trial of compiling in several processes that measure different things.

`python -m tests.training.compiled_run FOLDER PER_DEVICE_BATCH` under `accelerate launch`: the main process finds the
compiled network fast, the others find it slow. Each writes its decision to FOLDER, the main one the weights.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from hf_transfer.training.compiling import CompileTrial
from hf_transfer.training.process_group import end_processes
from tests.training.tiny_run import tiny_model, tiny_trainer

SECONDS = {0: {False: 1000.0, True: 10.0}, 1: {False: 1.0, True: 2000.0}}
"""What a step takes, by process and by whether the network is compiled."""


class DisagreeingTrial(CompileTrial):
    """Takes its steps, and tells made-up times."""

    def _step_seconds(self, network: Any, batch: Any) -> float:
        super()._step_seconds(network, batch)
        return SECONDS[int(os.environ.get("RANK", "0"))][network is not self.trainer.model_wrapped]


def main(folder: str, batch: str) -> None:
    rank = os.environ.get("RANK", "0")
    trainer = tiny_trainer(
        tiny_model("resnet"), Path(folder) / "run", "resnet", 8, per_device_train_batch_size=int(batch)
    )
    trainer.compiling = DisagreeingTrial(trainer, "eager")
    trainer.add_callback(trainer.compiling)
    trainer.train()
    decision = trainer.compiling.decision
    assert decision is not None
    facts = dataclasses.asdict(decision) | {"runs compiled": trainer.compiled is not None}
    (Path(folder) / f"decision-{rank}.json").write_text(json.dumps(facts), encoding="utf-8")
    if rank == "0":
        weights = {name: tensor.clone().contiguous() for name, tensor in trainer.model.state_dict().items()}
        save_file(weights, Path(folder) / "weights.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_processes()
