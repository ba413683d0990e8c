"""Where training pictures are varied: chosen by the user, by the checkpoint of a resumed run, or by measuring.

Knows both ways as loaders that can be timed, and who decides. Does not know how a batch is varied
(`hf_transfer.data.batch_pixels`) or which policies a device can carry out (`hf_transfer.data.drawn_pictures`).
"""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader
from transformers import BaseImageProcessor, TrainingArguments

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.decode_once import EACH_VISIT, TrainingInput, Varied
from hf_transfer.data.drawn_pictures import reason_against_device
from hf_transfer.data.mixing import collate_images
from hf_transfer.data.transforms import AugmentationSettings
from hf_transfer.training.checkpoints import checkpoint_to_continue, recorded_value
from hf_transfer.training.plan import VARIED_ON
from hf_transfer.training.process_group import decided_by_main

_BATCHES_PER_WORKER = 4
_ROUNDS = 2
"""The better one counts: the first reads pictures that no one has read yet, and starts whatever starts once."""


def vary_where_faster(
    config: FinetuneConfig,
    args: TrainingArguments,
    pictures: TrainingInput,
    image_processor: BaseImageProcessor,
    augmentation: AugmentationSettings,
) -> TrainingInput:
    """Chooses where training pictures are varied; all processes get the choice of the main one.

    Args:
        config (`FinetuneConfig`):
            `augment_on`.
        args (`TrainingArguments`):
            The arguments of the run: its device, its batches and workers, its checkpoint.
        pictures (`TrainingInput`):
            The data sets, which vary on the CPU.
        image_processor (`BaseImageProcessor`):
            The checkpoint's own.
        augmentation (`AugmentationSettings`):
            How training pictures are varied.

    Returns:
        [`TrainingInput`]: the same pictures with the same draws, varied where it was chosen.
    """
    # In all processes, so that all of them end if there is no such checkpoint.
    checkpoint = checkpoint_to_continue(args).folder
    against = reason_against_device(image_processor, augmentation)
    if against is not None:
        return dataclasses.replace(pictures, varied=Varied("cpu", against))
    on_device = pictures.varied_on_device(image_processor, augmentation)

    def decide() -> Varied:
        settled = _settled(config.augment_on, args, pictures, checkpoint)
        return settled or faster(_measured(args, pictures, on_device))

    varied = decided_by_main(args.process_index == 0, decide)
    return dataclasses.replace(on_device if varied.place == "device" else pictures, varied=varied)


def faster(seconds_per_picture: Mapping[str, float]) -> Varied:
    """Returns the quicker place of `cpu` and `device`, the CPU where they are equal, with both figures."""
    place = "device" if seconds_per_picture["device"] < seconds_per_picture["cpu"] else "cpu"
    shown = [f"{1000 * seconds_per_picture[name]:.3g} ms a picture on the {name}" for name in ("cpu", "device")]
    return Varied(place, f"measured: {', '.join(shown)}", dict(seconds_per_picture))


def _settled(wish: str, args: TrainingArguments, pictures: TrainingInput, checkpoint: Path | None) -> Varied | None:
    """Returns the choice where there is nothing to measure."""
    if wish != "auto":
        return Varied(wish, "as you asked")
    # Measured anew it might come out the other way, and the run would be another one.
    recorded = recorded_value(checkpoint, VARIED_ON)
    if recorded is not None:
        return Varied(recorded, "as the run began")
    if args.device.type == "cpu":
        return Varied("cpu", "the device is no other")
    if pictures.decoded == EACH_VISIT:
        return Varied("cpu", "decoding at each visit takes longer than the rest")
    return None


def _measured(args: TrainingArguments, on_cpu: TrainingInput, on_device: TrainingInput) -> dict[str, float]:
    """Returns the seconds that a picture takes to be varied and on the device, by place."""
    ways = {"cpu": on_cpu, "device": on_device}
    rounds = [{place: _seconds_per_picture(args, way) for place, way in ways.items()} for _ in range(_ROUNDS)]
    return {place: min(seconds[place] for seconds in rounds) for place in ways}


def _seconds_per_picture(args: TrainingArguments, pictures: TrainingInput) -> float:
    batch_size = args.train_batch_size
    # Until each worker has made a batch, the time is that of their start.
    skipped = max(1, args.dataloader_num_workers)
    batches = skipped * _BATCHES_PER_WORKER
    loader = DataLoader(
        pictures.train,
        batch_size=batch_size,
        sampler=range(batches * batch_size),
        num_workers=args.dataloader_num_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
        pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
        collate_fn=collate_images,
        # A generator of its own: the order of the training's random numbers must not depend on this.
        generator=torch.Generator(),
    )
    start = 0.0
    for number, batch in enumerate(loader, start=1):
        there = send_to_device(batch, args.device, non_blocking=True)
        if pictures.vary is not None:
            pictures.vary(there["pictures"])
        if number == skipped:
            _wait_for(args.device)
            start = time.perf_counter()
    _wait_for(args.device)
    return (time.perf_counter() - start) / ((batches - skipped) * batch_size)


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
