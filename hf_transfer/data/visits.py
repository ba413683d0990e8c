"""Pictures that are looked at again: which view a visit shows, and visits that need no pixels at all.

With a limit of views, the random numbers of a picture in epoch `e` are those of epoch `e % views`, so that whatever is
computed of a view may be kept. A row number, `view * num_images + index`, names picture and view. The first view may
be one that is not varied.

Knows rows and visits. Does not know what is kept of a row.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from hf_transfer.data.drawn_pictures import collate_pixels
from hf_transfer.data.image_dataset import ImageClassificationDataset

NO_ROW = -1


class VisitedImages(Dataset):
    """Visits of the pictures of a split, with pixels or without.

    Workers share its switches, so that both may change while they run.

    Args:
        pictures (`ImageClassificationDataset`):
            The pictures.
        split (`str`):
            The name that visits go by in batches: `{split}_visits`.
        first_view (`ImageClassificationDataset`, *optional*):
            The same pictures as the first of a limited number of views shows them; by default as any other.
    """

    def __init__(
        self, pictures: ImageClassificationDataset, split: str, first_view: ImageClassificationDataset | None = None
    ):
        self.pictures = pictures
        self.first_view = first_view
        self.split_name = split
        self.labels = pictures.labels
        self._switches = torch.tensor([1, 0]).share_memory_()

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[visit] for visit in range(len(self)))

    def show(self, pixels: bool, views: int | None) -> None:
        """Chooses whether visits come with pixels, and of how many views; `None` for a new one in each epoch."""
        self._switches.copy_(torch.tensor([int(pixels), views or 0]))

    def row(self, visit: int, views: int | None) -> int:
        """Returns the row of a visit."""
        return visit % (views * len(self.pictures)) if views else visit

    def shown(self, row: int, views: int | None) -> dict[str, Any]:
        """Returns what a row shows, with pixels; `views` as for `show`."""
        if self.first_view is not None and views and row < len(self):
            return self.first_view[row]
        return self.pictures[row]

    def __getitem__(self, visit: int) -> dict[str, Any]:
        pixels, views = self._switches.tolist()
        row = self.row(visit, views)
        if pixels:
            return self.shown(row, views) | {f"{self.split_name}_visits": visit, "rows": row}
        label = int(self.labels[visit % len(self.pictures)])
        return {"labels": label, f"{self.split_name}_visits": visit, "rows": NO_ROW}


def collate_visits(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stacks labels, visits and rows, and what shows the pictures where all have pixels.

    `rows` says which picture and view the pixels show; without pixels it holds `NO_ROW`.
    """
    names = ["labels", "rows", *(name for name in items[0] if name.endswith("_visits"))]
    batch: dict[str, Any] = {name: torch.tensor([item[name] for item in items], dtype=torch.int64) for name in names}
    if all("pixel_values" in item for item in items):
        batch |= collate_pixels([item["pixel_values"] for item in items])
    else:
        batch["rows"].fill_(NO_ROW)
    return batch
