"""The pure schedule: who learns at which step, at which share of the peak rate."""

import pytest
import torch
from transformers import get_scheduler

from hf_transfer.training.schedule import Schedule, Segment


def schedule(*segments: tuple[Segment, ...], shape: str = "cosine", total: int = 20) -> Schedule:
    return Schedule(tuple(segments), shape, total)


@pytest.mark.parametrize("shape", ["cosine", "linear", "constant", "constant_with_warmup"])
@pytest.mark.parametrize("warmup", [0, 3, 20])
def test_a_segment_over_the_whole_run_is_the_schedule_of_transformers(shape: str, warmup: int):
    warmup = 0 if shape == "constant" else warmup
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(shape, optimizer, num_warmup_steps=warmup, num_training_steps=20)
    ours = schedule((Segment(0, 20, warmup),), shape=shape)
    for step in range(20):
        assert ours.factor(0, step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12), step
        optimizer.step()
        theirs.step()


def test_a_thawed_group_warms_up_from_zero_and_falls_to_zero():
    late = schedule((Segment(10, 20, 4),), (Segment(0, 20, 2),))
    factors = [late.factor(0, step) for step in range(20)]
    assert factors[:11] == [0.0] * 11
    assert factors[10:15] == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
    assert factors[14:] == sorted(factors[14:], reverse=True)
    assert 0 < factors[-1] < 0.1


def test_open_groups_and_the_steps_at_which_they_change():
    made = schedule((), (Segment(12, 20, 1),), (Segment(5, 20, 1),), (Segment(0, 20, 1),))
    assert [made.open_groups(step) for step in (0, 4, 5, 11, 12, 19)] == [
        (3,),
        (3,),
        (2, 3),
        (2, 3),
        (1, 2, 3),
        (1, 2, 3),
    ]
    assert made.changes() == (5, 12)


def test_two_segments_of_a_head_follow_each_other():
    made = schedule((Segment(8, 20, 0),), (Segment(0, 8, 0), Segment(8, 20, 0, peak=0.1)))
    assert made.factor(1, 0) == 1.0
    assert made.factor(1, 7) < 0.1
    assert made.factor(1, 8) == pytest.approx(0.1)
    assert made.changes() == (8,)


def test_segments_that_overlap_are_no_schedule():
    with pytest.raises(ValueError, match="overlap"):
        schedule((Segment(0, 8, 0), Segment(7, 20, 0)))


def test_a_plateau_thaws_one_group_more():
    before = schedule((), (Segment(0, 20, 2),))
    after = before.thawed(0, Segment(7, 20, 1))
    assert before.open_groups(10) == (1,)
    assert after.open_groups(6) == (1,)
    assert after.open_groups(7) == (0, 1)
