"""Reports of runs for the tests of the card: the kept one of the quickstart recipe, and changes to it."""

import copy
import json
from pathlib import Path
from typing import Any

from hf_transfer.report import write_json

KEPT = Path(__file__).resolve().parents[2] / "model_cards" / "quickstart"


def kept_report() -> dict[str, Any]:
    """Returns the report of the quickstart recipe."""
    return json.loads((KEPT / "run.json").read_text(encoding="utf-8"))


def renamed(report: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the report with its first classes called otherwise, wherever they are named."""
    changed = copy.deepcopy(report)
    old = changed["data"]["label_names"]
    new = {**{name: name for name in old}, **dict(zip(old, names, strict=False))}
    changed["data"]["label_names"] = [new[name] for name in old]
    for values in changed["evaluation"].values():
        for row in values["per_class"]:
            row["label"] = new[row["label"]]
        for row in values["top_confusions"]:
            row["label"], row["predicted"] = new[row["label"]], new[row["predicted"]]
        values["majority"]["label"] = new[values["majority"]["label"]]
    return changed


def folder_of(report: dict[str, Any], folder: Path) -> Path:
    """Returns a folder with what a card links: figures and metrics."""
    folder.mkdir(exist_ok=True)
    for name in report["outputs"].values():
        if name.endswith(".png"):
            (folder / name).write_bytes(b"a picture")
    write_json({split: values["metrics"] for split, values in report["evaluation"].items()}, folder / "metrics.json")
    write_json(report, folder / "run.json")
    return folder
