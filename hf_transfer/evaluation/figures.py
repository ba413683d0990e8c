"""The confusion matrix and the reliability diagram as pictures.

Knows how an evaluation is drawn. Does not measure anything.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import font_manager, ft2font
from matplotlib.figure import Figure

from hf_transfer.atomic import write_atomically
from hf_transfer.evaluation.evaluator import Evaluation

MOST_NAMES = 40
"""Beyond that names on the axes would cover each other, and class numbers stand in for some of them."""
MOST_COUNTS = 20
_LONGEST_NAME = 24
_BLUE, _GREY = "#0072B2", "#777777"


def plot_confusion_matrix(evaluation: Evaluation, path: Path) -> None:
    """Writes the confusion matrix, each row coloured by its shares, with counts in it where there is room."""
    matrix = np.asarray(evaluation.confusion_matrix)
    names = [result.label for result in evaluation.per_class]
    side = min(12.0, max(4.5, 2.2 + 0.38 * len(names)))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, label="share of the class", shrink=0.8)
    ticks = np.unique(np.linspace(0, len(names) - 1, min(len(names), MOST_NAMES)).round().astype(int))
    shown = drawable_names(names) if len(names) <= MOST_NAMES else [str(index) for index in range(len(names))]
    axes.set_xticks(ticks, [shown[tick] for tick in ticks], rotation=90, parse_math=False)
    axes.set_yticks(ticks, [shown[tick] for tick in ticks], parse_math=False)
    axes.set(xlabel="predicted", ylabel="true", title=f"{evaluation.split}, {evaluation.num_images} pictures")
    if len(names) <= MOST_COUNTS:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=8)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=100))


def plot_calibration(evaluation: Evaluation, path: Path) -> None:
    """Writes the reliability diagram: accuracy over confidence, and how many pictures each bin holds."""
    assert evaluation.calibration is not None
    figure = Figure(figsize=(5, 5.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = evaluation.calibration.bins
    filled = [one for one in bins if one.count]
    upper.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1.2, label="as often right as it says")
    upper.plot(
        [one.confidence for one in filled], [one.accuracy for one in filled], color=_BLUE, marker="o", label="model"
    )
    upper.set(ylabel="accuracy", ylim=(0, 1.02), title=f"{evaluation.split}, {evaluation.num_images} pictures")
    upper.legend(facecolor="white", edgecolor="none")
    lower.bar([one.low for one in bins], [one.count for one in bins], [one.high - one.low for one in bins],
              align="edge", color=_BLUE, edgecolor="white")  # fmt: skip
    lower.set(xlabel="confidence", ylabel="pictures", xlim=(0, 1))
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=100))


def drawable_names(names: Sequence[str]) -> list[str]:
    """Returns names as they can be drawn: shortened, and the class's number where the font lacks a character."""
    return [_shortened(name) if _is_drawable(name) else str(index) for index, name in enumerate(names)]


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _is_drawable(name: str) -> bool:
    plain = bool(name.strip()) and not any(unicodedata.category(letter).startswith("C") for letter in name)
    return plain and all(ord(letter) in _drawn() for letter in name)


@cache
def _drawn() -> frozenset[int]:
    """Returns the characters of the font that figures are drawn in."""
    font = ft2font.FT2Font(font_manager.findfont(font_manager.FontProperties()))
    return frozenset(font.get_charmap())
