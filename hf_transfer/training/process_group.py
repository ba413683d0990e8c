"""The end of a distributed run's process group.

Knows when processes may part. Does not know what any of them did.
"""

import torch.distributed


def end_processes() -> None:
    """Ends the process group, if there is one; gloo aborts a process that leaves while a peer is still talking."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
