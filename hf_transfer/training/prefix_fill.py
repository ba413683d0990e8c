"""Rows of pictures in batches, for their features to be kept.

Knows rows and views. Does not know what is done with a batch (`hf_transfer.training.prefix_build`).
"""

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import TrainingArguments

from hf_transfer.data.drawn_pictures import DrawnPicture, collate_pixels
from hf_transfer.data.visits import VisitedImages


class _Rows(Dataset):
    """Rows with their pixels, of a limited number of views."""

    def __init__(self, visited: VisitedImages, views: int):
        self.visited = visited
        self.views = views

    def __getitem__(self, row: int) -> tuple[int, torch.Tensor | DrawnPicture]:
        return row, self.visited.shown(row, self.views)["pixel_values"]


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


def _collate_rows(items: Sequence[tuple[int, torch.Tensor | DrawnPicture]]) -> tuple[torch.Tensor, dict[str, Any]]:
    return torch.tensor([row for row, _ in items]), collate_pixels([pixels for _, pixels in items])


def _batches_of_a_view(rows: range, batch_size: int, num_images: int) -> Iterator[list[int]]:
    """Cuts rows into batches, none of them of two views: one may be varied by a worker, the other by the device."""
    edges = [bisect.bisect_left(rows, edge) for edge in range(0, rows.stop + num_images, num_images)]
    for start, end in itertools.pairwise(edges):
        for position in range(start, end, batch_size):
            yield list(rows[position : min(position + batch_size, end)])
