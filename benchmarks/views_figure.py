"""Accuracy against the number of views, drawn from what `views.py` and `views_of_runs.py` measured.

Usage:
    python benchmarks/views_figure.py

Writes `benchmarks/results/views.png`. Measures nothing.
"""

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pipeline_runs import ROOT, read_records
from views import EPOCHS, NUMBERS, SOLVED
from views_of_runs import EACH, STRATEGIES

RESULTS = ROOT / "benchmarks" / "results"
HEADS = {f"{EPOCHS[-1]} epochs": f"head, {EPOCHS[-1]} epochs", SOLVED: "head, solved"}
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
NUMBERS_SHOWN = [str(number) for number in NUMBERS]


def head_lines(records: Sequence[dict], pair: tuple[str, str]) -> dict[str, dict[str, list[float]]]:
    """Returns for each way of training a head its scores by number of views."""
    found = [r for r in records if (r["checkpoint"], r["dataset"]) == pair]
    return {
        label: {r["views"]: r["scores"][way] for r in found if r["views"] in NUMBERS_SHOWN and way in r["scores"]}
        for way, label in HEADS.items()
    }


def run_lines(records: Sequence[dict], checkpoint: str) -> dict[str, dict[str, list[float]]]:
    """Returns for each strategy its validation accuracies by number of views, and with a new one in each epoch."""
    lines: dict[str, dict[str, list[float]]] = {}
    for strategy in STRATEGIES:
        for record in records:
            if (record["checkpoint"], record["strategy"]) == (checkpoint, strategy):
                by_views = lines.setdefault(strategy, {})
                by_views.setdefault(record["views"], []).append(record["validation"]["accuracy"])
    return lines


def draw(axes: Axes, lines: dict[str, dict[str, list[float]]], title: str) -> None:
    """Draws means with their standard deviations."""
    places = {name: place for place, name in enumerate([*NUMBERS_SHOWN, EACH])}
    for number, (label, by_views) in enumerate(lines.items()):
        known = [name for name in places if name in by_views]
        axes.errorbar(
            [places[name] + 0.06 * number for name in known],
            [statistics.mean(by_views[name]) for name in known],
            [statistics.stdev(by_views[name]) if len(by_views[name]) > 1 else 0.0 for name in known],
            color=COLOURS[number],
            marker="o",
            markersize=4,
            capsize=3,
            label=label,
        )
    axes.set(title=title, xlabel="views of each picture", xticks=list(places.values()), xticklabels=list(places))
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")


def main() -> None:
    heads, runs = (read_records(RESULTS / f"{name}.jsonl") for name in ("views", "views_of_runs"))
    panels = [
        (f"{pair[0]}\n{pair[1]}", head_lines(heads, pair))
        for pair in dict.fromkeys((record["checkpoint"], record["dataset"]) for record in heads)
    ]
    for checkpoint in dict.fromkeys(record["checkpoint"] for record in runs):
        panels.append((f"{checkpoint}\nclothing10, last quarter of the blocks", run_lines(runs, checkpoint)))
    columns = 3
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 3.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, (title, lines) in zip(grid.flat, panels, strict=False):
        draw(axes, lines, title)
    for row in grid:
        row[0].set_ylabel("validation accuracy")
    figure.savefig(RESULTS / "views.png", dpi=110)


if __name__ == "__main__":
    main()
