"""An optimizer step is made of the same pictures however it is cut into processes and accumulation steps."""

import pytest
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from torch.utils.data import DataLoader

from hf_transfer.data.sampling import WholeBatchSampler


class Visits:
    """A data set whose items are the visits themselves."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, visit: int) -> int:
        return visit


def loaders(num_images: int, batch: int, accumulation: int, processes: int, workers: int = 0) -> list[DataLoader]:
    """Returns the loader of every process, prepared by accelerate."""
    return [
        prepare_data_loader(
            DataLoader(
                Visits(num_images),
                batch,
                sampler=WholeBatchSampler(num_images, batch * accumulation * processes, seed=5),
                collate_fn=list,
                num_workers=workers,
            ),
            num_processes=processes,
            process_index=index,
            put_on_device=False,
            dispatch_batches=False,
            use_seedable_sampler=True,
        )
        for index in range(processes)
    ]


def steps(num_images: int, batch: int, accumulation: int, processes: int, epoch: int = 0) -> list[list[int]]:
    """Returns the visits of each optimizer step, over all processes."""
    prepared = loaders(num_images, batch, accumulation, processes)
    batches = []
    for loader in prepared:
        loader.set_epoch(epoch)
        batches.append(list(loader))
    count = len(batches[0])
    assert {len(own) for own in batches} == {count}
    assert count % accumulation == 0
    return [
        sorted(visit for own in batches for part in own[start : start + accumulation] for visit in part)
        for start in range(0, count, accumulation)
    ]


@pytest.mark.parametrize("num_images", [5, 16, 30, 50])
@pytest.mark.parametrize("epoch", [0, 3])
def test_one_trajectory(num_images: int, epoch: int):
    expected = steps(num_images, 16, 1, 1, epoch)
    for batch, accumulation, processes in [(4, 4, 1), (8, 1, 2), (4, 2, 2), (2, 8, 1), (4, 1, 4)]:
        assert steps(num_images, batch, accumulation, processes, epoch) == expected


@pytest.mark.parametrize(("num_images", "size"), [(50, 16), (16, 16), (5, 16), (33, 16), (7, 1)])
def test_every_picture_once_and_whole_batches(num_images: int, size: int):
    visits = list(WholeBatchSampler(num_images, size, seed=0))
    assert sorted(visits[:num_images]) == list(range(num_images))
    assert len(visits) % size == 0
    assert len(visits) - num_images < size
    assert len(visits) == len(WholeBatchSampler(num_images, size, seed=0))
    assert visits[num_images:] == (visits * size)[: len(visits) - num_images] if len(visits) > num_images else True


def test_every_epoch_and_seed_has_an_order_of_its_own():
    orders = set()
    for seed in range(3):
        sampler = WholeBatchSampler(20, 4, seed=seed)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            visits = list(sampler)
            assert sorted(visits) == list(range(20 * epoch, 20 * epoch + 20))
            orders.add(tuple(visit % 20 for visit in visits))
    assert len(orders) == 9


def test_an_epoch_can_be_visited_again():
    sampler = WholeBatchSampler(20, 4, seed=0)
    sampler.set_epoch(2)
    later = list(sampler)
    sampler.set_epoch(0)
    assert list(sampler) != later
    sampler.set_epoch(2)
    assert list(sampler) == later


@pytest.mark.parametrize("processes", [1, 2])
def test_set_epoch_goes_through_accelerate(processes: int):
    for loader in loaders(32, 4, 1, processes):
        loader.set_epoch(6)
        visits = [visit for batch in loader for visit in batch]
        assert len(visits) == 32 // processes
        assert all(visit // 32 == 6 for visit in visits)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_skips_what_was_done(processes: int, workers: int):
    undisturbed = loaders(40, 4, 1, processes)
    for loader, other in zip(loaders(40, 4, 1, processes, workers), undisturbed, strict=True):
        other.set_epoch(2)
        loader.set_epoch(2)
        resumed = skip_first_batches(loader, 3)
        resumed.set_epoch(2)
        whole = list(other)
        assert len(whole) > 3
        assert list(resumed) == whole[3:]
        for later in (other, loader):
            later.set_epoch(3)
        assert list(loader) == list(other)


def test_set_epoch_after_skipping_arrives_in_one_process_only():
    """accelerate 1.15: `set_epoch` does not get through a `SkipBatchSampler` around a `BatchSamplerShard`.

    Trainer skips first and sets the epoch after, so whoever resumes has to set it on the loader before. When this
    fails with epoch 4 in both places, accelerate hands the epoch on and nobody has to.
    """
    found = []
    for processes in (1, 2):
        resumed = skip_first_batches(loaders(40, 4, 1, processes)[0], 2)
        resumed.set_epoch(4)
        found.append({visit // 40 for batch in resumed for visit in batch})
    assert found == [{4}, {0}]
