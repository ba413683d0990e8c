"""What a linear head on the frozen checkpoint reaches on the same pictures: the least that training has to beat.

Knows how the features of a checkpoint are had and judged: pixels as the saved model sees them, without variation, and
the head solved for (`hf_transfer.training.head_solver`), its strength chosen on validation data. Does not touch the
model that was trained.
"""

import time
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BaseImageProcessor

from hf_transfer.data.image_data import ImageData
from hf_transfer.evaluation.evaluator import predict_logits
from hf_transfer.evaluation.metrics import ClassificationMetrics
from hf_transfer.models.checkpoint import Checkpoint, load_checkpoint
from hf_transfer.models.linear_head import linear_head
from hf_transfer.training.head_solver import solve_head


def measure_linear_probe(
    model: str, revision: str | None, data: ImageData, image_processor: BaseImageProcessor, batch_size: int
) -> dict[str, Any]:
    """Measures a linear head on the features of a checkpoint.

    Args:
        model (`str`):
            The checkpoint, as the user named it.
        revision (`str`, *optional*):
            Its commit.
        data (`ImageData`):
            The head is solved on the training split, chosen on the validation split and measured on both others.
        image_processor (`BaseImageProcessor`):
            The one of the trained model.
        batch_size (`int`):
            Pictures at a time.

    Returns:
        `dict`: `metrics` by split as an evaluation has them, `strength` (scikit-learn's C), `seconds`, and `problem`,
        which says why there are none (`None` where there are).
    """
    start = time.perf_counter()
    checkpoint = load_checkpoint(model, label_names=data.label_names, revision=revision)
    width = _leave_out_head(checkpoint)
    if width is None:
        return _nothing(checkpoint)
    features = {}
    for split in ("train", "validation", "test"):
        seen = predict_logits(checkpoint.model, image_processor, data.split(split), batch_size=batch_size)
        if seen.shape[1:] != (width,):
            return _nothing(checkpoint)
        features[split] = torch.from_numpy(seen)
    labels = {split: np.asarray(data.split(split)["label"], dtype=np.int64) for split in features}
    metrics = ClassificationMetrics(data.label_names)

    def accuracy(weight: torch.Tensor, bias: torch.Tensor) -> float:
        answers = (features["validation"] @ weight.T + bias).argmax(dim=1).numpy()
        return float(np.mean(answers == labels["validation"]))

    def loss(weight: torch.Tensor, bias: torch.Tensor, split: str = "validation") -> float:
        logits = (features[split] @ weight.T + bias).double()
        return float(nn.functional.cross_entropy(logits, torch.from_numpy(labels[split])))

    rows = torch.from_numpy(labels["train"])
    solved = solve_head(features["train"], rows, 1, len(data.label_names), accuracy, loss=loss)
    measured = {}
    for split in ("validation", "test"):
        logits = features[split] @ solved.weight.T + solved.bias
        held_out_loss = loss(solved.weight, solved.bias, split)
        measured[split] = {"loss": held_out_loss, **metrics.compute(logits.numpy(), labels[split])}
    seconds = round(time.perf_counter() - start, 3)
    return {"metrics": measured, "strength": solved.strength, "seconds": seconds, "problem": None}


def _leave_out_head(checkpoint: Checkpoint) -> int | None:
    """Lets the model give what its head would see; returns how many numbers that are, `None` for another head."""
    name = linear_head(checkpoint.model, checkpoint.head_parameter_names)
    if name is None:
        return None
    layer: Any = checkpoint.model.get_submodule(name)
    checkpoint.model.set_submodule(name, nn.Identity())
    return layer.in_features


def _nothing(checkpoint: Checkpoint) -> dict[str, Any]:
    problem = f"the head of {checkpoint.architecture} is not a single linear layer on its features"
    return {"metrics": {}, "strength": None, "seconds": None, "problem": problem}
