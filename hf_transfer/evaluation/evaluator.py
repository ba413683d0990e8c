"""A saved model measured on a split: loss, metrics, per-class results, confusion matrix.

Knows how pictures go through a model and what is measured on the logits. Does not know where the pictures come from,
nor how a metric is computed (`hf_transfer.evaluation.metrics`).
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch.utils.data import DataLoader, Dataset
from transformers import BaseImageProcessor, PreTrainedModel

from hf_transfer.data.images import to_rgb
from hf_transfer.data.transforms import build_eval_transform
from hf_transfer.errors import UserError
from hf_transfer.evaluation.classifier import load_classifier
from hf_transfer.evaluation.metrics import ClassificationMetrics


@dataclass(frozen=True)
class ClassResult:
    """How one class fared; `None` where a number is not defined, which is not the same as 0."""

    label: str
    count: int
    """Pictures of this class."""
    precision: float | None
    """Share of the pictures predicted as this class that are of it; `None` if none was."""
    recall: float | None
    """Share of the pictures of this class that were predicted as it; `None` if there are none."""
    f1: float | None
    """`2 TP / (2 TP + FP + FN)`; `None` if the class occurs neither among the pictures nor among the predictions."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured on one split with the model as reloaded from its files."""

    split: str
    num_images: int
    metrics: dict[str, float]
    """`loss` is the mean cross-entropy in nats, without weights or smoothing; the rest as [`ClassificationMetrics`]."""
    per_class: tuple[ClassResult, ...]
    """In the order of the labels: those of the data set, then those that only the model has."""
    confusion_matrix: tuple[tuple[int, ...], ...]
    """Rows are true labels, columns predicted ones, in the order of `per_class`."""
    accuracy_interval: tuple[float, float]
    """95 % Wilson score interval: what the number of pictures leaves open, and nothing else."""
    seconds: float
    """From the first picture to the last logit, without loading the model."""


