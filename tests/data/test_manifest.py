"""The manifest: which picture is which, by hand, from files, tables, archives and stored bytes."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.loading import load_image_data
from hf_transfer.data.manifest import (
    ManifestRow,
    duplicates,
    manifest_fingerprint,
    manifest_lines,
    manifest_rows,
    read_manifest,
    split_hashes,
)
from tests.tiny_project import tiny_pictures


def rows_of(dataset: Path | str, **options) -> tuple[list[ManifestRow], str]:
    data = load_image_data(FinetuneConfig(model="m", dataset=str(dataset), **options))
    rows = list(manifest_rows(data))
    assert manifest_fingerprint(rows, data.label_names) == data.fingerprint
    return rows, data.fingerprint


def test_a_folder_is_listed_as_it_lies_there(tmp_path: Path):
    folder = tiny_pictures(tmp_path / "pictures", per_class=2)
    rows, _ = rows_of(folder)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert sorted(row.file for row in rows) == files
    for row in rows:
        assert row.file.startswith(f"{row.split}/{row.label}/")
        assert row.sha256 == hashlib.sha256((folder / row.file).read_bytes()).hexdigest()


def test_an_archive_has_the_names_inside_of_it(tmp_path: Path):
    folder = tiny_pictures(tmp_path / "pictures", per_class=2)
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "pictures")
    rows, fingerprint = rows_of(archive)
    assert {row.file.split("/")[0] for row in rows} == {"pictures"}
    assert fingerprint == rows_of(folder)[1]


def test_a_table_names_files_relative_to_it_and_no_folder_of_this_computer(tmp_path: Path):
    pictures = sorted(
        tiny_pictures(tmp_path / "elsewhere" / "pictures", per_class=4, splits=("train",)).rglob("*.png")
    )
    table = tmp_path / "tables" / "list.csv"
    (table.parent / "near").mkdir(parents=True)
    near = [shutil.copy(path, table.parent / "near" / f"{number}.png") for number, path in enumerate(pictures)]
    lines = [f"{path},{label.parent.name}" for path, label in zip(near[:6] + pictures[6:], pictures, strict=True)]
    table.write_text("\n".join(["image,label", *map(str, lines)]), encoding="utf-8")
    files = {row.file for row in rows_of(table)[0]}
    assert {"near/0.png", "near/5.png", pictures[6].name} <= files
    assert not [name for name in files if name.startswith(("/", ".."))]


def test_pictures_without_a_file_go_by_their_row():
    rows, _ = rows_of("digits", images_per_class=2)
    train = [row.file for row in rows if row.split == "train"]
    assert train == [f"row {number}" for number in range(20)]


def test_lines_are_read_back_and_hashes_are_those_of_the_lines(tmp_path: Path):
    rows = [
        ManifestRow("train", "caf\u00e9 \udcff.png", "a\nb", "0" * 64),
        ManifestRow("test", "x.png", '"quoted"', "1" * 64),
    ]
    lines = list(manifest_lines(rows))
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(lines), encoding="ascii")
    assert read_manifest(path) == rows
    assert [json.loads(line)["split"] for line in lines] == ["train", "test"]
    hashes = split_hashes(rows)
    assert hashes["train"] == hashlib.sha256(lines[0].encode()).hexdigest()
    assert hashes["validation"] == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"split": "train"}', '{"split": "train", "x": 1}'])
def test_a_damaged_line_is_named(line: str, tmp_path: Path):
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(manifest_lines([ManifestRow("a", "b", "c", "d")])) + line + "\n", encoding="ascii")
    with pytest.raises(ValueError, match="line 2"):
        read_manifest(path)


def test_duplicates_are_counted_within_and_across():
    found = duplicates({"train": ["a", "a", "a", "b"], "validation": ["a", "c", "c"], "test": ["b", "b", "c"]})
    assert found["within"] == {"train": 2, "validation": 1, "test": 1}
    assert found["across"] == {"validation in train": 1, "test in train": 2, "test in validation": 1}
