"""DistributedDataParallel and parameters that begin to learn after it was built.

DDP reduces the gradients of those parameters that required one when it was built; those thawed later would drift apart
between processes without any message (transformers#416, Lightning#20340). This is the one place that knows.
"""

from accelerate import Accelerator
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainingArguments

from hf_transfer.models.execution_order import trace_execution


def settle_unused(model: nn.Module, args: TrainingArguments | None) -> tuple[str, ...]:
    """Freezes parameters that the scores do not depend on, such as a mask token, so that DDP need not look for them.

    They never have a gradient, so nothing else changes; DDP otherwise searches the whole graph after every step
    (`find_unused_parameters`), or waits for their gradients for ever.

    Args:
        model (`nn.Module`):
            A classifier of transformers or timm, changed in place.
        args (`TrainingArguments`, *optional*):
            Changed in place. Nothing happens with one process, or where the user decided `ddp_find_unused_parameters`.

    Returns:
        `tuple[str, ...]`: the names of the frozen parameters.

    Raises:
        UserError: where no forward pass can be made.
    """
    if args is None or args.world_size == 1 or args.ddp_find_unused_parameters is not None:
        return ()
    args.ddp_find_unused_parameters = False
    used = trace_execution(model).contributing
    unused = tuple(name for name, _ in model.named_parameters() if name not in used)
    for name in unused:
        model.get_parameter(name).requires_grad_(False)
    return unused


def rebuild_gradient_reduction(wrapped: nn.Module, accelerator: Accelerator) -> None:
    """Makes DDP reduce the gradients of exactly those parameters that require one now.

    DDP leaves its reducer out of its state and builds a new one from the parameters when the state is restored; doing
    so in place keeps the object that Trainer and accelerate hold. To be called between two steps, in every process.

    Args:
        wrapped (`nn.Module`):
            What `accelerator.prepare` returned; left alone if there is no DDP in it.
        accelerator (`Accelerator`):
            The accelerator, whose communication hook is registered anew.
    """
    # torch.compile wraps around DDP.
    distributed = getattr(wrapped, "_orig_mod", wrapped)
    if not isinstance(distributed, DistributedDataParallel):
        return
    distributed.__setstate__(distributed.__getstate__())
    if accelerator.ddp_handler is not None:
        accelerator.ddp_handler.register_comm_hook(distributed)
