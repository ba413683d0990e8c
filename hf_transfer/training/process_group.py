"""What the processes of a run have in common: what one of them decides for all, and the end.

Knows how they agree and when they may part. Does not know what any of them does.
"""

import gc
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


def part_processes() -> None:
    """Ends the process group, if there is one; gloo aborts a process that leaves while a peer is still talking."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def end_processes() -> None:
    """Ends the process group and its threads: the last thing that a process does, when no trainer is needed any more.

    The threads of a destroyed group go on for as long as somebody holds it, as trainers and wrapped models do, in
    cycles that only the collector frees. One that lets go of a tensor while the interpreter ends aborts the process:
    "terminate called without an active exception" (pytorch#190489, open). Collecting is removable when
    `tests/test_process_end.py` passes without it.
    """
    part_processes()
    gc.collect()
