"""The precision of a run: the user's, that of its checkpoint, or the faster one, unless that moves frozen features.

A head learns on what a frozen network gives in the run, and is used on what the same network gives in float32.
bfloat16 moves features of some networks so far that these are no longer the same, which costs accuracy
(`benchmarks/results/feature_precision.md`). So a few pictures are looked at in both. Where they move too far,
`partial` computes in it only what learns, which follows what it is given (`hf_transfer.training.half_learning`): +0.13
points of validation accuracy over twelve pairs, with a standard error of 0.33 (`benchmarks/results/run_precision.md`).
Norms that learn first do so in it, and what is frozen afterwards is computed in float32.

Knows who decides and what is too far. Does not know what makes a processor faster in bfloat16
(`hf_transfer.training.cpu_precision`).
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from hf_transfer.config import FinetuneConfig
from hf_transfer.models.head_inputs import head_inputs
from hf_transfer.training.checkpoints import checkpoint_to_continue, recorded_value
from hf_transfer.training.cpu_precision import bfloat16_is_faster
from hf_transfer.training.half_learning import HalfLearning
from hf_transfer.training.process_group import decided_by_main
from hf_transfer.training.rates import YOURS
from hf_transfer.training.resume_record import PRECISION
from hf_transfer.training.sampled_pictures import SampledPictures

FLOAT32 = "no"
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_NAMES = {"bf16": "bfloat16", "fp16": "float16"}
_AS_BEGUN = "as the run began"
_WHERE_IT_LEARNS = " where it learns"
MOST_MOVED = 0.05
"""Root mean square of what half precision adds to features, as a share of that by which pictures differ in them."""


@dataclass(frozen=True)
class Precision:
    """What a run computes in, as accelerate calls it (`no`, `bf16`, `fp16`), and why."""

    name: str
    reason: str
    where_it_learns: str | None = None
    """Half precision of layers that learn, where frozen ones and the head stay in float32."""

    @property
    def recorded(self) -> str:
        """What checkpoints keep of it."""
        return self.name if self.where_it_learns is None else f"{self.where_it_learns}{_WHERE_IT_LEARNS}"

    @classmethod
    def of_record(cls, recorded: str) -> "Precision":
        """Returns the precision that a checkpoint has kept."""
        half = recorded.removesuffix(_WHERE_IT_LEARNS)
        return cls(recorded, _AS_BEGUN) if half == recorded else cls(FLOAT32, _AS_BEGUN, half)

    def half_learning(self, device_type: str) -> HalfLearning | None:
        """Returns what keeps frozen layers and the head in float32, where the others are not."""
        half = self.where_it_learns
        return None if half is None else HalfLearning(_HALF[half], device_type)


def choose_precision(config: FinetuneConfig, args: TrainingArguments, sample: SampledPictures) -> Precision:
    """Chooses the precision of a run; all processes get the choice of the main one.

    Args:
        config (`FinetuneConfig`):
            What the user asked for.
        args (`TrainingArguments`):
            The arguments of the run: its device, its checkpoint, the precision that was given.
        sample (`SampledPictures`):
            Pictures, and the model that is going to be trained; it is left as it was.

    Returns:
        [`Precision`]

    Raises:
        UserError: if there is no checkpoint to continue.
    """
    given = _given(config.training)
    if given is not None:
        return Precision(args.mixed_precision, given)
    # In all processes, so that all of them end if there is no such checkpoint.
    checkpoint = checkpoint_to_continue(args).folder
    return decided_by_main(args.process_index == 0, lambda: _settled(config, args, checkpoint, sample))


def moved_share(full: Sequence[torch.Tensor], half: Sequence[torch.Tensor]) -> float | None:
    """Returns how far features move in half precision, as a share of how far pictures are apart in them.

    Args:
        full (`Sequence[torch.Tensor]`):
            Features in float32, of shape `(num_images, ..., num_features)`, for each layer of a head.
        half (`Sequence[torch.Tensor]`):
            The same pictures and layers in half precision.

    Returns:
        `float` or `None`: root of the mean square of the difference over that of the distance from the mean picture;
        `None` where pictures do not differ.
    """
    moved = sum(float((after - before).square().sum()) for before, after in zip(full, half, strict=True))
    apart = sum(float((seen - seen.mean(0)).square().sum()) for seen in full)
    return (moved / apart) ** 0.5 if apart > 0.0 else None


def _given(training: Mapping[str, Any]) -> str | None:
    """Returns who set the precision; `None` where nobody did."""
    if {"bf16", "fp16"} & training.keys():
        return YOURS
    return "as the launcher says" if "ACCELERATE_MIXED_PRECISION" in os.environ else None


def _settled(
    config: FinetuneConfig, args: TrainingArguments, checkpoint: Path | None, sample: SampledPictures
) -> Precision:
    # Measured anew it might come out the other way, and the run would be another one.
    recorded = recorded_value(checkpoint, PRECISION)
    if recorded is not None:
        return Precision.of_record(recorded)
    half = _faster(args.device)
    if half is None:
        return Precision(FLOAT32, "bfloat16 is not clearly faster")
    if config.strategy in ("full", "scratch"):
        return Precision(half, "the faster one, and every weight learns in it")
    if args.fsdp or args.deepspeed:
        return Precision(half, "the faster one; a network in pieces is not looked at in it")
    moved = _moved(args.device, half, sample)
    if moved is None:
        return Precision(half, "the faster one")
    if not math.isfinite(moved):
        return Precision(FLOAT32, f"{_NAMES[half]} has no numbers as large as those of this network")
    share = f"{100 * moved:.2g} % of how far pictures are apart"
    if moved <= MOST_MOVED:
        return Precision(half, f"the faster one; it moves what the head sees by {share}")
    moves = f"{_NAMES[half]} would move what the head sees by {share}"
    # Gradients in float16 would have to be scaled. Where layers thaw one after the other, and change their precision
    # with it, accuracy fell from 0.848 to 0.843 on kept inputs and from 0.858 to 0.854 without: `progressive` on
    # mobilenet_v1_0.5_160 and clothing10, five seeds, in `benchmarks/results/peers.md` at commits fe704b1 and bc7f237.
    if (config.strategy != "partial" and config.tune_norms is None) or half != "bf16":
        return Precision(FLOAT32, moves)
    return Precision(FLOAT32, f"{moves}, so that frozen layers stay in float32", half)


def _faster(device: torch.device) -> str | None:
    """Returns the half precision in which a device is faster; `None` where float32 is as fast."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and bfloat16_is_faster() else None


def _moved(device: torch.device, half: str, sample: SampledPictures) -> float | None:
    """Returns [`moved_share`] of the sample on a device; `None` where nothing can be said."""
    names = sample.checkpoint.head_parameter_names
    model: nn.Module = sample.checkpoint.model
    before = next(model.parameters()).device
    model.to(device)
    try:
        with torch.autocast(device.type, _HALF[half]):
            seen = head_inputs(model, names, (pixels.to(device) for pixels in sample.batches))
    finally:
        model.to(before)
    return moved_share(sample.head_inputs, [features.cpu() for features in seen])
