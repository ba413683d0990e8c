"""Items worked on side by side: made in their order, threads shared out and given back."""

import threading

import pytest
import torch

from hf_transfer.lanes import lane_pool, lanes_on, side_by_side

CPU = torch.device("cpu")
PATIENCE = 60
"""Seconds, after which a test that waits for another thread has failed."""


def new_thread_has() -> int:
    """Returns with how many threads kernels run in a thread that is made now."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.usefixtures("four_threads")
def test_two_items_are_under_way_at_once_and_share_the_threads():
    meeting, found, threads = threading.Barrier(2), [], []

    def work(item: int) -> None:
        meeting.wait(PATIENCE)
        found.append(item)
        threads.append(torch.get_num_threads())

    side_by_side(work, range(6), 2)
    assert sorted(found) == list(range(6))
    assert threads == [2] * 6
    assert torch.get_num_threads() == new_thread_has() == 4


@pytest.mark.usefixtures("four_threads")
def test_items_are_made_one_at_a_time_and_in_their_order():
    made, making = [], threading.Lock()

    def items():
        for item in range(50):
            assert making.acquire(blocking=False)
            made.append(item)
            making.release()
            yield item

    side_by_side(lambda item: None, items(), 2)
    assert made == list(range(50))


def test_a_single_lane_is_the_thread_that_calls():
    here = []
    side_by_side(lambda item: here.append(threading.get_ident()), range(3), 1)
    assert here == [threading.get_ident()] * 3


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("where", ["work", "items"])
def test_an_error_ends_all_lanes(where: str):
    done = []

    def items():
        for item in range(1000):
            if where == "items" and item == 5:
                raise ValueError("no more")
            yield item

    def work(item: int) -> None:
        if where == "work" and item == 5:
            raise ValueError("no more")
        done.append(item)
        threading.Event().wait(0.001)

    with pytest.raises(ValueError, match="no more"):
        side_by_side(work, items(), 2)
    assert len(done) < 100
    assert torch.get_num_threads() == new_thread_has() == 4


def test_an_accelerator_and_a_single_thread_have_one_lane(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert (lanes_on(CPU), lanes_on(torch.device("cuda"))) == (2, 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert lanes_on(CPU) == 1


@pytest.mark.usefixtures("four_threads")
def test_a_pool_shares_out_threads_and_gives_them_back_after_an_error():
    with lane_pool(2) as pool:
        assert list(pool.map(lambda _: torch.get_num_threads(), range(4))) == [2] * 4
    assert torch.get_num_threads() == new_thread_has() == 4
    with pytest.raises(ValueError, match="no more"), lane_pool(2):
        raise ValueError("no more")
    assert torch.get_num_threads() == new_thread_has() == 4


@pytest.mark.usefixtures("four_threads")
def test_each_thread_of_a_pool_has_one_of_its_own_at_least():
    with lane_pool(6) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
