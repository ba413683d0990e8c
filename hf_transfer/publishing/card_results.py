"""What was measured, as the card shows it: results, calibration, curves and limits.

Knows which numbers of `run.json` go where, and when a number of pictures is small. Measures nothing, and does not
escape anything: the template does.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from hf_transfer.publishing.card_metadata import NAMES, metric_values
from hf_transfer.publishing.card_text import Markdown

MOST_CLASSES = 30
SMALL = 30
"""With fewer pictures of a class the 95 % interval of a recall of 0.9 is wider than 0.2 (Wilson)."""
_WORST = 3
_MOST_NAMED = 12
_BALANCED = 0.005


def result_facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the sections on results say.

    Args:
        report (`Mapping`):
            `run.json`, without local places.
    """
    test = report["evaluation"].get("test")
    return {
        "headline": _headline(test),
        "results": _results(report, test),
        "calibration": _calibration(test),
        "figures": {key: _link(report["outputs"].get(key)) for key in ("confusions", "calibration", "curves")},
        "training": {"words": _training_words(report)},
        "limits": {
            "measured": _measured_limits(report, test),
            "not_measured": list(report.get("not_measured") or ()),
        },
    }


def _link(name: str | None) -> Markdown | None:
    """Returns the relative address of a file of the run."""
    return None if name is None else Markdown(quote(name))


def _headline(test: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if test is None or test["metrics"].get("accuracy") is None:
        return None
    low, high = test["accuracy_interval"]
    return {"accuracy": test["metrics"]["accuracy"], "low": low, "high": high, "pictures": test["num_images"]}


def _results(report: Mapping[str, Any], test: Mapping[str, Any] | None) -> dict[str, Any]:
    values = metric_values(report)
    majority = (test or {}).get("majority")
    probe = ((report.get("linear_probe") or {}).get("metrics") or {}).get("test") or {}
    keys = dict.fromkeys(key for split in values.values() for key in split)
    classes = list((test or {}).get("per_class", ()))
    more = 0
    if len(classes) > MOST_CLASSES:
        occurring = [row for row in classes if row["f1"] is not None]
        shown = sorted(occurring, key=lambda row: row["f1"])[:MOST_CLASSES]
        classes, more = shown, len(classes) - len(shown)
    return {
        "splits": list(values),
        "majority": majority,
        "probe": bool(probe),
        "rows": [
            {
                "name": NAMES.get(key, key),
                "measured": [split.get(key) for split in values.values()],
                "majority": majority["metrics"].get(key) if majority else None,
                "probe": probe.get(key),
            }
            for key in keys
        ],
        "intervals": [
            {
                "split": split,
                "low": report["evaluation"][split]["accuracy_interval"][0],
                "high": report["evaluation"][split]["accuracy_interval"][1],
                "pictures": report["evaluation"][split]["num_images"],
            }
            for split in values
        ],
        "classes": [{"recall_interval": None, **row} for row in classes],
        "more_classes": more,
        "confusions": (test or {}).get("top_confusions"),
    }


def _calibration(test: Mapping[str, Any] | None) -> dict[str, Any] | None:
    measured = (test or {}).get("calibration")
    if test is None or measured is None:
        return None
    gap = measured["mean_confidence"] - test["metrics"]["accuracy"]
    words = "surer than it is right" if gap > 0 else "more often right than it is sure"
    return {
        "confidence": measured["mean_confidence"],
        "accuracy": test["metrics"]["accuracy"],
        "error": measured["expected_error"],
        "bins": len(measured["bins"]),
        "words": "on average about as sure as it is right" if abs(gap) < _BALANCED else words,
    }


def _training_words(report: Mapping[str, Any]) -> str:
    training = report["training"]
    words = f"{training['steps']} optimizer steps, {training['epochs']:g} epochs"
    if training.get("stopped_early"):
        words += ", stopped early"
    if training.get("best_step") is not None:
        metric = (report["training_arguments"].get("metric_for_best_model") or "loss").removeprefix("eval_")
        words += f"; kept is step {training['best_step']}, {_choice_words(training, metric)}"
    if training.get("wise_ft_alpha") is not None:
        words += f"; mixed with the pretrained weights afterwards ({training['wise_ft_alpha']:g} fine-tuned)"
    return f"{words}. Every evaluation is in {report['outputs']['history']}."


def _choice_words(training: Mapping[str, Any], metric: str) -> str:
    """Says why the step was chosen whose weights are kept."""
    kept, highest = training["best_metric"], training.get("highest_metric")
    if kept is None:
        return f"the best by validation {metric}"
    if highest is None or highest == kept:
        return f"the best by validation {metric} ({kept:.4f})"
    return f"the last whose validation {metric} ({kept:.4f}) is within a standard error of the highest ({highest:.4f})"


def _measured_limits(report: Mapping[str, Any], test: Mapping[str, Any] | None) -> list[str]:
    classes = (test or {}).get("per_class", ())
    items = [*_worst(classes), *_small(classes), *_unseen(classes), *_duplicates(report)]
    data = report["data"]
    rare = [
        f"{label} ({count})"
        for label, count in zip(data["label_names"], data["class_counts"]["train"], strict=True)
        if count < SMALL
    ]
    if rare:
        items.append(f"Fewer than {SMALL} training pictures: {_some(rare)}.")
    return items


def _worst(classes: Any) -> list[str]:
    seen = [row for row in classes if row["recall"] is not None and row["recall"] < 1.0]
    worst = sorted(seen, key=lambda row: row["recall"])[:_WORST]
    if not worst:
        return (
            ["Every test picture was recognised, which says more about the test than about the model."]
            if classes
            else []
        )
    shown = []
    for row in worst:
        interval = row.get("recall_interval")
        within = f", 95 % interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        shown.append(f"{row['label']} (recall {row['recall']:.4f} on {row['count']} pictures{within})")
    return [f"Worst recognised: {'; '.join(shown)}."]


def _small(classes: Any) -> list[str]:
    small = [row for row in classes if 0 < row["count"] < SMALL]
    if not small:
        return []
    fewest = min(row["count"] for row in small)
    named = _some([f"{row['label']} ({row['count']})" for row in small])
    return [
        f"Fewer than {SMALL} test pictures, so that the figures of these classes are rough (with {fewest}, one "
        f"picture is {100 / fewest:.1f} points of recall): {named}."
    ]


def _unseen(classes: Any) -> list[str]:
    unseen = [row["label"] for row in classes if row["count"] == 0]
    return [f"No test picture at all, so nothing is known of: {_some(unseen)}."] if unseen else []


def _duplicates(report: Mapping[str, Any]) -> list[str]:
    found = report["data"].get("duplicates")
    if found is None:
        return []
    across = [f"{count} {pair}" for pair, count in found["across"].items() if count]
    within = [f"{count} in {split}" for split, count in found["within"].items() if count]
    items = [
        f"Pictures that are the same byte for byte in two splits: {', '.join(across)}. Results on them are too good."
        if across
        else "No picture is, byte for byte, in two splits."
    ]
    return [*items, f"Pictures that repeat another of their split: {', '.join(within)}."] if within else items


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
