"""What the head of a frozen network sees, and how good a linear head on it becomes.

Shared by the benchmarks of feature extraction. Heads are trained as the pipeline does by default (AdamW, six epochs,
batches of 32, warm-up and cosine) and judged by their best accuracy on held-out features.
"""

from collections.abc import Iterator

import datasets
import torch
import torch.nn.functional as F
from torch import nn

from hf_transfer.allocator import keep_freed_memory
from hf_transfer.data.image_dataset import ImageClassificationDataset
from hf_transfer.data.mixing import collate_images
from hf_transfer.models.batch_norm import has_batch_norm
from hf_transfer.models.checkpoint import Checkpoint
from hf_transfer.models.head_inputs import head_inputs

EPOCHS, BATCH = 6, 32


def features(
    checkpoint: Checkpoint,
    split: datasets.Dataset,
    transform,
    seed: int | None,
    view: int,
    autocast: torch.dtype | None = None,
) -> torch.Tensor:
    """Returns what the head sees of every picture in one view, of shape `(num_images, num_features)`, in float32."""
    keep_freed_memory()
    pictures = ImageClassificationDataset(split, transform, seed)
    layout = torch.channels_last if has_batch_norm(checkpoint.model) else torch.contiguous_format
    model = checkpoint.model.to(memory_format=layout)

    def batches() -> Iterator[torch.Tensor]:
        for start in range(0, len(split), 64):
            visits = range(view * len(split) + start, view * len(split) + min(start + 64, len(split)))
            pixels = collate_images([pictures[visit] for visit in visits])["pixel_values"]
            yield pixels.contiguous(memory_format=layout)

    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        [seen] = head_inputs(model, checkpoint.head_parameter_names, batches())
    return seen


def best_accuracy(
    views: list[torch.Tensor], labels: torch.Tensor, held_out: tuple, seed: int, rate: float, epochs: int = EPOCHS
) -> float:
    """Trains a linear head and returns its best accuracy on held-out features."""
    found = logits_by_epoch(views, labels, held_out[0], seed, rate, epochs)
    return max((logits.argmax(1) == held_out[1]).float().mean().item() for logits in found)


def logits_by_epoch(
    views: list[torch.Tensor],
    labels: torch.Tensor,
    held_out: torch.Tensor,
    seed: int,
    rate: float,
    epochs: int = EPOCHS,
    weight_decay: float = 0.01,
) -> Iterator[torch.Tensor]:
    """Trains a linear head and yields the logits of held-out features after each epoch."""
    torch.manual_seed(seed)
    head = nn.Linear(views[0].shape[1], int(labels.max()) + 1)
    groups = [{"params": [head.weight], "weight_decay": weight_decay}, {"params": [head.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    steps = epochs * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    for epoch in range(epochs):
        for rows in torch.randperm(len(labels)).split(BATCH):
            loss = F.cross_entropy(head(views[epoch % len(views)][rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        yield head(held_out).detach()
