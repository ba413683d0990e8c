"""What a model takes for what, and what always giving one answer would score.

Knows counts of true and predicted labels. Does not know models or pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import f1_score

MOST_CONFUSIONS = 10


@dataclass(frozen=True)
class Confusion:
    """Pictures of one class that were taken for another."""

    label: str
    predicted: str
    count: int
    share: float
    """Of the pictures of the class."""


@dataclass(frozen=True)
class MajorityBaseline:
    """The score of always answering with the class that is most frequent in training."""

    label: str
    metrics: dict[str, float]
    """`accuracy`, `balanced_accuracy` and `macro_f1`, as they are measured for the model."""


def top_confusions(names: Sequence[str], matrix: np.ndarray, most: int = MOST_CONFUSIONS) -> tuple[Confusion, ...]:
    """Lists the most frequent confusions, the most frequent first; of equal ones in the order of the labels.

    Args:
        names (`Sequence[str]`):
            The labels.
        matrix (`np.ndarray` of shape `(num_labels, num_labels)`):
            Counts; rows are true labels, columns predicted ones.
        most (`int`, *optional*, defaults to 10):
            How many are listed.
    """
    wrong = np.array(matrix)
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    order = np.argsort(-wrong[rows, columns], kind="stable")[:most]
    totals = np.asarray(matrix).sum(axis=1)
    return tuple(
        Confusion(names[row], names[column], int(wrong[row, column]), float(wrong[row, column] / totals[row]))
        for row, column in zip(rows[order], columns[order], strict=True)
    )


def majority_baseline(names: Sequence[str], train_counts: Sequence[int], labels: np.ndarray) -> MajorityBaseline:
    """Measures the answer that needs no model.

    Args:
        names (`Sequence[str]`):
            The labels; of those beyond `train_counts` no picture was trained on.
        train_counts (`Sequence[int]`):
            Training pictures of each class; of equally frequent ones the first is taken.
        labels (`np.ndarray` of shape `(num_images,)`):
            True label numbers of the split.
    """
    choice = int(np.argmax(train_counts))
    answers = np.full(len(labels), choice)
    present = np.unique(labels)
    metrics = {
        "accuracy": float(np.mean(labels == choice)),
        # Every picture of one class is right and none of the others; scikit-learn's own warns of a class without any.
        "balanced_accuracy": float(np.mean(present == choice)),
        "macro_f1": float(f1_score(labels, answers, average="macro", zero_division=0.0)),
    }
    return MajorityBaseline(names[choice], metrics)
