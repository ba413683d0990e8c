"""Pictures through a model, batch by batch.

Knows decoding, batches, devices and precision. Does not know labels, nor what the logits are used for.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
from transformers import BaseImageProcessor, PreTrainedModel

from hf_transfer.data.images import to_rgb
from hf_transfer.data.picture_threads import on_all_cores
from hf_transfer.data.transforms import build_eval_transform
from hf_transfer.environment import available_cores
from hf_transfer.errors import UserError
from hf_transfer.full_precision import full_precision
from hf_transfer.models.batch_norm import has_batch_norm
from hf_transfer.quicker_calls import quicker_calls


def stream_logits(
    model: PreTrainedModel,
    image_processor: BaseImageProcessor,
    images: Sequence[Any],
    batch_size: int = 64,
    num_workers: int | None = None,
    device: str | torch.device | None = None,
) -> Iterator[np.ndarray | UserError]:
    """Predicts pictures one batch at a time; arguments as in [`~hf_transfer.evaluation.evaluator.predict_logits`].

    Yields:
        For every picture, in order, its logits of shape `(num_labels,)` in float32, or why it could not be read.
    """
    place = torch.device(device) if device is not None else _default_device()
    workers = _default_workers(place) if num_workers is None else num_workers
    pictures = _Pictures(images, image_processor)
    # A generator of its own: the loader draws a seed, and torch's global generator belongs to the training.
    loader = DataLoader(
        pictures, batch_size, num_workers=workers, collate_fn=list, generator=torch.Generator().manual_seed(0)
    )
    model.eval().to(place)
    layout = _pixel_layout(model, place)
    for batch in loader:
        tensors = [item for item in batch if isinstance(item, torch.Tensor)]
        logits = iter(_forward(model, _stacked(tensors, layout), place) if tensors else ())
        for item in batch:
            yield item if isinstance(item, UserError) else next(logits)


class _Pictures(Dataset):
    """Pictures as the processor's tensors.

    An error is returned rather than raised: one bad picture must not lose the others, and what a worker process raises
    reaches the main process as the text of a traceback.
    """

    def __init__(self, images: Sequence[Any], image_processor: BaseImageProcessor):
        self.images = images
        self.transform = build_eval_transform(image_processor)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor | UserError:
        try:
            return self.transform(to_rgb(self.images[index]))
        except UserError as error:
            return error

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor | UserError]:
        """Makes a batch: on all cores, unless worker processes take a core each."""
        if get_worker_info() is None:
            return list(on_all_cores(self.__getitem__, indices))
        return [self[index] for index in indices]


def _pixel_layout(model: PreTrainedModel, device: torch.device) -> torch.memory_format:
    """Returns the layout of pixels, which layers pass on. The model's own stays: whoever lent it may save it later.

    Networks with BatchNorm are faster channels-last, transformers are not (`benchmarks/results/channels_last.md`). On
    a GPU channels-last is for tensor cores, which full precision does without.
    """
    channels_last = device.type == "cpu" and has_batch_norm(model)
    return torch.channels_last if channels_last else torch.contiguous_format


def _stacked(pictures: list[torch.Tensor], layout: torch.memory_format) -> torch.Tensor:
    return torch.stack(pictures).contiguous(memory_format=layout)


def _forward(model: PreTrainedModel, pixel_values: torch.Tensor, device: torch.device) -> np.ndarray:
    try:
        with torch.inference_mode(), full_precision(), quicker_calls(device):
            logits = model(pixel_values=pixel_values.to(device)).logits.float().cpu()
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{len(pixel_values)} pictures at a time do not fit into the memory of {device}.",
            hint=f"--batch_size {max(1, len(pixel_values) // 2)}",
        ) from error
    if not bool(torch.isfinite(logits).all()):
        raise UserError(
            "The model gives scores that are not finite numbers, so its weights are damaged or its training diverged.",
            hint="train again with a smaller --learning_rate",
        )
    return logits.numpy()


def _default_device() -> torch.device:
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def _default_workers(device: torch.device) -> int:
    """Without an accelerator the cores that would decode are the cores that compute."""
    return 0 if device.type == "cpu" else min(8, available_cores())
