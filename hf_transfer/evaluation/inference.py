"""Pictures through a model, batch by batch.

Knows decoding, batches, devices and precision. Does not know labels, nor what the logits are used for.
"""

import itertools
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
from hf_transfer.lanes import lane_pool, lanes_on
from hf_transfer.models.batch_norm import has_batch_norm
from hf_transfer.quicker_calls import quicker_calls

_STRETCH = 4
"""Batches after which answers are handed out where some are worked on side by side."""


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
    model.eval().to(place)
    passes = _Passes(model, place)
    lanes = 1 if workers else lanes_on(place)
    if lanes == 1 or batch_size < lanes or len(images) <= batch_size // lanes:
        yield from _batch_after_batch(passes, pictures, batch_size, workers)
    else:
        yield from _in_lanes(passes, pictures, batch_size, lanes)


class _Passes:
    """Batches of pictures through a model."""

    def __init__(self, model: PreTrainedModel, device: torch.device):
        self.model = model
        self.device = device
        self.layout = _pixel_layout(model, device)

    def answers(self, batch: Sequence[torch.Tensor | UserError]) -> list[np.ndarray | UserError]:
        """Returns the logits of each picture, or why it could not be read; in full precision where that is set."""
        tensors = [item for item in batch if isinstance(item, torch.Tensor)]
        logits = iter(_forward(self.model, _stacked(tensors, self.layout), self.device) if tensors else ())
        return [item if isinstance(item, UserError) else next(logits) for item in batch]


def _batch_after_batch(
    passes: _Passes, pictures: "_Pictures", batch_size: int, workers: int
) -> Iterator[np.ndarray | UserError]:
    # A generator of its own: the loader draws a seed, and torch's global generator belongs to the training.
    loader = DataLoader(
        pictures, batch_size, num_workers=workers, collate_fn=list, generator=torch.Generator().manual_seed(0)
    )
    for batch in loader:
        with full_precision():
            answers = passes.answers(batch)
        yield from answers


def _in_lanes(passes: _Passes, pictures: "_Pictures", batch_size: int, lanes: int) -> Iterator[np.ndarray | UserError]:
    """Opens pictures and passes them on in each of some threads, as many at once as `batch_size` in all."""
    size, stretch = batch_size // lanes, _STRETCH * batch_size

    def look_at(start: int, end: int) -> list[np.ndarray | UserError]:
        return passes.answers(pictures.opened(range(start, min(start + size, end)), callers=lanes))

    for begin in range(0, len(pictures), stretch):
        end = min(begin + stretch, len(pictures))
        # Set for all threads at once, and never while someone else computes.
        with full_precision(), lane_pool(lanes) as pool:
            found = list(pool.map(look_at, range(begin, end, size), itertools.repeat(end)))
        for answers in found:
            yield from answers


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
            picture = self.images[index]
            return picture if isinstance(picture, torch.Tensor) else self.transform(to_rgb(picture))
        except UserError as error:
            return error

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor | UserError]:
        """Makes a batch: on all cores, unless worker processes take a core each."""
        return self.opened(indices) if get_worker_info() is None else [self[index] for index in indices]

    def opened(self, indices: Sequence[int], callers: int = 1) -> list[torch.Tensor | UserError]:
        """Makes a batch on the cores that are left to each of some callers."""
        return list(on_all_cores(self.__getitem__, indices, callers))


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
        with torch.inference_mode(), quicker_calls(device):
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
