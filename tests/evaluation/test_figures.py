"""Figures of an evaluation: what is in them, whatever the classes are called."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_transfer.evaluation.calibration import measure_calibration
from hf_transfer.evaluation.evaluator import ClassResult, Evaluation
from hf_transfer.evaluation.figures import drawable_names, plot_calibration, plot_confusion_matrix

NASTY = ("<script>", "$x^2$", "猫", "a\nb", "x" * 60, "‮live", " ", "---")


def evaluation_of(names: tuple[str, ...], matrix: np.ndarray) -> Evaluation:
    labels = np.repeat(np.arange(len(names)), matrix.sum(axis=1))
    predictions = np.concatenate([np.repeat(np.arange(len(names)), row) for row in matrix])
    logits = 3.0 * np.eye(len(names))[predictions]
    results = tuple(
        ClassResult(name, int(row.sum()), None, None, None) for name, row in zip(names, matrix, strict=True)
    )
    counts = tuple(tuple(int(count) for count in row) for row in matrix)
    calibration = measure_calibration(logits, labels)
    return Evaluation("test", len(labels), {}, results, counts, (0.0, 1.0), 1.0, calibration)


@pytest.mark.parametrize("names", [("a", "b"), NASTY, tuple(f"class {n}" for n in range(120))], ids=len)
def test_figures_are_drawn_without_a_warning_and_alike_each_time(names: tuple[str, ...], tmp_path: Path):
    evaluation = evaluation_of(names, np.eye(len(names), dtype=int) * 3 + 1)
    for plot in (plot_confusion_matrix, plot_calibration):
        first, second = tmp_path / "1.png", tmp_path / "2.png"
        plot(evaluation, first)
        plot(evaluation, second)
        assert first.read_bytes() == second.read_bytes()
        with Image.open(first) as picture:
            assert picture.width >= 400
            assert len(picture.convert("RGB").getcolors(maxcolors=2**20)) > 20


def test_a_row_without_pictures_stays_blank(tmp_path: Path):
    plot_confusion_matrix(
        evaluation_of(("a", "b", "unseen"), np.array([[2, 1, 0], [0, 2, 1], [0, 0, 0]])), tmp_path / "m.png"
    )
    assert (tmp_path / "m.png").stat().st_size > 1000


def test_names_that_cannot_be_drawn_become_numbers():
    assert drawable_names(NASTY) == ["<script>", "$x^2$", "2", "3", "x" * 23 + "…", "5", "6", "---"]
