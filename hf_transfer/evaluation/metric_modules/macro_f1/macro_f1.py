"""Macro-averaged F1 as an `evaluate` module that needs no network.

Knows predicted and true label numbers. Does not know label names, logits or images.
"""

import datasets
import evaluate
from sklearn.metrics import f1_score

_DESCRIPTION = """
Macro-F1 is the mean of the F1 scores of the classes that occur among the references or the predictions. The F1 score
of a class is `2 TP / (2 TP + FP + FN)`, so a class that occurs but is never predicted right counts as 0. A class that
occurs on neither side has no F1 score and is left out of the mean.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `int`):
        Predicted label numbers.
    references (`list` of `int`):
        True label numbers.

Returns:
    `dict`: `macro_f1` (`float`), from 0 to 1.

Examples:

    >>> metric.compute(predictions=[0, 0, 1, 1], references=[0, 1, 1, 1])
    {'macro_f1': 0.7333333333333334}
"""

_CITATION = """
@article{opitz2019macro,
    title = {Macro F1 and Macro F1},
    author = {Opitz, Juri and Burst, Sebastian},
    journal = {arXiv preprint arXiv:1911.03347},
    year = {2019}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MacroF1(evaluate.Metric):
    """The mean F1 score of the classes that occur among the references or the predictions."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
            reference_urls=["https://scikit-learn.org/stable/modules/generated/sklearn.metrics.f1_score.html"],
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0.0))}
