"""What strategies cannot be combined with, said at the start of a run.

Knows what upstream cannot do. Does not know how strategies work (`hf_transfer.training.strategies`).
"""

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
    strategy = trainer.unfreezing.unfreezing.strategy
    if not trainer.unfreezing.unfreezing.changes():
        return
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        name = "DeepSpeed" if trainer.is_deepspeed_enabled else "FSDP"
        raise UserError(
            f"--strategy {strategy} thaws layers during the run, and {name} fixes what it shards and reduces at the "
            "start.",
            allowed="feature-extraction, partial, full, scratch",
            hint="a multi-GPU (DDP) configuration of accelerate, or --strategy full --layer_decay 0.75",
        )
    if SchedulerType(trainer.args.lr_scheduler_type).value not in SHAPES:
        raise UserError(
            f"--lr_scheduler_type {trainer.args.lr_scheduler_type}: --strategy {strategy} gives each group a schedule "
            "of its own.",
            allowed=", ".join(SHAPES),
            hint="--lr_scheduler_type cosine",
        )
