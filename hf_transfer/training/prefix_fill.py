"""Rows of pictures in batches, and batches worked on side by side.

On a CPU two batches are under way at once, each of half the size and with half of the threads. What runs in one thread
whatever the number of them, such as drawing a picture or entering a layer, then no longer keeps the others waiting,
and no thread waits for another at the end of every layer (`benchmarks/results/lanes.md`).

Knows rows, batches and threads. Does not know what is done with a batch (`hf_transfer.training.prefix_build`).
"""

import bisect
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import TrainingArguments

from hf_transfer.data.drawn_pictures import DrawnPicture, collate_pixels
from hf_transfer.data.visits import VisitedImages

LANES = 2
_Item = TypeVar("_Item")


class _Rows(Dataset):
    """Rows with their pixels, of a limited number of views."""

    def __init__(self, visited: VisitedImages, views: int):
        self.visited = visited
        self.views = views

    def __getitem__(self, row: int) -> tuple[int, torch.Tensor | DrawnPicture]:
        return row, self.visited.shown(row, self.views)["pixel_values"]


def lanes_on(device: torch.device) -> int:
    """Returns how many batches are worked on at once: one where the processor only hands out work."""
    return min(LANES, torch.get_num_threads()) if device.type == "cpu" else 1


def row_batches(
    visited: VisitedImages, views: int, rows: range, args: TrainingArguments, lanes: int
) -> Iterable[tuple[torch.Tensor, dict[str, Any]]]:
    """Returns batches of row numbers and what `collate_pixels` makes of their pictures, none of them of two views.

    Args:
        visited ([`~hf_transfer.data.visits.VisitedImages`]):
            A split.
        views (`int`):
            Views of each picture.
        rows (`range`):
            Those of this process.
        args (`TrainingArguments`):
            Say how many pictures fit and who draws them.
        lanes (`int`):
            How many batches are worked on at once.
    """
    return DataLoader(
        _Rows(visited, views),
        batch_sampler=_batches_of_a_view(rows, max(1, args.per_device_eval_batch_size // lanes), len(visited)),
        num_workers=args.dataloader_num_workers,
        collate_fn=_collate_rows,
        pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
        # A generator of its own: the order of the training's random numbers must not depend on the cache.
        generator=torch.Generator(),
    )


def side_by_side(work: Callable[[_Item], None], items: Iterable[_Item], lanes: int) -> None:
    """Works on items in some threads, which share the threads of torch's kernels among them.

    Items are made one at a time, in their order, so that they may draw random numbers.

    Args:
        work (`Callable`):
            Draws no random numbers; what it does for one item must not depend on the others.
        items (`Iterable`):
            What to work on.
        lanes (`int`):
            How many items are worked on at once; a single one in the thread that calls.

    Raises:
        BaseException: what `work` or the making of an item raised first; items that have been begun are finished.
    """
    if lanes == 1:
        for item in items:
            work(item)
        return
    remaining, making, ended = iter(items), threading.Lock(), threading.Event()
    kernel_threads = torch.get_num_threads()

    def lane() -> None:
        # Of this thread alone, but torch also keeps it for threads that are yet to begin.
        torch.set_num_threads(max(1, kernel_threads // lanes))
        try:
            while not ended.is_set():
                with making:
                    taken = list(itertools.islice(remaining, 1))
                if not taken:
                    return
                work(taken[0])
        except BaseException:
            ended.set()
            raise

    try:
        with ThreadPoolExecutor(lanes) as pool:
            try:
                for running in [pool.submit(lane) for _ in range(lanes)]:
                    running.result()
            finally:
                ended.set()
    finally:
        torch.set_num_threads(kernel_threads)


def _collate_rows(items: Sequence[tuple[int, torch.Tensor | DrawnPicture]]) -> tuple[torch.Tensor, dict[str, Any]]:
    return torch.tensor([row for row, _ in items]), collate_pixels([pixels for _, pixels in items])


def _batches_of_a_view(rows: range, batch_size: int, num_images: int) -> Iterator[list[int]]:
    """Cuts rows into batches, none of them of two views: one may be varied by a worker, the other by the device."""
    edges = [bisect.bisect_left(rows, edge) for edge in range(0, rows.stop + num_images, num_images)]
    for start, end in itertools.pairwise(edges):
        for position in range(start, end, batch_size):
            yield list(rows[position : min(position + batch_size, end)])
