"""Two ways to do the same, timed in turns within one run, since machines are noisy.

Knows clocks. Does not know what is timed.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Turns:
    """Seconds of both ways, turn by turn."""

    usual: tuple[float, ...]
    other: tuple[float, ...]

    @property
    def medians(self) -> tuple[float, float]:
        """Of the usual way and of the other."""
        return statistics.median(self.usual), statistics.median(self.other)

    @property
    def ratio(self) -> float:
        """How many times as fast the other way is, by the medians."""
        usual, other = self.medians
        return usual / other

    def times_as_fast(self) -> str:
        """Returns the ratio of the medians, and the range of the turns' own."""
        ratios = [usual / other for usual, other in zip(self.usual, self.other, strict=True)]
        return f"{self.ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def in_turns(timed: Callable[[bool], float], turns: int) -> Turns:
    """Times both ways in turns, after a turn that warms up.

    Args:
        timed (`Callable[[bool], float]`):
            Does it once, the usual way or (`True`) the other, and returns its seconds.
        turns (`int`):
            How often.
    """
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(turns + 1):
        for other in (False, True):
            seconds[other].append(timed(other))
    return Turns(tuple(seconds[False][1:]), tuple(seconds[True][1:]))
