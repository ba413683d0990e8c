"""Whether a model is right as often as it says: confidence held against accuracy.

Knows scores and labels of one split. Does not mend anything: a temperature fitted on validation data is another
matter, and none is applied here.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

BINS = 15
"""As in Guo et al. 2017 (arXiv:1706.04599), whose figures others compare theirs with."""


@dataclass(frozen=True)
class CalibrationBin:
    """The pictures whose confidence lies in one stretch."""

    low: float
    """Not in the bin, but for the first, which begins at 0."""
    high: float
    """In the bin."""
    count: int
    confidence: float | None
    """The mean; `None` where there are no pictures."""
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy; confidence is the highest probability after softmax."""

    expected_error: float
    """ECE: mean over the pictures of |accuracy - confidence| of their bin (Naeini et al. 2015)."""
    mean_confidence: float
    bins: tuple[CalibrationBin, ...]
    """Of equal width."""


def measure_calibration(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Calibration:
    """Measures how far confidence and accuracy lie apart.

    Args:
        logits (`np.ndarray` of shape `(num_images, num_labels)`):
            Scores before softmax.
        labels (`np.ndarray` of shape `(num_images,)`):
            True label numbers.
        bins (`int`, *optional*, defaults to 15):
            How many bins of equal width.
    """
    probabilities = softmax(np.asarray(logits, dtype=np.float64), axis=1)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    # Softmax may round a sure answer to a hair above 1.
    places = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    found = tuple(
        _bin(float(edges[place]), float(edges[place + 1]), confidence[places == place], correct[places == place])
        for place in range(bins)
    )
    gaps = [one.count * abs(one.accuracy - one.confidence) for one in found if one.count]  # type: ignore[operator]
    return Calibration(float(sum(gaps) / len(labels)), float(confidence.mean()), found)


def _bin(low: float, high: float, confidence: np.ndarray, correct: np.ndarray) -> CalibrationBin:
    if not len(confidence):
        return CalibrationBin(low, high, 0, None, None)
    return CalibrationBin(low, high, len(confidence), float(confidence.mean()), float(correct.mean()))
