"""The house: imports run one way, and no room is a lumber-room."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hf_transfer"
# A room may import from rooms of a lower floor and from its own; single files are rooms of their own.
FLOORS = {
    "errors": 0,
    "config": 0,
    "allocator": 0,
    "atomic": 0,
    "report": 1,
    "environment": 0,
    "full_precision": 0,
    "lanes": 0,
    "cpu_tensors": 0,
    "cpu_products": 1,
    "cpu_convolutions": 1,
    "cpu_pooling": 1,
    "quicker_calls": 2,
    "name_clash": 1,
    "hub_errors": 1,
    "command_parser": 1,
    "cache_folder": 1,
    "cpu_processes": 1,
    "parsing": 1,
    "data": 3,
    "models": 3,
    "training": 4,
    "evaluation": 4,
    "publishing": 5,
    "decisions": 5,
    "facts": 5,
    "inspection": 5,
    "linear_probe": 5,
    "run_folder": 6,
    "pipeline": 7,
    "cli": 8,
    "__main__": 9,
    "__init__": 9,
}
FORBIDDEN_NAMES = {"utils", "common", "helpers", "misc"}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "hf_transfer" else [f"hf_transfer.{n.name}" for n in node.names]
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("hf_transfer.")}
    return rooms & FLOORS.keys()


FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def test_the_walk_sees_the_house():
    assert len(FILES) > 40
    assert imported_rooms(PACKAGE / "pipeline.py") >= {"data", "models", "training", "evaluation", "report"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_or_stay(path: Path):
    here = room(path)
    assert here in FLOORS, f"say in FLOORS where the room {here} stands"
    if here == "__init__":
        return
    for other in imported_rooms(path) - {here}:
        assert FLOORS[other] < FLOORS[here], f"{path.name} imports {other}, which is not below {here}"


def test_data_and_models_do_not_know_each_other():
    for here, other in (
        ("data", "models"),
        ("models", "data"),
        ("training", "evaluation"),
        ("evaluation", "training"),
    ):
        for path in (PACKAGE / here).rglob("*.py"):
            assert other not in imported_rooms(path), path


def test_no_lumber_rooms():
    assert not [path for path in FILES if path.stem in FORBIDDEN_NAMES]


def test_files_stay_short():
    long = {path.name: count for path in FILES if (count := len(path.read_text(encoding="utf-8").splitlines())) > 300}
    assert long == {}
