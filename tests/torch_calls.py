"""What torch calls while something runs."""

from collections.abc import Callable

from torch.profiler import profile


def torch_calls(work: Callable[[], object]) -> set[str]:
    """Returns the names of what is called, of autograd's functions too."""
    with profile() as seen:
        work()
    return {event.key for event in seen.key_averages()}
