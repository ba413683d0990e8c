"""What the records of the comparison with peers say: medians, scaled times, ratios round by round, goals.

Knows records as `peers.py` writes them, and the goals of the project. Runs nothing and formats nothing.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import peer_plan as plan

ENOUGH_ROUNDS = 3
WITHIN = 0.003
"""How much lower than a peer's an accuracy may be for a claim of speed to count."""
ENOUGH_SEEDS = 5
"""To tell what the cache does to an accuracy from what a seed does."""
EXTRACTION_PEERS = (
    plan.TRAINER_SENSIBLE,
    plan.TRAINER_DEFAULTS,
    plan.FASTAI_SENSIBLE,
    plan.FASTAI_DEFAULTS,
    plan.FASTAI_WHOLLY_FROZEN,
)
WHOSE_NORMS_LEARN = (plan.FASTAI_SENSIBLE, plan.FASTAI_DEFAULTS)
"""Of these, layers of the body learn; what ours lets learn is held against them too."""
WAYS = (plan.OURS_COLD, plan.OURS_NORMS)
"""Of ours to do `feature-extraction`: a claim of speed counts for the one that is no less accurate."""


@dataclass(frozen=True)
class Spread:
    """Median and range of what rounds gave."""

    median: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Goal:
    """One goal, and what the records say of it."""

    row: str
    text: str
    measured: Spread | float | None
    holds: bool | None
    """`None` where there are too few runs to tell."""
    runs: str = ""
    """How many runs an accuracy is of."""


def spread(values: Sequence[float]) -> Spread | None:
    """Returns median and range; `None` where there are no values."""
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


def whole_seconds(record: dict) -> float:
    """Returns the seconds from process start to test predictions, scaled where the run was short.

    What is not part of an epoch (start-up, reading, building, testing) counts once; the mean epoch counts as often as
    the whole run has epochs.
    """
    if not is_scaled(record):
        return record["seconds"]
    epochs = sum(record["train_seconds"]) + sum(record["validation_seconds"])
    return record["seconds"] - epochs + epochs / record["epochs"] * record["of_epochs"]


def is_scaled(record: dict) -> bool:
    """Tells whether a run had fewer epochs than its row is about."""
    return record["epochs"] < record["of_epochs"]


def images_per_second(record: dict) -> float | None:
    """Returns the rate of training alone, from the median epoch; `None` for what does not train."""
    seconds = record["train_seconds"]
    return record["images"]["train"] / statistics.median(seconds) if seconds else None


def of(records: Sequence[dict], row: str, contender: str) -> list[dict]:
    """Returns the runs of a contender."""
    return [record for record in records if (record["row"], record["contender"]) == (row, contender)]


def timed(records: Sequence[dict]) -> list[dict]:
    """Leaves out runs made for their accuracy alone, as on another machine than the rest of a row, or long before."""
    return [record for record in records if not record.get("accuracy_only")]


def for_accuracy_alone(records: Sequence[dict]) -> list[dict]:
    """Returns the runs that [`timed`] leaves out."""
    return [record for record in records if record.get("accuracy_only")]


def accuracies(records: Sequence[dict], row: str, contender: str) -> list[float]:
    """Returns test accuracies, of whole runs alone."""
    return [r["accuracy"] for r in of(records, row, contender) if not is_scaled(r) and r["accuracy"] is not None]


def paired(
    records: Sequence[dict], row: str, above: str, below: str, value: Callable[[dict], float | None] = whole_seconds
) -> Spread | None:
    """Returns the ratio of two contenders, from the rounds in which both ran, so that a slow hour strikes both."""
    return spread([one / other for one, other in in_pairs(records, row, above, below, value)])


def in_pairs(records: Sequence[dict], row: str, one: str, other: str, value: Callable) -> list[tuple[float, float]]:
    """Returns what two contenders gave, of the rounds in which both ran."""
    by_round = [{r["round"]: value(r) for r in timed(of(records, row, name))} for name in (one, other)]
    shared = sorted(by_round[0].keys() & by_round[1].keys())
    return [(by_round[0][number], by_round[1][number]) for number in shared]


def goals(records: Sequence[dict]) -> list[Goal]:
    """Returns the goals of all rows."""
    found = []
    for row in plan.ROWS:
        judge = {plan.EXTRACTION: _extraction, plan.FULL: _full}.get(row.task, _cached)
        found += judge(records, row.name)
    return found


