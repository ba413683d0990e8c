"""The history of a run as a table and as a figure.

Knows rows with `epoch`, `step`, `train_loss` and `eval_...`. Does not know how they came about
(`hf_transfer.training.history`).
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hf_transfer.atomic import write_atomically

History = Sequence[Mapping[str, float]]

# Okabe and Ito (2008), "Color Universal Design": told apart with every common kind of colour blindness; the markers do
# the same on a grey print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_BEST = "#777777"
_RATE = "learning_rate/"


def write_history_csv(history: History, path: str | Path) -> None:
    """Writes a row for each evaluation; what a row lacks is an empty cell.

    Args:
        history (`Sequence[Mapping[str, float]]`):
            Rows with `epoch`, `step` and any other numbers.
        path (`str` or `Path`):
            The file, replaced if it exists.
    """
    columns = list(dict.fromkeys(["epoch", "step", *(key for row in history for key in row)]))

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)

    write_atomically(Path(path), write)


def plot_curves(
    history: History,
    path: str | Path,
    *,
    metric: str = "accuracy",
    greater_is_better: bool = True,
    kept_step: int | None = None,
) -> None:
    """Writes the picture that [`draw_curves`] makes.

    Args:
        history, metric, greater_is_better, kept_step:
            As in [`draw_curves`].
        path (`str` or `Path`):
            The picture; its suffix says of which kind.
    """
    figure = draw_curves(history, metric=metric, greater_is_better=greater_is_better, kept_step=kept_step)
    write_atomically(Path(path), lambda temporary: figure.savefig(temporary, dpi=120))


def draw_curves(
    history: History, *, metric: str = "accuracy", greater_is_better: bool = True, kept_step: int | None = None
) -> Figure:
    """Draws losses, validation metrics, and the learning rate of every layer group, where there is more than one.

    The evaluation whose weights are kept is marked in the first two, the best where nobody says which one it is.

    Args:
        history (`Sequence[Mapping[str, float]]`):
            Rows with `epoch`, and `train_loss` and `eval_...` where they were measured.
        metric (`str`, *optional*, defaults to `"accuracy"`):
            Which metric tells the best evaluation, with or without `eval_`; the validation loss where no row has it.
        greater_is_better (`bool`, *optional*, defaults to `True`):
            Whether a higher value of that metric is better.
        kept_step (`int`, *optional*):
            The step whose weights are kept.

    Returns:
        `Figure`: with two axes, or three.
    """
    rates = _rate_names(history)
    figure = Figure(figsize=(15 if rates else 10, 4), layout="constrained")
    losses, metrics, *more = figure.subplots(1, 3 if rates else 2)
    kept = next((row for row in history if kept_step is not None and row.get("step") == kept_step), None)
    best = kept or best_row(history, metric, greater_is_better)
    marked = None if best is None else (best["epoch"], "best" if kept is None else "kept")
    _plot(losses, history, {"train_loss": "training", "eval_loss": "validation"}, marked)
    losses.set(title="Loss", xlabel="epoch", ylabel="cross-entropy")
    _plot(metrics, history, _metric_names(history), marked)
    metrics.set(title="Validation", xlabel="epoch")
    for axes in more:
        _plot_rates(axes, history, rates)
    return figure


def best_row(history: History, metric: str, greater_is_better: bool) -> Mapping[str, float] | None:
    """Returns the row with the best metric, of equal ones the first, or `None` where nothing was measured."""
    key = f"eval_{metric.removeprefix('eval_')}"
    if not any(key in row for row in history):
        key, greater_is_better = "eval_loss", False
    measured = [row for row in history if math.isfinite(row.get(key, math.nan))]
    sign = 1 if greater_is_better else -1
    return max(measured, key=lambda row: sign * row[key], default=None)


def _metric_names(history: History) -> dict[str, str]:
    keys = dict.fromkeys(key for row in history for key in row if key.startswith("eval_") and key != "eval_loss")
    return {key: key.removeprefix("eval_").replace("_", " ") for key in keys}


def _rate_names(history: History) -> dict[str, str]:
    """Returns the columns with the rates of layer groups, from stem to head; none where there is one rate."""
    keys = dict.fromkeys(key for row in history for key in row if key.startswith(_RATE))
    return {key: key.removeprefix(_RATE) for key in keys} if len(keys) > 1 else {}


def _plot_rates(axes: Axes, history: History, names: Mapping[str, str]) -> None:
    """Draws a line for each group, dark for the stem and light for the head; a frozen group has no line."""
    shades = colormaps["viridis"]
    for index, (key, name) in enumerate(names.items()):
        rows = [row for row in history if row.get(key, 0.0) > 0.0]
        # A legend of dozens of blocks would hide the lines: the first and the last say which way the colours go.
        shown = len(names) <= len(_COLOURS) or index in (0, len(names) - 1)
        axes.plot(
            [row["epoch"] for row in rows],
            [row[key] for row in rows],
            color=shades(0.9 * index / (len(names) - 1)),
            marker=".",
            label=name if shown else "_nolegend_",
        )
    axes.set(title="Learning rate by layer group", xlabel="epoch", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(facecolor="white", edgecolor="none", framealpha=0.85)


def _plot(axes: Axes, history: History, names: Mapping[str, str], marked: tuple[float, str] | None) -> None:
    drawn = 0
    for index, (key, name) in enumerate(names.items()):
        rows = [row for row in history if key in row]
        if not rows:
            continue
        drawn += 1
        axes.plot(
            [row["epoch"] for row in rows],
            [row[key] for row in rows],
            color=_COLOURS[index % len(_COLOURS)],
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=5,
            label=name,
        )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not drawn:
        axes.text(0.5, 0.5, "nothing was measured", ha="center", va="center", transform=axes.transAxes, color=_BEST)
        return
    if marked is not None:
        epoch, word = marked
        axes.axvline(epoch, color=_BEST, linestyle="--", linewidth=1.2, label=f"{word} (epoch {epoch:g})", zorder=0)
    axes.legend(facecolor="white", edgecolor="none", framealpha=0.85)
