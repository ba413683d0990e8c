"""A progressive training in several processes that checks, after every step, that all hold the same parameters.

`accelerate launch -m tests.training.thawing_run OUT.safetensors PER_DEVICE_BATCH FAMILY...` writes the trained weights
of every family, and fails if two processes ever differ. With `TEST_STRATEGY=norms` in the environment normalisation
layers learn first, and are frozen then.
"""

import hashlib
import os
import sys
from pathlib import Path

import torch
import torch.distributed
from safetensors.torch import save_file
from torch import nn
from transformers import TrainerCallback

from hf_transfer.training import unfreezing
from hf_transfer.training.process_group import end_processes
from hf_transfer.training.strategies import Unfreezing
from tests.training.tiny_run import tiny_model, tiny_trainer

STRATEGIES = {
    "progressive": Unfreezing(strategy="progressive", unfreeze_every="2 steps"),
    "norms": Unfreezing(strategy="feature-extraction", tune_norms="6 steps"),
}


def digest(model: nn.Module) -> str:
    """Returns a hash over all parameters."""
    sha = hashlib.sha256()
    for parameter in model.parameters():
        sha.update(parameter.detach().cpu().numpy().tobytes())
    return sha.hexdigest()


class SameEverywhere(TrainerCallback):
    """Compares the parameters of all processes after every step."""

    def __init__(self):
        self.compared = 0

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if not torch.distributed.is_initialized():
            return
        digests: list = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(digests, digest(model))
        assert len(set(digests)) == 1, f"the processes differ after step {state.global_step}"
        self.compared += 1


def thawed_weights(
    family: str, output_dir: Path, batch: int, strategy: str = "progressive", **settings
) -> dict[str, torch.Tensor]:
    """Trains a tiny model of a family while what learns changes, and returns its weights."""
    model = tiny_model(family)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.manual_seed(1)
            nn.init.kaiming_normal_(parameter)
    same = SameEverywhere()
    trainer = tiny_trainer(
        model,
        output_dir,
        family,
        split_size=16,
        strategy=STRATEGIES[strategy],
        per_device_train_batch_size=batch,
        learning_rate=0.02,
        num_train_epochs=4,
        callbacks=[same],
        lr_scheduler_type="cosine",
        **settings,
    )
    trainer.train()
    assert trainer.args.ddp_find_unused_parameters in (None, False), "nothing is searched for"
    assert trainer.state.global_step == same.compared or "RANK" not in os.environ
    return {f"{family}/{name}": tensor.clone().contiguous() for name, tensor in model.state_dict().items()}


def _do_not_rebuild(wrapped: nn.Module, accelerator: object) -> None:
    """Stands in for the step around DDP's fault, to show that the fault is still there."""


def main(out: str, batch: str, *families: str) -> None:
    if os.environ.get("TEST_WITHOUT_REBUILD"):
        unfreezing.rebuild_gradient_reduction = _do_not_rebuild
    weights: dict[str, torch.Tensor] = {}
    for family in families:
        strategy = os.environ.get("TEST_STRATEGY", "progressive")
        weights |= thawed_weights(family, Path(out).parent / "run", int(batch), strategy)
    if os.environ.get("RANK", "0") == "0":
        save_file(weights, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_processes()
