"""Which layer groups learn at an optimizer step, and at which share of their peak rate.

Pure arithmetic on steps and group numbers: knows neither models nor optimizers, and the same step always gives the
same answer, so that a resumed run needs no memory of its phase. How the wishes of a user become a schedule is in
`hf_transfer.training.strategies`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

SHAPES: dict[str, Callable[[float], float]] = {
    # From 1 to 0 as progress goes from 0 to 1; the names are those of `--lr_scheduler_type`. A warm-up followed by a
    # line is ULMFiT's slanted triangle (Howard and Ruder 2018, section 3.2), which ends at 1/32 in place of 0.
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1.0 - progress,
    "constant": lambda progress: 1.0,
    "constant_with_warmup": lambda progress: 1.0,
}


@dataclass(frozen=True)
class Segment:
    """A stretch of optimizer steps in which a group learns: a warm-up, then the schedule's shape."""

    start: int
    end: int
    """The first step after it."""
    warmup: int
    """Steps of the linear rise from 0 to `peak`."""
    peak: float = 1.0
    """Share of the group's peak rate that is reached."""

    def factor(self, step: int, shape: Callable[[float], float]) -> float:
        """Returns the share of the group's peak rate at a step, 0 outside of the segment.

        As transformers' schedules with a warm-up, so that a segment over the whole run is one of them.
        """
        done = step - self.start
        if done < 0 or step >= self.end:
            return 0.0
        if done < self.warmup:
            return self.peak * done / max(1, self.warmup)
        progress = (done - self.warmup) / max(1, self.end - self.start - self.warmup)
        return self.peak * max(0.0, shape(progress))


@dataclass(frozen=True)
class Schedule:
    """The segments of every layer group, from stem to head."""

    segments: tuple[tuple[Segment, ...], ...]
    shape: str
    total_steps: int

    def __post_init__(self) -> None:
        for segments in self.segments:
            if any(first.end > second.start for first, second in pairwise(segments)):
                raise ValueError(f"the segments of a group overlap or are out of order: {segments}")

    def is_open(self, group: int, step: int) -> bool:
        """Tells whether a group learns at an optimizer step, counted from 0."""
        return any(segment.start <= step < segment.end for segment in self.segments[group])

    def open_groups(self, step: int) -> tuple[int, ...]:
        """Returns the numbers of the groups that learn at a step."""
        return tuple(group for group in range(len(self.segments)) if self.is_open(group, step))

    def factor(self, group: int, step: int) -> float:
        """Returns the share of its peak rate at which a group learns at a step; 0 where it does not."""
        return sum(segment.factor(step, SHAPES[self.shape]) for segment in self.segments[group])

    def changes(self) -> tuple[int, ...]:
        """Returns the steps at which other groups learn than at the step before."""
        starts = {segment.start for segments in self.segments for segment in segments}
        ends = {segment.end for segments in self.segments for segment in segments}
        return tuple(
            step
            for step in sorted(starts | ends)
            if 0 < step < self.total_steps and self.open_groups(step) != self.open_groups(step - 1)
        )

    def thawed(self, group: int, segment: Segment) -> "Schedule":
        """Returns the schedule in which a group that was frozen for good learns in `segment`."""
        segments = list(self.segments)
        segments[group] = (segment,)
        return replace(self, segments=tuple(segments))