def predict_logits(
    model: PreTrainedModel,
    image_processor: BaseImageProcessor,
    images: datasets.Dataset | Sequence[Any],
    *,
    batch_size: int = 64,
    num_workers: int | None = None,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Predicts pictures, in order.

    Args:
        model (`PreTrainedModel`):
            An image classifier; moved to the device and left there, in evaluation mode.
        image_processor (`BaseImageProcessor`):
            The model's own.
        images (`datasets.Dataset` or `Sequence`):
            A split with a column `image`, or anything that [`~hf_transfer.data.images.to_rgb`] opens.
        batch_size (`int`, *optional*, defaults to 64):
            Pictures at a time.
        num_workers (`int`, *optional*):
            Processes that decode; by default none without an accelerator, else one for each core, at most 8.
        device (`str` or `torch.device`, *optional*):
            By default the accelerator if there is one.

    Returns:
        `np.ndarray` of shape `(num_images, num_labels)`, float32.

    Raises:
        [`~hf_transfer.errors.UserError`]: for the first picture that cannot be read, if a batch does not fit into the
        device's memory, or if the model gives scores that are not finite.
    """
    column = images["image"] if isinstance(images, datasets.Dataset) else images
    rows = []
    for answer in stream_logits(model, image_processor, column, batch_size, num_workers, device):
        if isinstance(answer, UserError):
            raise answer
        rows.append(answer)
    return np.stack(rows) if rows else np.empty((0, model.config.num_labels), dtype=np.float32)


def evaluate_model(
    model_dir: str | Path,
    split: datasets.Dataset,
    split_name: str,
    label_names: Sequence[str],
    *,
    extra_metrics: Sequence[str] = (),
    batch_size: int = 64,
    num_workers: int | None = None,
    device: str | torch.device | None = None,
) -> Evaluation:
    """Measures a model as it lies in its files.

    Args:
        model_dir (`str` or `Path`):
            Folder with the model and its image processor, or a Hub id.
        split (`datasets.Dataset`):
            Columns `image` and `label`, the latter an index into `label_names`.
        split_name (`str`):
            For the result.
        label_names (`Sequence[str]`):
            Labels of the data set. They are matched to the model's by name, so their order may differ, and the model
            may know more; a picture may then be predicted as one of those.
        extra_metrics (`Sequence[str]`, *optional*):
            Further metrics, as [`~hf_transfer.evaluation.metrics.ClassificationMetrics`] takes them.
        batch_size, num_workers, device:
            As in [`predict_logits`].

    Returns:
        [`Evaluation`]

    Raises:
        [`~hf_transfer.errors.UserError`]: where the model does not know a label of the data set, or cannot be loaded.
    """
    classifier = load_classifier(model_dir)
    order = match_labels(classifier.label_names, label_names, str(model_dir))
    names = [classifier.label_names[index] for index in order]
    compute_metrics = ClassificationMetrics(names, extra_metrics)
    labels = np.asarray(split["label"], dtype=np.int64)
    start = time.perf_counter()
    logits = predict_logits(
        classifier.model,
        classifier.image_processor,
        split,
        batch_size=batch_size,
        num_workers=num_workers,
        device=device,
    )[:, order]
    seconds = time.perf_counter() - start
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels))
    predictions = logits.argmax(axis=1)
    correct = int((predictions == labels).sum())
    matrix = confusion_matrix(labels, predictions, labels=range(len(names)))
    return Evaluation(
        split=split_name,
        num_images=len(labels),
        metrics={"loss": float(loss), **compute_metrics.compute(logits, labels)},
        per_class=_class_results(names, labels, predictions),
        confusion_matrix=tuple(tuple(int(count) for count in row) for row in matrix),
        accuracy_interval=wilson_interval(correct, len(labels)),
        seconds=round(seconds, 3),
    )


def match_labels(model_labels: Sequence[str], label_names: Sequence[str], model: str) -> list[int]:
    """Finds the model's logits that belong to the labels of a data set, by name.

    Returns:
        `list[int]`: indices of the model's logits, first those of `label_names` in their order, then the others.

    Raises:
        [`~hf_transfer.errors.UserError`]: for a label that the model does not know, or knows twice.
    """
    places: dict[str, list[int]] = {}
    for index, name in enumerate(model_labels):
        places.setdefault(name, []).append(index)
    unknown = [name for name in label_names if name not in places]
    if unknown:
        raise UserError(
            f"The model {model} does not know the label {_some(unknown, 5)} of the data set.",
            f"its {len(model_labels)} labels: {_some(model_labels, 10)}",
            "rename the classes of the data set as the model calls them, or train on this data set first",
        )
    for name in label_names:
        if len(places[name]) > 1:
            raise UserError(f"The model {model} has two labels called {name!r}, so no name tells them apart.")
    chosen = [places[name][0] for name in label_names]
    taken = set(chosen)
    return chosen + [index for index in range(len(model_labels)) if index not in taken]


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Returns the 95 % Wilson score interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    interval = binomtest(correct, total).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def stream_logits(
    model: PreTrainedModel,
    image_processor: BaseImageProcessor,
    images: Sequence[Any],
    batch_size: int = 64,
    num_workers: int | None = None,
    device: str | torch.device | None = None,
) -> Iterator[np.ndarray | UserError]:
    """Predicts pictures one batch at a time; arguments as in [`predict_logits`].

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
    for batch in loader:
        tensors = [item for item in batch if isinstance(item, torch.Tensor)]
        logits = iter(_forward(model, torch.stack(tensors), place) if tensors else ())
        for item in batch:
            yield item if isinstance(item, UserError) else next(logits)


def _some(names: Sequence[str], limit: int) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more


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


def _forward(model: PreTrainedModel, pixel_values: torch.Tensor, device: torch.device) -> np.ndarray:
    try:
        with torch.inference_mode(), _full_precision():
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


@contextmanager
def _full_precision() -> Iterator[None]:
    """Keeps float32 what it says on GPUs: convolutions use TF32 by default, and training may have allowed more."""
    before = torch.backends.fp32_precision
    torch.backends.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.backends.fp32_precision = before


def _default_device() -> torch.device:
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def _default_workers(device: torch.device) -> int:
    """Without an accelerator the cores that would decode are the cores that compute."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if device.type == "cpu" else min(8, cores)


def _class_results(names: Sequence[str], labels: np.ndarray, predictions: np.ndarray) -> tuple[ClassResult, ...]:
    precision, recall, f1, count = precision_recall_fscore_support(
        labels, predictions, labels=range(len(names)), zero_division=np.nan
    )
    return tuple(
        ClassResult(name, int(count[index]), *(_number(values[index]) for values in (precision, recall, f1)))
        for index, name in enumerate(names)
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
