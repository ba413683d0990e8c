"""DistributedDataParallel and parameters that begin to learn after it was built.

DDP reduces the gradients of those parameters that required one when it was built; those thawed later would drift apart
between processes without any message (transformers#416, Lightning#20340). This is the one place that knows.
"""

from accelerate import Accelerator
from torch import nn
from torch.nn.parallel import DistributedDataParallel


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
