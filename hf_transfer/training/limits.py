"""What strategies cannot be combined with, said at the start of a run.

Knows what upstream cannot do. Does not know how strategies work (`hf_transfer.training.strategies`).
"""

from collections.abc import Mapping
from typing import Any

from transformers import SchedulerType

from hf_transfer.errors import UserError
from hf_transfer.training.schedule import SHAPES


def refuse_unsupported(trainer: Any) -> None:
    """Raises where groups would have to thaw, or weights be averaged, under something that cannot let them."""
    if trainer.average is not None and (trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled):
        raise UserError(
            "--ema averages whole weights, which FSDP and DeepSpeed cut into pieces.",
            hint="a multi-GPU (DDP) configuration of accelerate, or leave --ema out",
        )
    unfreezing = trainer.unfreezing.unfreezing
    if not unfreezing.changes():
        if trainer.is_deepspeed_enabled:
            settings = trainer.accelerator.state.deepspeed_plugin.deepspeed_config
            _refuse_one_rate_for_all(settings)
            _refuse_unsaved_shards(settings.get("zero_optimization", {}))
        return
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        name = "DeepSpeed" if trainer.is_deepspeed_enabled else "FSDP"
        raise UserError(
            f"{unfreezing.changing()} during the run, and {name} fixes what it shards and reduces at the start.",
            allowed="feature-extraction without --tune_norms, partial, full, scratch",
            hint="a multi-GPU (DDP) configuration of accelerate, or --strategy full --layer_decay 0.75",
        )
    if SchedulerType(trainer.args.lr_scheduler_type).value not in SHAPES:
        raise UserError(
            f"--lr_scheduler_type {trainer.args.lr_scheduler_type}: {unfreezing.changing()}, and each group has a "
            "schedule of its own.",
            allowed=", ".join(SHAPES),
            hint="--lr_scheduler_type cosine",
        )


def _refuse_one_rate_for_all(settings: Mapping[str, Any]) -> None:
    """Raises where DeepSpeed brings an optimizer or a schedule of its own.

    Trainer hands all weights over as one group then (`deepspeed_optim_sched` of transformers 5.24), without the rate
    and the decay of each; a schedule of DeepSpeed's sets one rate for all.
    """
    given = [name for name in ("optimizer", "scheduler") if name in settings]
    if given:
        raise UserError(
            f"The DeepSpeed configuration has {' and '.join(f'`{name}`' for name in given)} of its own: one rate for "
            "all weights, where each layer group has its rate here.",
            hint=f"the same configuration without {' and '.join(given)}; --optim, --learning_rate and "
            "--lr_scheduler_type say what they said",
        )


def _refuse_unsaved_shards(zero: Mapping[str, Any]) -> None:
    """Raises where DeepSpeed would save empty weights: each process holds a piece of them under ZeRO-3."""
    if zero.get("stage") == 3 and not zero.get("stage3_gather_16bit_weights_on_model_save"):
        raise UserError(
            "DeepSpeed's ZeRO stage 3 saves no weights that can be read without it.",
            allowed="ZeRO stage 1 or 2, or stage 3 with stage3_gather_16bit_weights_on_model_save: true",
            hint="that line in the DeepSpeed configuration, or --zero3_save_16bit_model true for accelerate launch",
        )
