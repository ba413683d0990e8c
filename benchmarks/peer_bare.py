"""The limits: a bare training loop on tensors that lie ready, and one bare pass over the pictures.

`--task full` trains the network as our `full` does (AdamW, clipping, cosine, the same batches, precision and memory
layout), on training tensors made once by our own pipeline before the clock of its epochs starts: no step waits for a
picture. It is the limit for the rate of training, and every epoch sees the same view. `--task inference` decodes and
classifies each training picture `--epochs` times (the views) and each validation and test picture once: the limit for
extraction.
"""

from typing import Any

import numpy as np
import torch
from peer_files import Files, PictureFiles, read_files
from peer_job import (
    EVAL_BATCH,
    SENSIBLE,
    SENSIBLE_BATCH,
    Clock,
    Job,
    Logits,
    eval_loader,
    eval_transform,
    finish,
    has_batch_norm,
    load_network,
    predict,
    read_job,
    read_pixels,
    sensible_rate,
    train_transform,
    workers,
)
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, get_cosine_schedule_with_warmup, set_seed

from hf_transfer.training.cpu_precision import bfloat16_is_faster


def memory_layout(model: nn.Module) -> Any:
    """Returns the layout that suits the network, as ours does."""
    return torch.channels_last if has_batch_norm(model) else torch.contiguous_format


def infer(job: Job) -> None:
    """Passes every picture through the whole network."""
    files, pixels = read_files(job.data), read_pixels(job.checkpoint)
    model = Logits(load_network(job.checkpoint))
    layout = memory_layout(model)
    nn.Module.to(model, memory_format=layout)
    varied = PictureFiles(files.rows["train"], train_transform(pixels, SENSIBLE))
    for _ in range(job.epochs):
        predict(model, DataLoader(varied, EVAL_BATCH, num_workers=workers()), layout)
    still = eval_transform(pixels, SENSIBLE)
    predict(model, eval_loader(files, "validation", still), layout)
    finish(job, predict(model, eval_loader(files, "test", still), layout), Clock())


def ready_tensors(job: Job, files: Files) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns one view of each training picture from our own pipeline, and the labels."""
    from hf_transfer.config import FinetuneConfig
    from hf_transfer.data.image_dataset import ImageClassificationDataset
    from hf_transfer.data.loading import load_image_data
    from hf_transfer.data.proportions import choose_proportions
    from hf_transfer.data.transforms import POLICIES, build_train_transform

    data = load_image_data(FinetuneConfig(model="none", dataset=str(files.folder)))
    processor = AutoImageProcessor.from_pretrained(job.checkpoint)
    processor = choose_proportions(processor, data.train, "auto").image_processor
    varied = build_train_transform(processor, POLICIES["light"])
    pictures = ImageClassificationDataset(data.train, varied, job.seed)
    # Not by iterating over it: its visits have no end.
    views = [pictures[visit]["pixel_values"] for visit in range(len(pictures))]
    return torch.stack(views), torch.tensor(pictures.labels)


def train(model: nn.Module, pixel_values: torch.Tensor, labels: torch.Tensor, job: Job) -> Clock:
    """Trains in a loop of nothing but the step."""
    optimizer = torch.optim.AdamW(model.parameters(), sensible_rate(model, job.task), weight_decay=0.01, fused=True)
    steps = job.epochs * -(-len(labels) // SENSIBLE_BATCH)
    scheduler = get_cosine_schedule_with_warmup(optimizer, round(0.1 * steps), steps)
    layout, clock = memory_layout(model), Clock()
    model.train()
    for _ in range(job.epochs):
        with clock.training():
            for batch in torch.randperm(len(labels)).split(SENSIBLE_BATCH):
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_faster()):
                    logits = model(pixel_values[batch].contiguous(memory_format=layout))
                cross_entropy(logits.float(), labels[batch]).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
    return clock


def run(job: Job) -> None:
    """Trains, and predicts the test pictures."""
    set_seed(job.seed)
    files, pixels = read_files(job.data), read_pixels(job.checkpoint)
    model = Logits(load_network(job.checkpoint, len(files.label_names)))
    nn.Module.to(model, memory_format=memory_layout(model))
    clock = train(model, *ready_tensors(job, files), job)
    test: np.ndarray = predict(
        model, eval_loader(files, "test", eval_transform(pixels, SENSIBLE)), memory_layout(model)
    )
    finish(job, test, clock)


if __name__ == "__main__":
    asked = read_job()
    infer(asked) if asked.task == "inference" else run(asked)
