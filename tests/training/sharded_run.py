"""A tiny training with sharded parameters (FSDP2) or optimizer states (DeepSpeed), in a process of its own.

`accelerate launch --use_fsdp ... -m tests.training.sharded_run OUT.safetensors FAMILY STRATEGY...` writes the trained
weights of each strategy, gathered from all processes.
"""

import os
import sys
from pathlib import Path

import torch
from accelerate import DistributedType, PartialState
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import PreTrainedModel, Trainer

from hf_transfer.training.process_group import end_processes
from tests.training.tiny_run import tiny_model, tiny_trainer


def gathered(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Returns whole tensors on the CPU, in the main process."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return {name: tensor.clone().contiguous() for name, tensor in get_model_state_dict(model, options=options).items()}


def trained_weights(family: str, strategy: str, output_dir: Path, batch: int) -> dict[str, torch.Tensor]:
    """Trains a tiny model and returns its weights, named by strategy."""
    trainer = tiny_trainer(
        tiny_model(family),
        output_dir,
        family,
        split_size=16,
        strategy=strategy,
        per_device_train_batch_size=batch,
    )
    trainer.train()
    return {f"{strategy}/{name}": tensor for name, tensor in gathered(trainer.model).items()}


def _let_accelerate_shard_on_cpu() -> None:
    """accelerate offers FSDP on accelerators only; apart from this one check it shards on CPUs with gloo as well."""
    create = Trainer.create_accelerator_and_postprocess

    def create_sharding(trainer: Trainer) -> None:
        assert PartialState().distributed_type == DistributedType.MULTI_CPU
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        create(trainer)
        assert trainer.is_fsdp_enabled

    Trainer.create_accelerator_and_postprocess = create_sharding


def main(out: str, family: str, *strategies: str) -> None:
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        _let_accelerate_shard_on_cpu()
    weights: dict[str, torch.Tensor] = {}
    for strategy in strategies:
        weights |= trained_weights(family, strategy, Path(out).parent / "run", 2)
    if os.environ.get("RANK", "0") == "0":
        save_file(weights, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_processes()
