"""Weights back from a folder into a model in memory, all of them or an error.

Knows how to load a saved checkpoint strictly. Does not know when Trainer does so (`TransferTrainer`).

Upstream fault stepped around here: Trainer saves under the names used on the Hub and loads them back with a non-strict
`load_state_dict`, so that for ViT, DeiT, BEiT, DINOv2, Swin and others most tensors silently stay as they were
(transformers#43701, #48805). Removable once PR #48822 or its like is in the lowest supported transformers:
`tests/training/test_best_checkpoint.py` then passes without it.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel


def reload_weights(model: PreTrainedModel, folder: str | Path) -> None:
    """Copies every tensor of the checkpoint in `folder` into `model`.

    Args:
        model (`PreTrainedModel`):
            The model to change in place; it keeps its device, memory layout and data type.
        folder (`str` or `Path`):
            A folder written by `save_pretrained` of the same architecture.

    Raises:
        RuntimeError: if the checkpoint lacks a tensor of the model, holds another one, or has another shape.
    """
    loaded: Any = type(model).from_pretrained(
        folder,
        config=copy.deepcopy(model.config),
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
        local_files_only=True,
    )
    saved, info = loaded
    faults = {kind: sorted(map(str, info[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(faults.values()):
        raise RuntimeError(f"The checkpoint in {folder} does not fit the model: {faults}")
    own, kept = model.state_dict(), saved.state_dict()
    if own.keys() != kept.keys():
        raise RuntimeError(f"The checkpoint in {folder} has other tensors: {sorted(own.keys() ^ kept.keys())}")
    changed = {name: tensor for name, tensor in kept.items() if not _same(own[name], tensor)}
    model.load_state_dict(changed, strict=False)


def _same(own: torch.Tensor, kept: torch.Tensor) -> bool:
    """Tells whether nothing has to be copied, as of frozen layers.

    Weights that were loaded from a file and never changed are a map of it. The first write to each of its pages is a
    fault, and threads that write side by side wait for each other at every one.
    """
    return own.shape == kept.shape and own.dtype == kept.dtype and torch.equal(own, kept.to(own.device))
