"""A peer: timm's training step, driven as a library: its transforms and loader, task, optimizer and schedule.

Where the assets hold a twin of the checkpoint in timm's layout (`timm_NAME`), timm's own network trains; else the
network of transformers does, since timm has no architecture for the same weights, and the result says so. There is one
setting: timm's script has no defaults for fine-tuning.
"""

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from peer_files import Files, PictureFiles, read_files
from peer_job import (
    EVAL_BATCH,
    GENTLE,
    SENSIBLE_BATCH,
    Clock,
    Job,
    Logits,
    Pixels,
    finish,
    freeze_body,
    has_batch_norm,
    load_network,
    predict,
    read_job,
    read_pixels,
    sensible_rate,
    workers,
)
from safetensors.torch import load_file
from timm.data import create_loader
from timm.layers import freeze_batch_norm_2d
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from timm.utils import random_seed
from torch import nn

from hf_transfer.training.cpu_precision import bfloat16_is_faster


def network_of(checkpoint: Path, num_labels: int, frozen: bool) -> tuple[nn.Module, str]:
    """Returns the network, frozen up to its head where asked, and a note on whose it is."""
    twin = checkpoint.with_name(f"timm_{checkpoint.name}")
    if not twin.exists():
        network = load_network(checkpoint, num_labels)
        if frozen:
            freeze_body(network)
        return Logits(network), "transformers' network: timm has no architecture for these weights"
    weights = {
        name.removeprefix("timm_model."): tensor for name, tensor in load_file(twin / "model.safetensors").items()
    }
    model = timm.create_model(checkpoint.name, pretrained=False)
    model.load_state_dict(weights)
    if frozen:
        model.requires_grad_(False)
    model.reset_classifier(num_labels)
    return model, "timm's own network"


def loader(files: Files, split: str, pixels: Pixels) -> Any:
    """Returns the batches of a split, with timm's transforms."""
    training = split == "train"
    return create_loader(
        PictureFiles(files.rows[split]),
        input_size=(3, pixels.crop, pixels.crop),
        batch_size=SENSIBLE_BATCH if training else EVAL_BATCH,
        is_training=training,
        scale=GENTLE["scale"],
        ratio=GENTLE["ratio"],
        color_jitter=0.0,
        interpolation=pixels.interpolation.value,
        mean=tuple(pixels.mean),
        std=tuple(pixels.std),
        crop_pct=pixels.crop / pixels.shorter_side,
        num_workers=workers(),
        use_prefetcher=False,
        device=torch.device("cpu"),
    )


def train(model: nn.Module, batches: Any, validation: Any, job: Job, layout: Any) -> Clock:
    """Trains with timm's task, optimizer and schedule, and looks at the validation pictures after each epoch."""
    rate = sensible_rate(model, job.task)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=rate, weight_decay=0.01)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=job.epochs,
        warmup_epochs=max(1, job.epochs // 10) if job.epochs > 1 else 0,
        warmup_lr=rate / 100,
        step_on_epochs=False,
        updates_per_epoch=len(batches),
    )
    task = ClassificationTask(model, device=torch.device("cpu"), verbose=False)
    clock, updates = Clock(), 0
    for _ in range(job.epochs):
        with clock.training():
            task.train()
            for pixel_values, labels in batches:
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_faster()):
                    loss = task(pixel_values.contiguous(memory_format=layout), labels)["loss"]
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                updates += 1
                scheduler.step_update(num_updates=updates)
        with clock.validation():
            logits = predict(model, validation, layout)
            right = np.mean(logits.argmax(1) == np.array([label for _, label in validation.dataset.rows]))
            print(f"validation accuracy {right:.4f}", flush=True)
    return clock


def run(job: Job) -> None:
    """Trains, and predicts the test pictures."""
    random_seed(job.seed)
    files, pixels = read_files(job.data), read_pixels(job.checkpoint)
    model, note = network_of(job.checkpoint, len(files.label_names), job.task == "frozen")
    layout = torch.channels_last if has_batch_norm(model) else torch.contiguous_format
    nn.Module.to(model, memory_format=layout)
    if job.task == "frozen":
        model = freeze_batch_norm_2d(model)
    clock = train(model, loader(files, "train", pixels), loader(files, "validation", pixels), job, layout)
    finish(job, predict(model, loader(files, "test", pixels), layout), clock, note)


if __name__ == "__main__":
    run(read_job())
