"""What each strategy trains and when: from the wishes of a user to a schedule of layer groups.

Knows the strategies and their options. Does not know models, parameters or rates, only how many layer groups there are
and how long the run is.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from hf_transfer.errors import UserError
from hf_transfer.training.schedule import Schedule, Segment

_DURATION = re.compile(r"(?P<count>\d+(\.\d+)?)\s*(?P<unit>epochs?|steps?)?")
PARTIAL_SHARE = 0.25
"""Share of the backbone's groups that `partial` trains."""
PROGRESSIVE_SHARE = 0.5
"""Share of the run after which `progressive` has opened everything."""
PROBE_SHARE = 1 / 3
"""Share of the run in which `lp-ft` trains the head alone."""


@dataclass(frozen=True)
class RunLength:
    """How long a run is, and how many steps the warm-up of a stretch of it takes."""

    total_steps: int
    steps_per_epoch: int
    warmup_steps: Callable[[int], int]
    """From the number of steps of a stretch to those of its warm-up (`TrainingArguments.get_warmup_steps`)."""

    def segment(self, start: int, end: int, peak: float = 1.0) -> Segment:
        """Returns the segment from `start` to `end`, whose warm-up takes at most half of it."""
        length = end - start
        return Segment(start, end, min(self.warmup_steps(length), length if start == 0 else length // 2), peak)


@dataclass(frozen=True, kw_only=True)
class Unfreezing:
    """Which groups a run trains, in the user's words.

    Args:
        strategy (`str`, *optional*, defaults to `"full"`):
            `feature-extraction` trains the head alone; `partial` the head and the last groups; `full` and `scratch`
            everything; `progressive` the head first and then group by group from the last to the first (ULMFiT, Howard
            and Ruder 2018, section 3.3); `lp-ft` the head first and then everything (Kumar et al. 2022).
        train_last (`int`, *optional*):
            For `partial`: how many groups besides the head; a quarter of them when left out. For `progressive`: how
            many groups thaw; all of them when left out. With `tune_norms`: how many groups have their normalisation
            layers learn; all of them when left out.
        unfreeze_every (`str` or `float`, *optional*):
            For `progressive`: the time between two thaws, in epochs (`1`, `0.5 epochs`) or steps (`200 steps`). When
            left out, the thaws are spread evenly over the first half of the run.
        unfreeze_at (`Sequence[str]`, *optional*):
            For `progressive`: when each group thaws, from the last of the backbone to the first; groups without an
            entry stay frozen.
        unfreeze_on_plateau (`int`, *optional*):
            For `progressive`: thaw the next group when this many evaluations brought no better one.
        probe (`str` or `float`, *optional*):
            For `lp-ft`: how long the head is trained alone; a third of the run when left out.
        head_peak_after_probe (`float`, *optional*, defaults to 1):
            For `lp-ft`: the share of the head's peak rate in the second part, where the head is no longer fresh.
        head_solved (`bool`, *optional*, defaults to `False`):
            For `lp-ft`: whether the head is solved before the first step, so that the second part is all there is.
        tune_norms (`str` or `float`, *optional*):
            For `feature-extraction`: how long the scales and shifts of normalisation layers learn with the head before
            the backbone is frozen; not at all when left out.
    """

    strategy: Literal["feature-extraction", "partial", "progressive", "lp-ft", "full", "scratch"] = "full"
    train_last: int | None = None
    unfreeze_every: str | float | None = None
    unfreeze_at: Sequence[str | float] | None = None
    unfreeze_on_plateau: int | None = None
    probe: str | float | None = None
    head_peak_after_probe: float = 1.0
    head_solved: bool = False
    tune_norms: str | float | None = None

    def __post_init__(self) -> None:
        _refuse_misplaced(self)

    def changes(self) -> bool:
        """Tells whether the groups that learn change during the run."""
        return self.tune_norms is not None or (self.strategy in ("progressive", "lp-ft") and not self.head_solved)

    def changing(self) -> str:
        """Returns in a few words what changes during the run, for whoever cannot let it."""
        return f"--strategy {self.strategy} thaws layers" if self.tune_norms is None else "--tune_norms freezes layers"

    def describe(self) -> str:
        """Returns in a few words which groups learn later."""
        if self.strategy == "lp-ft" and not self.head_solved:
            return f"then everything after {self.probe}" if self.probe else "then everything after a third of the run"
        if self.tune_norms is not None:
            return f"then the head alone, after {self.tune_norms}"
        if self.strategy != "progressive":
            return "from the first step to the last"
        if self.unfreeze_on_plateau is not None:
            return f"then a group after {self.unfreeze_on_plateau} evaluations without a better one"
        if self.unfreeze_at is not None:
            return f"then a group at {', '.join(str(time) for time in self.unfreeze_at)}"
        if self.unfreeze_every is not None:
            return f"then a group every {self.unfreeze_every}"
        which = "all" if self.train_last is None else f"the last {self.train_last}"
        return f"then group by group, {which} within the first half of the run"

    def first_open(self, num_groups: int) -> tuple[int, ...]:
        """Returns the numbers of the groups that learn at the first step, whatever the length of the run.

        Raises:
            UserError: if `train_last` asks for more groups than there are.
        """
        if self.strategy in ("full", "scratch") or self.head_solved:
            return tuple(range(num_groups))
        thawing = self.thawing_groups(num_groups - 1)
        at_once = self.strategy == "partial" or self.tune_norms is not None
        return tuple(range(num_groups - 1 - (thawing if at_once else 0), num_groups))

    def thawing_groups(self, backbone: int) -> int:
        """Returns how many groups of the backbone, counted from the last, learn at some time.

        Raises:
            UserError: if `train_last` asks for more groups than there are.
        """
        if self.train_last is None:
            return max(1, round(PARTIAL_SHARE * backbone)) if self.strategy == "partial" else backbone
        if not 1 <= self.train_last <= backbone:
            raise UserError(
                f"--train_last {self.train_last}: the backbone has {backbone} groups.",
                allowed=f"1 to {backbone}",
                hint="hf-transfer inspect --model MODEL lists them; `--strategy full` trains all of them",
            )
        return self.train_last

    def schedule(self, num_groups: int, run: RunLength, shape: str) -> Schedule:
        """Returns the schedule of a run.

        Args:
            num_groups (`int`):
                How many layer groups there are, the head included.
            run (`RunLength`):
                How long the run is.
            shape (`str`):
                A key of `hf_transfer.training.schedule.SHAPES`.

        Returns:
            `Schedule`

        Raises:
            UserError: if the options ask for more groups than there are, or for times that cannot be.
        """
        whole = run.segment(0, run.total_steps)
        backbone = num_groups - 1
        if self.strategy in ("full", "scratch"):
            segments: list[tuple[Segment, ...]] = [(whole,)] * num_groups
        elif self.tune_norms is not None:
            frozen_at = _part("tune_norms", self.tune_norms, _steps("tune_norms", self.tune_norms, run), run)
            first, rest = run.segment(0, frozen_at), run.segment(frozen_at, run.total_steps)
            tuned = self.thawing_groups(backbone)
            segments = [*[()] * (backbone - tuned), *[(first,)] * tuned, (first, rest)]
        elif self.strategy == "feature-extraction":
            segments = [()] * backbone + [(whole,)]
        elif self.strategy == "partial":
            trained = self.thawing_groups(backbone)
            segments = [()] * (backbone - trained) + [(whole,)] * (trained + 1)
        elif self.head_solved:
            segments = [*[(whole,)] * backbone, (run.segment(0, run.total_steps, self.head_peak_after_probe),)]
        elif self.strategy == "lp-ft":
            share = round(PROBE_SHARE * run.total_steps)
            probe = _part("probe", self.probe, share if self.probe is None else _steps("probe", self.probe, run), run)
            then = run.segment(probe, run.total_steps)
            then_head = run.segment(probe, run.total_steps, self.head_peak_after_probe)
            segments = [(then,)] * backbone + [(run.segment(0, probe), then_head)]
        else:
            starts = self._thaw_steps(backbone, run)
            thawed = [() if start is None else (run.segment(start, run.total_steps),) for start in starts]
            segments = [*thawed, (whole,)]
        return Schedule(tuple(segments), shape, run.total_steps)

    def _thaw_steps(self, backbone: int, run: RunLength) -> list[int | None]:
        """Returns when each group of the backbone thaws, from the stem on; `None` for never, or not by the clock."""
        if self.unfreeze_at is not None:
            return self._listed_thaws(backbone, run)
        thawing = self.thawing_groups(backbone)
        if self.unfreeze_on_plateau is not None:
            return [None] * backbone
        if self.unfreeze_every is not None:
            every = float(_steps("unfreeze_every", self.unfreeze_every, run))
        else:
            every = PROGRESSIVE_SHARE * run.total_steps / thawing
        steps = [math.ceil(every * place) for place in range(1, thawing + 1)]
        thaws = [step if step < run.total_steps else None for step in reversed(steps)]
        return [*[None] * (backbone - thawing), *thaws]

    def _listed_thaws(self, backbone: int, run: RunLength) -> list[int | None]:
        steps = [_steps("unfreeze_at", time, run, least=0) for time in self.unfreeze_at or ()]
        words = " ".join(str(time) for time in self.unfreeze_at or ())
        if len(steps) > backbone:
            raise UserError(
                f"--unfreeze_at {words}: {len(steps)} times for {backbone} groups besides the head.",
                hint="hf-transfer inspect --model MODEL lists the groups",
            )
        if steps != sorted(steps) or steps[-1] >= run.total_steps:
            raise UserError(
                f"--unfreeze_at {words}: these are the steps {', '.join(map(str, steps))} of {run.total_steps}.",
                allowed="times that rise and lie within the run",
            )
        return [*[None] * (backbone - len(steps)), *reversed(steps)]


def _steps(option: str, time: str | float, run: RunLength, least: int = 1) -> int:
    """Returns a time in optimizer steps; a bare number counts epochs."""
    match = _DURATION.fullmatch(str(time).strip())
    if match is None:
        raise UserError(
            f"--{option} {time}",
            allowed="a number of epochs or steps",
            hint=f"--{option} 1, or --{option} '200 steps'",
        )
    in_steps = (match["unit"] or "").startswith("step")
    steps = round(float(match["count"]) * (1 if in_steps else run.steps_per_epoch))
    if steps < least:
        raise UserError(f"--{option} {time}: that is less than one step.", allowed=f"{least} step or more")
    return steps


def _part(option: str, time: str | float | None, steps: int, run: RunLength) -> int:
    """Returns the steps that a time comes to, if they leave some of the run for what comes after them."""
    if not 1 <= steps < run.total_steps:
        raise UserError(
            f"--{option} {time}: that is {steps} of the run's {run.total_steps} steps.",
            allowed="a part of the run, such as 1 (epoch) or `100 steps`",
        )
    return steps


def _refuse_misplaced(unfreezing: Unfreezing) -> None:
    """Raises where an option was given that belongs to another strategy, or two that exclude each other."""
    takes_last = unfreezing.strategy in ("partial", "progressive") or unfreezing.tune_norms is not None
    if unfreezing.train_last is not None and not takes_last:
        raise UserError(
            f"--train_last belongs to --strategy partial and progressive, and to --tune_norms; the strategy is "
            f"{unfreezing.strategy}.",
            hint="--strategy partial, or leave --train_last out",
        )
    homes = {
        "unfreeze_every": "progressive",
        "unfreeze_at": "progressive",
        "unfreeze_on_plateau": "progressive",
        "probe": "lp-ft",
        "tune_norms": "feature-extraction",
    }
    given = [option for option in homes if getattr(unfreezing, option) is not None]
    for option in given:
        if homes[option] != unfreezing.strategy:
            raise UserError(
                f"--{option} belongs to --strategy {homes[option]}, and the strategy is {unfreezing.strategy}.",
                hint=f"--strategy {homes[option]}, or leave --{option} out",
            )
    if unfreezing.train_last is not None and unfreezing.unfreeze_at is not None:
        given.append("train_last")
    if unfreezing.head_solved and (unfreezing.strategy != "lp-ft" or unfreezing.probe is not None):
        raise ValueError("head_solved belongs to lp-ft without a probe")
    if len(given) > 1:
        raise UserError(
            f"{' and '.join(f'--{option}' for option in given)} exclude each other.", hint=f"only --{given[0]}"
        )
    if unfreezing.unfreeze_on_plateau is not None and unfreezing.unfreeze_on_plateau < 1:
        raise UserError(f"--unfreeze_on_plateau {unfreezing.unfreeze_on_plateau}", allowed="1 evaluation or more")
