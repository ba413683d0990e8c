"""Which frozen layers are worth computing once, for which stretch of a run: a comparison of seconds.

A run is a sequence of phases, each with its lowest layer group that learns. What a cut below a group keeps serves
every phase in which everything below that group is frozen: the phase in which it is the lowest that learns, and those
before it. So a stretch of phases can share one cut, at the lowest group that learns in any of them, or have one each;
the plan is the sequence of stretches that saves most (dynamic programming over the phases).

A cut costs one pass through the layers below it for every row that is kept, and saves that pass at every visit.
Reading a row back is not counted: it takes a small part of the time of the layers that it replaces.

Knows counts and seconds. Does not know how seconds are measured (`hf_transfer.training.prefix_cost`) or what a cut is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Phase:
    """A stretch of steps with the same open groups."""

    start: int
    end: int
    """The first step after it."""
    lowest_open: int
    """Number of the lowest layer group that learns; the number of groups where none does."""


@dataclass(frozen=True)
class Looks:
    """How often pictures are looked at."""

    train_images: int
    validation_images: int
    steps_per_epoch: float
    steps_per_evaluation: float
    """Infinite where validation pictures are not looked at."""
    views: int
    """Of each training picture."""

    @property
    def rows(self) -> int:
        """Rows that a cut has to compute."""
        return self.views * self.train_images + self.validation_images

    def visits(self, steps: int) -> float:
        """Returns how many pictures go through the network in some steps and their evaluations."""
        validations = self.validation_images * steps / self.steps_per_evaluation
        return self.train_images * steps / self.steps_per_epoch + validations


@dataclass(frozen=True)
class Costs:
    """Seconds of one picture."""

    pixels: float
    """From the file, or what was kept of it, to pixels."""
    below: tuple[float, ...]
    """Of the layers below group 0, 1, 2, ...: rising from 0."""

    def of(self, boundary: int) -> float:
        """Returns the seconds that a row spares at each visit, and costs once."""
        return self.pixels + self.below[boundary]


@dataclass(frozen=True)
class Stretch:
    """Steps that run on one cut, or on none."""

    start: int
    end: int
    boundary: int | None
    """Number of the group below which the network is cut; `None` for no cut."""
    build_seconds: float = 0.0
    saved_seconds: float = 0.0
    """What the steps would take more without it, the building not subtracted."""

    @property
    def gain(self) -> float:
        """Seconds that the cut wins."""
        return self.saved_seconds - self.build_seconds

    def serves(self, phase: Phase) -> bool:
        """Tells whether a phase lies in it, with everything below the cut frozen."""
        within = self.start <= phase.start and phase.end <= self.end
        return within and (self.boundary is None or self.boundary <= phase.lowest_open)

    def until(self, step: int) -> "Stretch":
        """Returns what comes of it where it ends earlier."""
        return replace(self, end=min(self.end, step))


def frozen_phases(phases: Sequence[Phase], num_groups: int) -> tuple[Phase, ...]:
    """Returns the phases, from the first on, in which something is frozen and something learns."""
    found: list[Phase] = []
    for phase in phases:
        if not 0 < phase.lowest_open < num_groups:
            break
        found.append(phase)
    return tuple(found)


def plan_stretches(phases: Sequence[Phase], looks: Looks, costs: Costs, everywhere: bool = False) -> list[Stretch]:
    """Finds the stretches that save most.

    Args:
        phases (`Sequence[Phase]`):
            One after the other, all with frozen groups.
        looks ([`Looks`]):
            How often pictures are looked at.
        costs ([`Costs`]):
            What a look costs.
        everywhere (`bool`, *optional*, defaults to `False`):
            Whether every phase is to have a cut, also where that wins nothing.

    Returns:
        `list[Stretch]`: without gaps, from the first step of the phases to their last.
    """
    best: list[tuple[float, list[Stretch]]] = [(0.0, [])]
    for end in range(1, len(phases) + 1):
        choices = []
        for start in range(end):
            gain, before = best[start]
            for stretch in _ways(phases[start:end], looks, costs, everywhere):
                choices.append((gain + stretch.gain, [*before, stretch]))
        # The first of equals has the longest stretch, and so the fewest cuts.
        best.append(max(choices, key=lambda choice: choice[0]))
    return best[-1][1]


def shown(plan: Sequence[Stretch], names: Sequence[str]) -> str:
    """Returns a line with what was planned, and what it is expected to take and to spare.

    Args:
        plan (`Sequence[Stretch]`):
            The stretches.
        names (`Sequence[str]`):
            What the layer groups are called, from stem to head.
    """
    parts = []
    for stretch in plan:
        how = "without"
        if stretch.boundary is not None:
            how = f"on a cut below {names[stretch.boundary]}"
            how += f" (about {stretch.build_seconds:.3g} s to compute, {stretch.saved_seconds:.3g} s spared)"
        parts.append(f"steps {stretch.start} to {stretch.end} {how}")
    return f"cache plan: {'; '.join(parts)}"


def _ways(phases: Sequence[Phase], looks: Looks, costs: Costs, everywhere: bool) -> list[Stretch]:
    first, last = phases[0], phases[-1]
    boundary = min(phase.lowest_open for phase in phases)
    each = costs.of(boundary)
    cut = Stretch(first.start, last.end, boundary, looks.rows * each, looks.visits(last.end - first.start) * each)
    if everywhere:
        return [cut]
    return [cut, Stretch(first.start, last.end, None)] if cut.gain > 0 else [Stretch(first.start, last.end, None)]
