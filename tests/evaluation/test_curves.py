"""History and curves: what is in the table and in the figure."""

import csv
import math
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from PIL import Image

from hf_transfer.atomic import write_atomically
from hf_transfer.evaluation.curves import best_row, draw_curves, plot_curves, write_history_csv

HISTORY = (
    {"epoch": 1.0, "step": 10, "train_loss": 1.2, "learning_rate/head": 1e-3, "eval_loss": 0.9, "eval_accuracy": 0.7},
    {"epoch": 2.0, "step": 20, "train_loss": 0.8, "learning_rate/head": 5e-4, "eval_loss": 0.5, "eval_accuracy": 0.9},
    {"epoch": 3.0, "step": 30, "eval_loss": 0.4, "eval_accuracy": 0.9, "eval_macro_f1": 0.85},
)


def lines(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    return {
        str(line.get_label()): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axes.get_lines()
    }


def test_history_csv_holds_every_number_and_leaves_gaps_empty(tmp_path: Path):
    write_history_csv(HISTORY, tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("epoch", "step", "train_loss", "learning_rate/head", "eval_loss", "eval_accuracy", "eval_macro_f1")
    ]
    assert [row["train_loss"] for row in rows] == ["1.2", "0.8", ""]
    assert [row["eval_macro_f1"] for row in rows] == ["", "", "0.85"]
    assert [float(row["learning_rate/head"]) for row in rows[:2]] == [1e-3, 5e-4]
    assert (tmp_path / "history.csv").read_bytes().count(b"\n") == 4
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]


def test_history_csv_without_evaluations_is_a_header(tmp_path: Path):
    write_history_csv((), tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text() == "epoch,step\n"


def test_the_step_that_is_kept_is_marked_not_the_best():
    for axes in draw_curves(HISTORY, kept_step=30).axes:
        assert "kept (epoch 3)" in lines(axes)
    for axes in draw_curves(HISTORY).axes:
        assert "best (epoch 2)" in lines(axes)


def test_losses_are_left_and_metrics_right():
    losses, metrics = draw_curves(HISTORY).axes
    assert lines(losses)["training"] == [(1.0, 1.2), (2.0, 0.8)]
    assert lines(losses)["validation"] == [(1.0, 0.9), (2.0, 0.5), (3.0, 0.4)]
    assert lines(metrics)["accuracy"] == [(1.0, 0.7), (2.0, 0.9), (3.0, 0.9)]
    assert lines(metrics)["macro f1"] == [(3.0, 0.85)]
    assert not any("loss" in name for name in lines(metrics))
    # Of two equally good epochs, the first: Trainer keeps it too.
    for axes in (losses, metrics):
        assert [point[0] for point in lines(axes)["best (epoch 2)"]] == [2.0, 2.0]


def test_the_best_epoch_follows_the_metric_that_chose_it():
    assert best_row(HISTORY, "eval_loss", False) == HISTORY[2]
    assert best_row(HISTORY, "loss", False) == HISTORY[2]
    assert best_row(HISTORY, "accuracy", True) == HISTORY[1]
    assert best_row(HISTORY, "accuracy", False) == HISTORY[0]
    assert best_row(HISTORY, "macro_f1", True) == HISTORY[2]
    assert best_row(HISTORY, "not_measured", True) == HISTORY[2]
    assert best_row([{"epoch": 1.0, "eval_loss": math.nan}, {"epoch": 2.0, "eval_loss": 3.0}], "loss", False) == {
        "epoch": 2.0,
        "eval_loss": 3.0,
    }
    assert best_row((), "accuracy", True) is None


def test_curves_are_a_picture(tmp_path: Path):
    plot_curves(HISTORY, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (1200, 480)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    # The blue of the training loss and the vermilion of the validation loss.
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours


def test_curves_without_evaluations_say_so(tmp_path: Path):
    plot_curves((), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0
    for axes in draw_curves(()).axes:
        assert [text.get_text() for text in axes.texts] == ["nothing was measured"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    (tmp_path / "table.csv").write_text("old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "table.csv", fail)
    assert (tmp_path / "table.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_written_files_have_ordinary_permissions(tmp_path: Path):
    ordinary = tmp_path / "ordinary"
    ordinary.write_text("")
    write_atomically(tmp_path / "new" / "table.csv", lambda path: path.write_text("new") and None)
    assert (tmp_path / "new" / "table.csv").read_text() == "new"
    assert (tmp_path / "new" / "table.csv").stat().st_mode == ordinary.stat().st_mode


def test_the_rate_of_every_group_is_drawn_from_its_thaw_on():
    rows = [
        {
            "epoch": 1.0,
            "eval_loss": 1.0,
            "learning_rate/stem": 0.0,
            "learning_rate/layers.0": 1e-4,
            "learning_rate/head": 1e-2,
        },
        {
            "epoch": 2.0,
            "eval_loss": 0.9,
            "learning_rate/stem": 1e-5,
            "learning_rate/layers.0": 9e-5,
            "learning_rate/head": 9e-3,
        },
    ]
    rates = draw_curves(rows).axes[2]
    drawn = {line.get_label(): list(line.get_ydata()) for line in rates.lines}
    assert drawn == {"stem": [1e-5], "layers.0": [1e-4, 9e-5], "head": [1e-2, 9e-3]}
    assert rates.get_yscale() == "log"


def test_one_rate_needs_no_panel():
    assert len(draw_curves([{"epoch": 1.0, "eval_loss": 1.0, "learning_rate/head": 1e-2}]).axes) == 2
