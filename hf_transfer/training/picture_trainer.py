"""From what a loader hands over to the pixels that a network sees.

Knows that a training batch may still have to be varied, mixed and laid out on its device. Does not know how
(`hf_transfer.data.batch_pixels`, `hf_transfer.data.mixing`), nor what is trained (`hf_transfer.training.trainer`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.utils import send_to_device

from hf_transfer.data.batch_pixels import BatchPixels
from hf_transfer.data.drawn_pictures import collate_pixels
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

    def pixels_of(self, pictures: Any, count: int) -> torch.Tensor:
        """Returns the pixels of the first pictures of a data set on the device, as many as `count` or all."""
        shown = [pictures[number]["pixel_values"] for number in range(min(count, len(pictures)))]
        return self.pixels(send_to_device(collate_pixels(shown), self.args.device, non_blocking=True))

    def get_train_dataloader(self):
        """Builds the training loader with `train_collator`; Trainer knows one collator for training and evaluation."""
        evaluation_collator = self.data_collator
        self.data_collator = self.train_collator or evaluation_collator
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = evaluation_collator

    def _prepare_inputs(self, inputs):
        if "pictures" in inputs:
            # First of all: DeepSpeed's half precision, which Trainer casts floats to, has too few bits for a box.
            inputs = self._finished(send_to_device(inputs, self.args.device))
        inputs = super()._prepare_inputs(inputs)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = self.pixels(inputs)
        return inputs

    def _finished(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Returns a batch as the loader would have made it, had its pictures been varied there."""
        others = {name: value for name, value in batch.items() if name not in ("pictures", "mixing_seed")}
        pixels, labels = self.pixels(batch), batch["labels"]
        if "mixing_seed" in batch:
            assert isinstance(self.train_collator, MixingCollator)
            pixels, labels = self.train_collator.mix(pixels, labels, batch["mixing_seed"])
        return others | {"pixel_values": pixels, "labels": labels}

    def floating_point_ops(self, inputs: dict[str, torch.Tensor | Any]) -> int:
        """Counts nothing for a batch without pixels, whose frozen layers do not run."""
        if "pictures" in inputs:
            # Trainer asks with the batch as it came from the loader.
            assert self.vary is not None
            inputs = {"pixel_values": torch.empty(len(inputs["labels"]), *self.vary.shape, device="meta")}
        return super().floating_point_ops(inputs) if "pixel_values" in inputs else 0
