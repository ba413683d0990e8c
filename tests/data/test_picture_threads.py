"""Work on pictures shared out over threads: all at once, in order, and never silent about a failure."""

import threading

import pytest

from hf_transfer.data import picture_threads
from hf_transfer.data.picture_threads import on_all_cores


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_threads, "available_cores", lambda: 2)


def test_results_come_in_the_order_of_the_pictures_whoever_is_ready_first():
    second_is_ready = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert second_is_ready.wait(60)
        second_is_ready.set()
        return 10 * number

    assert list(on_all_cores(work, range(5))) == [0, 10, 20, 30, 40]


def test_as_many_are_worked_on_at_once_as_there_are_cores():
    # Each waits for another one: a single thread would never get past it.
    both = threading.Barrier(2, timeout=60)
    places = list(on_all_cores(lambda _: both.wait(), range(4)))
    assert sorted(places) == [0, 0, 1, 1]


def test_the_first_failure_is_raised():
    def work(number: int) -> int:
        if number % 2:
            raise ValueError(f"picture {number}")
        return number

    with pytest.raises(ValueError, match="picture 1"):
        list(on_all_cores(work, range(6)))


def test_no_pictures_are_no_work():
    assert list(on_all_cores(str, [])) == []
