"""Metrics of predicted labels, computed by `evaluate` modules.

Knows which modules are shipped (`metric_modules/`), how a further one is loaded and called, and what a metric must
return. Does not know models or images; the numbers that need more than logits and labels are in
`hf_transfer.evaluation.evaluator`.
"""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
from transformers import EvalPrediction

from hf_transfer.errors import UserError

SHIPPED = ("accuracy", "balanced_accuracy", "macro_f1", "top5_accuracy")
"""Metrics that are always reported; the last only where there are more than five classes."""

_RESERVED = (*SHIPPED, "loss")


class ClassificationMetrics:
    """Computes the shipped metrics and those that the user named; `Trainer`'s `compute_metrics`.

    Args:
        label_names (`Sequence[str]`):
            The labels, in the order of the logits.
        extra (`Sequence[str]`, *optional*):
            Further metrics as `evaluate.load` names them: a metric of the Hub (`"f1"`, `"someone/metric"`), which runs
            code from there, or a local path. They are loaded and tried out here, so that a mistake shows before any
            training. A metric that takes `average` and would score one of two classes only (`"binary"`) gets
            `"macro"`: no label of an image classifier is the positive one.

    Raises:
        [`~hf_transfer.errors.UserError`]: where a metric cannot be loaded, or does not turn predicted labels into
        numbers.
    """

    def __init__(self, label_names: Sequence[str], extra: Sequence[str] = ()):
        self.label_names = tuple(label_names)
        num_classes = len(self.label_names)
        names = SHIPPED if num_classes > 5 else SHIPPED[:-1]
        _refuse_undefined(extra, names, num_classes)
        self._shipped = {name: _load_shipped(name) for name in names}
        self._extra: list[_ExtraMetric] = []
        taken = set(_RESERVED)
        for name in dict.fromkeys(extra):
            if name not in names:
                metric = _load_extra(name, num_classes, taken)
                taken |= set(metric.keys.values())
                self._extra.append(metric)

    def __call__(self, eval_prediction: EvalPrediction) -> dict[str, float]:
        logits: Any = eval_prediction.predictions
        labels: Any = eval_prediction.label_ids
        # Where a model returns hidden states too, Trainer hands over a tuple with the logits first.
        return self.compute(logits[0] if isinstance(logits, tuple) else logits, labels)

    def compute(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Computes all metrics.

        Args:
            logits (`np.ndarray` of shape `(num_images, num_labels)`):
                Scores; the highest is the prediction, of equal ones the first.
            labels (`np.ndarray` of shape `(num_images,)`):
                True label numbers.

        Returns:
            `dict[str, float]`: `accuracy`, `balanced_accuracy`, `macro_f1`, with more than five classes
            `top5_accuracy`, and what the further metrics return.
        """
        logits, labels = np.asarray(logits), np.asarray(labels)
        expected = (len(labels), len(self.label_names))
        if logits.shape != expected or len(labels) == 0:
            raise ValueError(f"logits have the shape {logits.shape}, labels and label names ask for {expected}")
        predictions = logits.argmax(axis=1)
        results: dict[str, float] = {}
        for name, module in self._shipped.items():
            answers = _five_highest(logits) if name == "top5_accuracy" else predictions
            results |= _as_floats(name, module.compute(predictions=answers, references=labels))
        for metric in self._extra:
            results |= metric.compute(predictions, labels)
        return results


@dataclass(frozen=True)
class _ExtraMetric:
    """A metric that the user named, and how it is called."""

    name: str
    module: Any
    arguments: Mapping[str, Any]
    keys: Mapping[str, str]
    """For each key that the module returns, the key in our results."""

    def compute(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        results = _call(self.name, self.module, self.arguments, predictions, labels)
        return {self.keys.get(key, key): value for key, value in results.items()}


def _refuse_undefined(extra: Sequence[str], available: Sequence[str], num_classes: int) -> None:
    for name in extra:
        if name in SHIPPED and name not in available:
            raise UserError(
                f"--metrics {name}: with {num_classes} classes the true one is always among the five highest.",
                "top5_accuracy where there are more than five classes",
                f"drop {name}",
            )


def _load_shipped(name: str) -> Any:
    import evaluate  # late: it takes seconds, and a mistake in the command line should show before

    folder = Path(str(resources.files("hf_transfer.evaluation") / "metric_modules" / name))
    try:
        # In memory, or every process of a run would write to one cache folder and wait for file locks.
        return evaluate.load(str(folder), keep_in_memory=True)
    except PermissionError as error:
        raise UserError(
            f"evaluate cannot write to its cache: {error}.",
            "a folder that can be written to",
            "HF_HOME=/some/folder before the command",
        ) from error


def _load_extra(name: str, num_classes: int, taken: Collection[str]) -> _ExtraMetric:
    import evaluate

    try:
        with _offline_like_the_hub():
            module = evaluate.load(name, keep_in_memory=True)
    except ImportError as error:
        raise UserError(f"--metrics {name} needs another package: {_first_line(error)}") from error
    except Exception as error:  # the code of a metric is somebody else's and may fail in any way
        raise _cannot_load(name, error) from error
    features = module.features[0] if isinstance(module.features, list) else module.features
    if set(features) != {"predictions", "references"}:
        raise UserError(
            f"--metrics {name} is computed from {', '.join(sorted(features))}.",
            "metrics that are computed from predicted and true labels (predictions, references)",
        )
    arguments = _arguments(module)
    # Every class once, all of them right: enough to see what comes back.
    trial = np.arange(num_classes)
    keys: dict[str, str] = {}
    for key in _call(name, module, arguments, trial, trial):
        keys[key] = key if key not in taken else f"{_leaf(name)}_{key}"
        if keys[key] in taken:
            raise UserError(f"--metrics {name} returns {key!r}, and another metric does so already.")
    return _ExtraMetric(name, module, arguments, keys)


def _arguments(module: Any) -> dict[str, Any]:
    """Chooses arguments for a module: no class is the positive one, and an empty class is no reason for a warning."""
    # `compute` takes anything; only `_compute` says what a module knows.
    parameters = inspect.signature(module._compute).parameters
    arguments: dict[str, Any] = {}
    if "average" in parameters and parameters["average"].default == "binary":
        arguments["average"] = "macro"
    if "zero_division" in parameters and parameters["zero_division"].default == "warn":
        arguments["zero_division"] = 0
    return arguments


def _call(
    name: str, module: Any, arguments: Mapping[str, Any], predictions: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    try:
        results = module.compute(predictions=predictions, references=labels, **arguments)
    except Exception as error:  # the code of a metric is somebody else's and may fail in any way
        raise UserError(
            f"--metrics {name} cannot be computed from label numbers: {_first_line(error)}",
            "metrics that compare predicted with true label numbers",
        ) from error
    return _as_floats(name, results)


def _as_floats(name: str, results: Any) -> dict[str, float]:
    """Returns plain floats, which YAML and JSON can hold."""
    if not isinstance(results, Mapping):
        raise UserError(f"--metrics {name} returns {type(results).__name__}.", "metrics that return named numbers")
    floats = {}
    for key, value in results.items():
        if np.ndim(value) != 0 or not np.issubdtype(np.asarray(value).dtype, np.number):
            raise UserError(
                f"--metrics {name}: its {key!r} is not one number but {type(value).__name__}.",
                "metrics that return named numbers",
            )
        floats[str(key)] = float(value)
    return floats


def _five_highest(logits: np.ndarray) -> np.ndarray:
    """Returns label numbers of shape `(num_images, 5)`, of equal scores the first, as `argmax` does."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :5]


@contextmanager
def _offline_like_the_hub() -> Iterator[None]:
    """Step-around: evaluate 0.4.6 goes to the network in spite of HF_HUB_OFFLINE; it reads a variable of its own when
    it is imported (evaluate#567 is the open thread on offline use). Goes when `evaluate.load` heeds HF_HUB_OFFLINE.
    """
    import evaluate

    before = evaluate.config.HF_EVALUATE_OFFLINE
    evaluate.config.HF_EVALUATE_OFFLINE = before or huggingface_hub.is_offline_mode()
    try:
        yield
    finally:
        evaluate.config.HF_EVALUATE_OFFLINE = before


def _cannot_load(name: str, error: Exception) -> UserError:
    shipped = ", ".join(SHIPPED)
    if isinstance(error, FileNotFoundError | ConnectionError):
        offline = " (HF_HUB_OFFLINE is set)" if huggingface_hub.is_offline_mode() else ""
        return UserError(
            f"--metrics {name}: there is no such folder, and no metric of that name could be fetched from the Hub"
            f"{offline}.",
            f"{shipped} (always reported, no network needed); a metric of the Hub, which needs the network the first "
            "time; the folder of a metric module",
            f"check the spelling and the network, or drop --metrics {name}",
        )
    return UserError(
        f"--metrics {name} cannot be loaded: {_first_line(error)}",
        f"{shipped} (always reported); a metric that `evaluate.load` can load",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _leaf(name: str) -> str:
    return Path(name).stem
