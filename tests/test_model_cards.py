"""The cards in `model_cards/`: rendered again they are the same, byte for byte, and they have no fault."""

import json
from pathlib import Path

import pytest

from hf_transfer.parsing import parse_command_line
from hf_transfer.publishing.card import render_card
from hf_transfer.publishing.card_lint import lint_card
from hf_transfer.publishing.local_places import without_local_places
from hf_transfer.report import read_run

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(path.parent for path in (ROOT / "model_cards").glob("*/run.json"))


def test_the_quickstart_is_among_them():
    assert "quickstart" in [folder.name for folder in FOLDERS]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_card_is_what_its_report_says(folder: Path):
    report = read_run(folder)
    kept = (folder / "README.md").read_bytes()
    assert render_card(report).encode("utf-8") == kept, "python benchmarks/model_cards.py --render"
    assert lint_card(kept.decode("utf-8"), folder, report) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_report_is_of_its_recipe_and_holds_no_folder_of_a_computer(folder: Path):
    report = read_run(folder)
    assert without_local_places(report) == report
    recipe = parse_command_line([str(ROOT / "recipes" / f"{folder.name}.yaml")])
    for name in ("model", "dataset", "strategy", "images_per_class", "augmentation"):
        assert report["config"][name] == getattr(recipe, name)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == {split: values["metrics"] for split, values in report["evaluation"].items()}
    assert report["usage"]["worked"]
