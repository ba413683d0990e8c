"""A saved model measured on a split: loss, metrics, per-class results, confusion matrix.

Knows what is measured on the logits. Does not know where the pictures come from, how they go through the model
(`hf_transfer.evaluation.inference`) or how a metric is computed (`hf_transfer.evaluation.metrics`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from tqdm import tqdm
from transformers import BaseImageProcessor, PreTrainedModel

from hf_transfer.errors import UserError
from hf_transfer.evaluation.calibration import Calibration, measure_calibration
from hf_transfer.evaluation.classifier import load_classifier
from hf_transfer.evaluation.confusions import Confusion, MajorityBaseline, majority_baseline, top_confusions
from hf_transfer.evaluation.inference import stream_logits
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
    recall_interval: tuple[float, float] | None = None
    """95 % Wilson score interval of the recall; `None` if there are no pictures."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured on one split with the model as reloaded from its files."""

    split: str
    num_images: int
    metrics: dict[str, float]
    """`loss` is the mean cross-entropy in nats, without weights or smoothing; the rest is `ClassificationMetrics`'."""
    per_class: tuple[ClassResult, ...]
    """In the order of the labels: those of the data set, then those that only the model has."""
    confusion_matrix: tuple[tuple[int, ...], ...]
    """Rows are true labels, columns predicted ones, in the order of `per_class`."""
    accuracy_interval: tuple[float, float]
    """95 % Wilson score interval: what the number of pictures leaves open, and nothing else."""
    seconds: float
    """From the first picture to the last logit, without loading the model."""
    calibration: Calibration | None = None
    top_confusions: tuple[Confusion, ...] = ()
    majority: MajorityBaseline | None = None
    """`None` where it was not said what was trained on."""


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
            One or more: a split with a column `image`, anything that [`~hf_transfer.data.images.to_rgb`] opens, or
            tensors that the processor has made of pictures.
        batch_size (`int`, *optional*, defaults to 64):
            Pictures at a time.
        num_workers (`int`, *optional*):
            Processes that decode; by default one for each core, at most 8, and none without an accelerator. Where
            there are none, as many threads do as there are cores.
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
    answers = stream_logits(model, image_processor, column, batch_size, num_workers, device)
    for answer in tqdm(answers, total=len(column), unit=" pictures", leave=False, disable=None):
        if isinstance(answer, UserError):
            raise answer
        rows.append(answer)
    return np.stack(rows)


def evaluate_model(
    model_dir: str | Path,
    split: datasets.Dataset,
    split_name: str,
    label_names: Sequence[str],
    *,
    train_counts: Sequence[int] | None = None,
    extra_metrics: Sequence[str] = (),
    batch_size: int = 64,
    num_workers: int | None = None,
    device: str | torch.device | None = None,
    processed: Callable[[BaseImageProcessor], Sequence[torch.Tensor] | None] | None = None,
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
        train_counts (`Sequence[int]`, *optional*):
            Training pictures of each of `label_names`, for the majority-class baseline.
        extra_metrics (`Sequence[str]`, *optional*):
            Further metrics, as [`~hf_transfer.evaluation.metrics.ClassificationMetrics`] takes them.
        batch_size, num_workers, device:
            As in [`predict_logits`].
        processed (`Callable`, *optional*):
            Is asked whether the pictures have been through the model's processor before, and for what it made of them.

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
    made_before = None if processed is None else processed(classifier.image_processor)
    logits = predict_logits(
        classifier.model,
        classifier.image_processor,
        split if made_before is None else made_before,
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
        calibration=measure_calibration(logits, labels),
        top_confusions=top_confusions(names, matrix),
        majority=None if train_counts is None else majority_baseline(names, train_counts, labels),
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
        plural = "s" if len(unknown) > 1 else ""
        raise UserError(
            f"The model {model} does not know the label{plural} {_some(unknown, 5)} of the data set.",
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


def _some(names: Sequence[str], limit: int) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more


def _class_results(names: Sequence[str], labels: np.ndarray, predictions: np.ndarray) -> tuple[ClassResult, ...]:
    precision, recall, f1, count = precision_recall_fscore_support(
        labels, predictions, labels=range(len(names)), zero_division=np.nan
    )
    hits = np.bincount(labels[labels == predictions], minlength=len(names))
    return tuple(
        ClassResult(
            name,
            int(count[index]),
            _number(precision[index]),
            _number(recall[index]),
            _number(f1[index]),
            recall_interval=wilson_interval(int(hits[index]), int(count[index])) if count[index] else None,
        )
        for index, name in enumerate(names)
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
