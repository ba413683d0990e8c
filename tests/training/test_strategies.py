"""From the wishes of a user to a schedule."""

import pytest

from hf_transfer.errors import UserError
from hf_transfer.training.strategies import RunLength, Unfreezing

RUN = RunLength(total_steps=120, steps_per_epoch=40, warmup_steps=lambda length: length // 10)
GROUPS = 5


def starts(unfreezing: Unfreezing) -> list[int | None]:
    made = unfreezing.schedule(GROUPS, RUN, "cosine")
    return [segments[0].start if segments else None for segments in made.segments]


@pytest.mark.parametrize(
    ("unfreezing", "expected"),
    [
        (Unfreezing(strategy="feature-extraction"), [None, None, None, None, 0]),
        (Unfreezing(strategy="full"), [0, 0, 0, 0, 0]),
        (Unfreezing(strategy="scratch"), [0, 0, 0, 0, 0]),
        (Unfreezing(strategy="partial"), [None, None, None, 0, 0]),
        (Unfreezing(strategy="partial", train_last=3), [None, 0, 0, 0, 0]),
        (Unfreezing(strategy="progressive"), [60, 45, 30, 15, 0]),
        (Unfreezing(strategy="progressive", unfreeze_every="0.5"), [80, 60, 40, 20, 0]),
        (Unfreezing(strategy="progressive", unfreeze_every="50 steps"), [None, None, 100, 50, 0]),
        (Unfreezing(strategy="progressive", unfreeze_every=1), [None, None, 80, 40, 0]),
        (Unfreezing(strategy="progressive", unfreeze_at=["0.25 epochs", "30steps", "1"]), [None, 40, 30, 10, 0]),
        (Unfreezing(strategy="progressive", train_last=2), [None, None, 60, 30, 0]),
        (Unfreezing(strategy="progressive", train_last=1, unfreeze_every=1), [None, None, None, 40, 0]),
        (Unfreezing(strategy="progressive", unfreeze_on_plateau=2), [None, None, None, None, 0]),
        (Unfreezing(strategy="lp-ft"), [40, 40, 40, 40, 0]),
        (Unfreezing(strategy="lp-ft", probe="10steps"), [10, 10, 10, 10, 0]),
        (Unfreezing(strategy="feature-extraction", tune_norms=1), [0, 0, 0, 0, 0]),
        (Unfreezing(strategy="feature-extraction", tune_norms=1, train_last=3), [None, 0, 0, 0, 0]),
    ],
)
def test_when_each_group_begins_to_learn(unfreezing: Unfreezing, expected: list):
    assert starts(unfreezing) == expected
    opened = unfreezing.schedule(GROUPS, RUN, "cosine").open_groups(0)
    assert opened == unfreezing.first_open(GROUPS)


def test_every_group_warms_up_over_the_same_share_of_its_own_time():
    made = Unfreezing(strategy="progressive").schedule(GROUPS, RUN, "cosine")
    assert [segments[0].warmup for segments in made.segments] == [6, 7, 9, 10, 12]


def test_after_the_probe_the_head_goes_on_at_its_new_peak():
    made = Unfreezing(strategy="lp-ft", head_peak_after_probe=0.1).schedule(GROUPS, RUN, "constant_with_warmup")
    assert made.factor(4, 39) == 1.0
    assert made.factor(4, 60) == pytest.approx(0.1)
    assert made.factor(0, 60) == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "full", "train_last": 2}, "--train_last belongs to --strategy partial"),
        ({"strategy": "partial", "unfreeze_every": "1"}, "--unfreeze_every belongs to --strategy progressive"),
        ({"strategy": "progressive", "probe": "1"}, "--probe belongs to --strategy lp-ft"),
        ({"strategy": "progressive", "unfreeze_every": "1", "unfreeze_at": ["1"]}, "exclude each other"),
        ({"strategy": "progressive", "train_last": 2, "unfreeze_at": ["1"]}, "exclude each other"),
        ({"strategy": "progressive", "train_last": 5}, "the backbone has 4 groups"),
        ({"strategy": "progressive", "unfreeze_on_plateau": 0}, "--unfreeze_on_plateau 0"),
        ({"strategy": "partial", "train_last": 5}, "the backbone has 4 groups"),
        ({"strategy": "partial", "train_last": 0}, "the backbone has 4 groups"),
        ({"strategy": "progressive", "unfreeze_every": "soon"}, "--unfreeze_every soon"),
        ({"strategy": "progressive", "unfreeze_every": "0"}, "less than one step"),
        ({"strategy": "progressive", "unfreeze_at": ["2", "1"]}, "80, 40 of 120"),
        ({"strategy": "progressive", "unfreeze_at": ["3"]}, "120 of 120"),
        ({"strategy": "progressive", "unfreeze_at": ["1"] * 5}, "5 times for 4 groups"),
        ({"strategy": "lp-ft", "probe": "3"}, "120 of the run's 120 steps"),
        ({"strategy": "partial", "tune_norms": "1"}, "--tune_norms belongs to --strategy feature-extraction"),
        ({"strategy": "feature-extraction", "tune_norms": "3"}, "120 of the run's 120 steps"),
        ({"strategy": "feature-extraction", "tune_norms": "0"}, "less than one step"),
        ({"strategy": "feature-extraction", "train_last": 1}, "--train_last belongs to --strategy partial"),
        ({"strategy": "feature-extraction", "tune_norms": "1", "train_last": 5}, "the backbone has 4 groups"),
    ],
)
def test_wishes_that_cannot_be(options: dict, message: str):
    with pytest.raises(UserError, match=message):
        Unfreezing(**options).schedule(GROUPS, RUN, "cosine")
