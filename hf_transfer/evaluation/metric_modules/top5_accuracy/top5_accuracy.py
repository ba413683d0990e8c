"""Top-5 accuracy as an `evaluate` module that needs no network.

Knows the ranked and the true label numbers. Does not know logits: ranking them first keeps what `evaluate` has to
store at five numbers a picture, however many classes there are.
"""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
Top-5 accuracy is the share of pictures whose true label is among the five that the model ranks highest.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `list` of `int`):
        For every picture the five label numbers that the model ranks highest.
    references (`list` of `int`):
        True label numbers.

Returns:
    `dict`: `top5_accuracy` (`float`), from 0 to 1.

Examples:

    >>> metric.compute(predictions=[[0, 1, 2, 3, 4], [5, 4, 3, 2, 1]], references=[4, 0])
    {'top5_accuracy': 0.5}
"""

_CITATION = """
@article{russakovsky2015imagenet,
    title = {{ImageNet} Large Scale Visual Recognition Challenge},
    author = {Russakovsky, Olga and others},
    journal = {International Journal of Computer Vision},
    volume = {115},
    pages = {211--252},
    year = {2015}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Top5Accuracy(evaluate.Metric):
    """The share of pictures whose true label is among the five ranked highest."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.List(datasets.Value("int64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[list[int]], references: list[int]) -> dict[str, float]:
        found = np.asarray(predictions) == np.asarray(references)[:, None]
        return {"top5_accuracy": float(found.any(axis=1).mean())}
