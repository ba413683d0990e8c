"""Balanced accuracy as an `evaluate` module that needs no network.

Knows predicted and true label numbers. Does not know label names, logits or images.
"""

import datasets
import evaluate
from sklearn.metrics import recall_score

_DESCRIPTION = """
Balanced accuracy is the mean, over the classes that occur among the references, of the share of pictures of that class
that are predicted right (its recall). Every class counts the same, however rare. A class that is only ever predicted
has no recall and is left out of the mean; its pictures count against the classes that they belong to.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `int`):
        Predicted label numbers.
    references (`list` of `int`):
        True label numbers.

Returns:
    `dict`: `balanced_accuracy` (`float`), from 0 to 1; not adjusted for chance.

Examples:

    >>> metric.compute(predictions=[0, 0, 0, 0, 0], references=[0, 0, 0, 0, 1])
    {'balanced_accuracy': 0.5}
"""

_CITATION = """
@inproceedings{brodersen2010balanced,
    title = {The Balanced Accuracy and Its Posterior Distribution},
    author = {Brodersen, Kay Henning and Ong, Cheng Soon and Stephan, Klaas Enno and Buhmann, Joachim M.},
    booktitle = {20th International Conference on Pattern Recognition},
    pages = {3121--3124},
    year = {2010}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class BalancedAccuracy(evaluate.Metric):
    """The mean recall over the classes that occur among the references."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
            reference_urls=[
                "https://scikit-learn.org/stable/modules/generated/sklearn.metrics.balanced_accuracy_score.html"
            ],
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        # scikit-learn's own balanced_accuracy_score is the same number, with a warning at every prediction of a class
        # that the references lack; on a small validation split that is nothing to warn of.
        occurring = sorted(set(references))
        recall = recall_score(references, predictions, labels=occurring, average="macro")
        return {"balanced_accuracy": float(recall)}
