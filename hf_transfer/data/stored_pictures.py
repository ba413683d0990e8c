"""Pictures read from a store, with the original behind it.

Knows what a row of a store stands for. A row that was damaged on the disk is made anew from the original, which gives
the same picture. Does not know when a store is made (`hf_transfer.data.decode_once`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from hf_transfer.data.exact_pixels import from_levels
from hf_transfer.data.picture_store import PictureStore


class _Stored:
    """Rows of a store; `original` makes what a damaged one stood for."""

    def __init__(self, store: PictureStore, original: Callable[[int], Any]):
        self.store = store
        self.original = original
        self._told = False

    def _row(self, number: int) -> np.ndarray | None:
        row = self.store.row(number)
        if row is None and not self._told:
            self._told = True
            print(
                f"note: {self.store.folder} is damaged, as picture {number} shows; such pictures are decoded anew.",
                flush=True,
            )
        return row


class StoredPictures(_Stored):
    """Training pictures as 8-bit pixels of shape `(height, width, 3)`."""

    def __call__(self, number: int) -> np.ndarray | Image.Image:
        row = self._row(number)
        return self.original(number) if row is None else row


class StoredPixels(_Stored, Sequence[torch.Tensor]):
    """What the processor made of each picture: its floats, or the levels that a table turns into them.

    Args:
        store (`PictureStore`):
            Rows of shape `(3, height, width)`.
        original (`Callable[[int], torch.Tensor]`):
            The processor's output for a row.
        table (`np.ndarray` of shape `(3, 256)`, *optional*):
            From [`~hf_transfer.data.exact_pixels.value_table`], where rows are levels.
        processor (`str`):
            The processor, as its JSON.
    """

    def __init__(
        self,
        store: PictureStore,
        original: Callable[[int], torch.Tensor],
        table: np.ndarray | None,
        processor: str,
    ):
        super().__init__(store, original)
        self.table = table
        self.processor = processor

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, number: Any) -> Any:
        return self(number)

    def __call__(self, number: int) -> torch.Tensor:
        row = self._row(number)
        if row is None:
            return self.original(number)
        return torch.from_numpy(row if self.table is None else from_levels(row, self.table))


def as_it_is(pixels: torch.Tensor) -> torch.Tensor:
    """The transform of pixels that are ready."""
    return pixels
