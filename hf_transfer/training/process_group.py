"""What the processes of a run have in common: what one of them decides for all, and the end.

Knows how they agree and when they may part. Does not know what any of them does.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed
from accelerate.utils import broadcast_object_list

Settled = TypeVar("Settled")


def of_main_process(value: Any) -> Any:
    """Returns the main process's value, which has to be something that can be pickled, in every process."""
    return broadcast_object_list([value])[0]


def decided_by_main(is_main: bool, decide: Callable[[], Settled]) -> Settled:
    """Returns what the main process decides, in every process.

    What is measured comes out differently in each, and processes that do different things wait for each other forever.

    Args:
        is_main (`bool`):
            Whether this is the main process.
        decide (`Callable`):
            Called there alone.
    """
    return of_main_process(decide() if is_main else None)


def end_processes() -> None:
    """Ends the process group, if there is one; gloo aborts a process that leaves while a peer is still talking."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
