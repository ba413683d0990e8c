"""Every recipe parses, and runs two steps on a tiny checkpoint; every launcher configuration is one."""

import json
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from hf_transfer.cli import main
from hf_transfer.parsing import parse_command_line
from tests.tiny_project import tiny_project

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
LAUNCHERS = sorted((FOLDER / "accelerate").glob("*.yaml"))


def test_the_recipes_are_there():
    assert len(RECIPES) >= 4
    assert {path.stem for path in LAUNCHERS} >= {"cpu", "one_gpu", "multi_gpu", "multi_node"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_begins_with_its_lab_note_and_parses(path: Path):
    text = path.read_text(encoding="utf-8")
    for word in ("# What ", "# Data ", "# Command "):
        assert word in text
    config = parse_command_line([str(path)])
    assert config.training["output_dir"].startswith("runs/")
    assert f"recipes/{path.name}" in text


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_two_steps(path: Path, tmp_path: Path):
    torch.manual_seed(0)
    checkpoint, pictures = tiny_project(tmp_path)
    words = ["train", str(path), "--model", str(checkpoint), "--dataset", str(pictures), "--use_cpu"]
    assert (
        main(
            [
                *words,
                "--output_dir",
                str(tmp_path / "run"),
                "--max_steps",
                "2",
                "--disable_tqdm",
                "true",
                "--check_usage",
                "false",
            ]
        )
        == 0
    )
    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert report["training"]["steps"] == 2
    assert report["config"]["strategy"] == parse_command_line([str(path)]).strategy


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_a_launcher_configuration_is_understood_by_accelerate(path: Path):
    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
    assert path.stem != "multi_node" or config.num_machines > 1
