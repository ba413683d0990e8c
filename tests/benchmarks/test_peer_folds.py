"""The comparison on five folds: every picture is tested once, and in no other split of its fold."""

from importlib import import_module
from pathlib import Path

import pytest

LABELS = ("a", "b")
SPLITS = {"train": 24, "validation": 8, "test": 8}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set as `peer_files` writes it; names count up anew within each split."""
    files, lines = import_module("peer_files"), []
    folder = tmp_path / "few"
    for split, count in SPLITS.items():
        for number in range(count):
            label = LABELS[number % 2]
            name = f"{split}/{label}/{number:05d}.jpg"
            (folder / files.PICTURES / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / files.PICTURES / name).write_text(f"{split} {number}")
            lines.append(files.ListedFile(split, name, label, f"hash of {split} {number}"))
    files.write_list(folder, lines)
    return folder


def test_every_picture_is_tested_once(data: Path):
    folds = import_module("peer_folds")
    files = import_module("peer_files").read_files(data)
    tested = []
    for fold in range(folds.FOLDS):
        splits = folds.dealt_out(files, fold)
        paths = {split: [path for path, _ in rows] for split, rows in splits.items()}
        assert not {*paths["test"]} & {*paths["train"]}
        assert not {*paths["validation"]} & {*paths["train"], *paths["test"]}
        assert sum(len(rows) for rows in splits.values()) == sum(SPLITS.values())
        assert [label for _, label in splits["test"]].count(0) == len(splits["test"]) / 2
        tested += paths["test"]
    assert len(tested) == len({*tested}) == sum(SPLITS.values())


def test_a_fold_is_written_as_the_peers_read_it(data: Path):
    folds, peer_files = import_module("peer_folds"), import_module("peer_files")
    folder = folds.fold_folder(data, 1)
    written, dealt = peer_files.read_files(folder), folds.dealt_out(peer_files.read_files(data), 1)
    for split, rows in dealt.items():
        expected = sorted((path.read_text(), label) for path, label in rows)
        assert sorted((path.read_text(), label) for path, label in written.rows[split]) == expected
    for line in peer_files.read_list(folder):
        assert line.sha256 == f"hash of {(folder / peer_files.PICTURES / line.file).read_text()}"
    assert written.fingerprint != peer_files.read_files(folds.fold_folder(data, 0)).fingerprint


def test_the_table_judges_whole_sets_of_folds_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folds = import_module("peer_folds")
    monkeypatch.setattr(folds, "TABLE", tmp_path / "table.md")
    row, facts = folds.ROWS[0].name, import_module("pipeline_runs").made_here()

    def records(count: int, difference: float) -> list[dict]:
        return [
            {"row": row, "contender": name, "accuracy": accuracy + fold / 100, "epochs": 20, "of_epochs": 20}
            | {"round": fold, "seconds": seconds, "images": {"test": 8}, **facts}
            for fold in range(count)
            for name, accuracy, seconds in (("ours, cold", 0.8 + difference, 4.0), ("Trainer, sensible", 0.8, 30.0))
        ]

    for count, difference, judged in ((4, 0.1, "too few folds"), (5, -0.002, "yes"), (5, -0.004, "**no**")):
        folds.write_table(records(count, difference))
        start = f"| {row} | ours, cold | Trainer, sensible | {count} |"
        [line] = [line for line in folds.TABLE.read_text().splitlines() if line.startswith(start)]
        assert line.endswith(f"| {judged} | 7.50 (7.50 to 7.50) |")
        assert f"| {difference:+.4f}" in line
        assert "norms first" not in folds.TABLE.read_text()
