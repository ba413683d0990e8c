"""Two ways timed in turns: the turn that warms up does not count, and a ratio is that of the medians."""

import pytest


def test_ways_take_turns_and_the_first_one_does_not_count():
    from in_turns import in_turns

    seconds, asked = iter([100, 200, 4, 2, 9, 3, 6, 2]), []

    def timed(other: bool) -> float:
        asked.append(other)
        return float(next(seconds))

    turns = in_turns(timed, 3)
    assert asked == [False, True] * 4
    assert (turns.usual, turns.other) == ((4, 9, 6), (2, 3, 2))
    assert turns.medians == (6, 2)
    assert turns.ratio == pytest.approx(3)
    assert turns.times_as_fast() == "3.00 (2.00 to 3.00)"