def _extraction(records: Sequence[dict], row: str) -> list[Goal]:
    slowdown = paired(records, row, plan.OURS_COLD, plan.INFERENCE)
    found = [_at_most(row, "seconds of ours, cold / bare inference, at most 1.5", slowdown, 1.5)]
    pairs = [(peer, plan.OURS_COLD) for peer in EXTRACTION_PEERS]
    if of(records, row, plan.OURS_NORMS):
        slowdown = paired(records, row, plan.OURS_NORMS, plan.INFERENCE)
        found.append(_at_most(row, f"seconds of {plan.OURS_NORMS} / bare inference, at most 1.5", slowdown, 1.5))
    held = [ours for ours in (plan.OURS_NORMS, plan.OURS_PARTIAL) if of(records, row, ours)]
    pairs += [(peer, ours) for ours in held for peer in WHOSE_NORMS_LEARN]
    return found + [goal for peer, ours in pairs for goal in beside(records, row, peer, ours)]


def beside(records: Sequence[dict], row: str, peer: str, ours: str) -> tuple[Goal, Goal]:
    """Returns the goals of ours beside a peer of `feature-extraction`: of time, and of accuracy."""
    faster = paired(records, row, peer, ours)
    return _at_least(row, f"seconds of {peer} / {ours}, at least 8", faster, 8), _no_lower(records, row, ours, peer)


def both_hold(time: Goal, accuracy: Goal) -> bool | None:
    """Tells whether ours is faster at no lower accuracy; `None` where one is not known and the other holds."""
    judged = (time.holds, accuracy.holds)
    return False if False in judged else None if None in judged else True


def either_holds(judged: Sequence[bool | None]) -> bool | None:
    """Tells whether one way at least does; `None` where none is known to, and one is not known."""
    return True if True in judged else None if None in judged else False


def _full(records: Sequence[dict], row: str) -> list[Goal]:
    limit = paired(records, row, plan.OURS, plan.BARE_LOOP, images_per_second)
    peer = paired(records, row, plan.OURS, plan.TRAINER_DEFAULTS, images_per_second)
    return [
        _at_least(row, "img/s of ours / bare loop, at least 0.95", limit, 0.95),
        _at_least(row, "img/s of ours / Trainer, its defaults, at least 1.5", peer, 1.5),
    ]


def _cached(records: Sequence[dict], row: str) -> list[Goal]:
    faster = paired(records, row, plan.UNCACHED, plan.CACHED)
    return [
        _at_least(row, "seconds of ours, --cache off / with cache, at least 2", faster, 2),
        _within_noise(records, row, plan.CACHED, plan.UNCACHED),
    ]


def _at_least(row: str, text: str, measured: Spread | None, bound: float) -> Goal:
    return Goal(row, text, measured, measured.median >= bound if _enough(measured) else None)


def _at_most(row: str, text: str, measured: Spread | None, bound: float) -> Goal:
    return Goal(row, text, measured, measured.median <= bound if _enough(measured) else None)


def _enough(measured: Spread | None) -> bool:
    return measured is not None and measured.rounds >= ENOUGH_ROUNDS


def _no_lower(records: Sequence[dict], row: str, ours: str, theirs: str) -> Goal:
    text = f"accuracy of {ours} - {theirs}, at least -{WITHIN:g}"
    mine, other = accuracies(records, row, ours), accuracies(records, row, theirs)
    if not mine or not other:
        return Goal(row, text, None, None)
    difference = statistics.mean(mine) - statistics.mean(other)
    return Goal(row, text, difference, difference >= -WITHIN, f"{len(mine)} against {len(other)} runs")


def _within_noise(records: Sequence[dict], row: str, ours: str, other: str) -> Goal:
    """Judges by the differences of runs with one seed: their mean may be below zero by two of its standard errors."""
    text = f"accuracy of {ours} - {other}, no lower than two standard errors"
    pairs = in_pairs(records, row, ours, other, lambda record: record["accuracy"])
    differences = [mine - others for mine, others in pairs]
    if not differences:
        return Goal(row, text, None, None)
    mean = statistics.mean(differences)
    if len(differences) < ENOUGH_SEEDS:
        return Goal(row, text, mean, None, f"{len(differences)} of {ENOUGH_SEEDS} seeds")
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return Goal(row, text, mean, mean >= -2 * error, f"standard error {error:.3f}, {len(differences)} seeds")
