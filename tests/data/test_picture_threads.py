"""Work on pictures shared out over threads: all at once, in order, and never silent about a failure."""

import itertools
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


def test_no_more_than_some_are_ahead_of_what_is_used():
    begun = []
    made = on_all_cores(lambda number: begun.append(number) or number, itertools.count())
    assert next(made) == 0
    assert len(begun) <= 2 * picture_threads._AHEAD
    made.close()
    assert len(begun) <= 2 * picture_threads._AHEAD


def test_what_nobody_waits_for_is_not_begun():
    begun, go_on = [], threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number:
            assert go_on.wait(60)
        return number

    made = on_all_cores(work, range(1000))
    assert next(made) == 0
    threading.Timer(0.2, go_on.set).start()
    made.close()
    # The two that had been begun are finished.
    assert len(begun) <= 3


def test_callers_share_the_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(picture_threads, "available_cores", lambda: 5)
    seen: set[int] = set()
    list(on_all_cores(lambda _: seen.add(threading.get_ident()), range(200), callers=2))
    assert len(seen) <= 2
    assert threading.get_ident() not in seen
    assert list(on_all_cores(lambda _: threading.get_ident(), range(2), callers=5)) == [threading.get_ident()] * 2
