"""From what a loader hands over to the pixels that a network sees.

Knows that a training batch may still have to be varied, mixed and laid out on its device. Does not know how
(`hf_transfer.data.batch_pixels`, `hf_transfer.data.mixing`), nor what is trained (`hf_transfer.training.trainer`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from hf_transfer.data.batch_pixels import BatchPixels
from hf_transfer.data.mixing import MixingCollator
from hf_transfer.training.resumable import ResumableTrainer


class PictureTrainer(ResumableTrainer):
    """Makes pixels of batches on the device; `train_collator`, `vary` and `memory_format` say how."""

    train_collator: Callable | None
    vary: BatchPixels | None
    memory_format: torch.memory_format

    def pixels(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Returns the pixels of a batch that lies on the device, varied where that is still to be done."""
        values = batch.get("pixel_values")
        if values is None:
            assert self.vary is not None, "a data set that only draws comes with what varies its pictures"
            values = self.vary(batch["pictures"])
        return values.contiguous(memory_format=self.memory_format)

    def get_train_dataloader(self):
        """Builds the training loader with `train_collator`; Trainer knows one collator for training and evaluation."""
        evaluation_collator = self.data_collator
        self.data_collator = self.train_collator or evaluation_collator
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = evaluation_collator

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        if "pixel_values" in inputs or "pictures" in inputs:
            inputs["pixel_values"] = self.pixels(inputs)
            inputs.pop("pictures", None)
        if "mixing_seed" in inputs:
            assert isinstance(self.train_collator, MixingCollator)
            inputs["pixel_values"], inputs["labels"] = self.train_collator.mix(
                inputs["pixel_values"], inputs["labels"], inputs.pop("mixing_seed")
            )
        return inputs

    def floating_point_ops(self, inputs: dict[str, torch.Tensor | Any]) -> int:
        """Counts nothing for a batch without pixels, whose frozen layers do not run."""
        if "pictures" in inputs:
            # Trainer asks with the batch as it came from the loader.
            assert self.vary is not None
            inputs = {"pixel_values": torch.empty(len(inputs["labels"]), *self.vary.shape, device="meta")}
        return super().floating_point_ops(inputs) if "pixel_values" in inputs else 0
