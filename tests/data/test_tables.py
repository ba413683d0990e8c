"""CSV, JSON lines and parquet tables of pictures."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_transfer.data.columns import find_columns
from hf_transfer.data.loading import load_image_data
from hf_transfer.data.tables import raw_table, read_table
from hf_transfer.errors import UserError
from tests.data.pictures import config_for, contents, png

ROWS = [("0.png", "cat"), ("1.png", "dog"), ("2.png", "cat")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three pictures; its name is a pattern if one does not take care."""
    folder = tmp_path / "shop [a-z]*"
    (folder / "deep").mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png(number))
        (folder / "deep" / f"{number}.png").write_bytes(png(10 + number))
    return folder


def write(path: Path, header: str, rows: list) -> Path:
    """Writes rows as CSV, TSV, JSON, JSON lines or parquet."""
    names = header.split(",")
    records = [dict(zip(names, row, strict=True)) for row in rows]
    if path.suffix in (".csv", ".tsv"):
        separator = "\t" if path.suffix == ".tsv" else ","
        lines = [separator.join("" if value is None else str(value) for value in row) for row in [names, *rows]]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    else:
        pq.write_table(pa.Table.from_pylist(records), path)
    return path


def read(path: Path, **columns: str) -> dict:
    """Reads a table with guessed columns."""
    return read_table(path, columns.get("image_column"), columns.get("label_column"))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_paths_in_every_format(folder: Path, suffix: str):
    splits = read(write(folder / f"table.{suffix}", "file_name,label", ROWS))
    assert list(splits) == ["all"]
    assert splits["all"].labels == ["cat", "dog", "cat"]
    assert [Path(image["path"]) for image in splits["all"].images["image"]] == [folder / name for name, _ in ROWS]


def test_paths_are_relative_to_the_table_or_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    rows = [("deep/0.png", "cat"), (str(folder / "1.png"), "dog")]
    table = write(folder / "table.csv", "image,label", rows)
    monkeypatch.chdir(tmp_path)
    assert contents(read(table)["all"].images) == {png(10), png(1)}
    assert contents(read(table.relative_to(tmp_path))["all"].images) == {png(10), png(1)}


def test_a_table_named_like_a_pattern(folder: Path):
    table = write(folder / "photos[1]*.csv", "image,label", ROWS)
    write(folder / "photos1.csv", "image,label", ROWS[:1])
    assert len(read(table)["all"]) == 3


def test_a_table_that_changes_is_read_again(folder: Path):
    table = write(folder / "table.csv", "image,label", ROWS)
    assert len(read(table)["all"]) == 3
    write(table, "image,label", ROWS[:2])
    assert len(read(table)["all"]) == 2


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_file_contents(folder: Path, kind: pa.DataType):
    table = pa.table({"bytes": pa.array([png(0), png(1)], kind), "class": ["cat", "dog"]})
    pq.write_table(table, folder / "table.parquet")
    raw = read(folder / "table.parquet")["all"]
    assert [image["bytes"] for image in raw.images["image"]] == [png(0), png(1)]
    assert raw.labels == ["cat", "dog"]


def test_structs_of_bytes_and_path(folder: Path):
    rows = [{"bytes": png(5), "path": "five.png"}, {"bytes": png(6), "path": None}]
    pq.write_table(pa.table({"photo": rows, "label": ["cat", "dog"]}), folder / "table.parquet")
    raw = read(folder / "table.parquet")["all"]
    assert raw.images.features["image"] == datasets.Image(decode=False)
    assert raw.images["image"][:] == rows


def test_structs_whose_path_is_relative_to_the_table(folder: Path):
    rows = [{"bytes": None, "path": "deep/0.png"}, {"bytes": png(6), "path": "six.png"}]
    pq.write_table(pa.table({"image": rows, "label": ["cat", "dog"]}), folder / "table.parquet")
    assert contents(read(folder / "table.parquet")["all"].images) == {png(10), png(6)}


def test_a_parquet_file_that_datasets_wrote(folder: Path):
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["dog", "cat"])})
    table = datasets.Dataset.from_dict({"picture": [str(folder / "0.png")] * 2, "kind": [1, 0]}, features=features)
    table.to_parquet(folder / "table.parquet")
    raw = read(folder / "table.parquet")["all"]
    assert raw.names == ("dog", "cat")
    assert raw.labels == [1, 0]
    assert contents(raw.images) == {png(0)}


def test_a_split_column(folder: Path):
    rows = [
        ("0.png", "cat", "Train"),
        ("1.png", "dog", "val"),
        ("2.png", "cat", "train"),
        ("deep/0.png", "dog", "test"),
    ]
    splits = read(write(folder / "table.csv", "image,label,split", rows))
    assert {name: table.labels for name, table in splits.items()} == {
        "train": ["cat", "cat"],
        "validation": ["dog"],
        "test": ["dog"],
    }
    assert contents(splits["train"].images) == {png(0), png(2)}
    assert contents(splits["test"].images) == {png(10)}


def test_a_split_column_up_to_the_end(folder: Path):
    rows = [
        (f"{d}{n}.png", label, split)
        for d, split in (("", "train"), ("deep/", "val"))
        for n, label in enumerate("aab")
    ]
    data = load_image_data(
        config_for(write(folder / "t.jsonl", "image,label,split", [*rows, ("deep/0.png", "a", "test")]))
    )
    assert [len(data.split(name)) for name in ("train", "validation", "test")] == [3, 3, 1]
    assert data.validation[2]["image"]["path"] == str(folder / "deep" / "2.png")
    assert data.validation["label"][:] == [0, 0, 1]


def test_an_unknown_split(folder: Path):
    table = write(folder / "table.csv", "image,label,split", [("0.png", "cat", "fold3")])
    with pytest.raises(UserError, match="split column .* holds 'fold3'"):
        read(table)


def test_missing_pictures(folder: Path):
    rows = [*ROWS, *((f"gone{number}.png", "cat") for number in range(5))]
    with pytest.raises(
        UserError, match=r"5 of 8 pictures .* do not exist: 'gone0.png', 'gone1.png', 'gone2.png' \.\.\."
    ) as raised:
        read(write(folder / "table.csv", "image,label", rows))
    assert f"relative to {folder}" in str(raised.value)


def test_rows_without_a_path(folder: Path):
    with pytest.raises(UserError, match="1 of 4 pictures .* do not exist"):
        read(write(folder / "table.csv", "image,label", [*ROWS, (None, "cat")]))


@pytest.mark.parametrize("hole", [None, b""])
def test_rows_without_contents(folder: Path, hole: bytes | None):
    pq.write_table(
        pa.table({"image": pa.array([png(0), hole], pa.binary()), "label": ["a", "b"]}), folder / "t.parquet"
    )
    with pytest.raises(UserError, match="1 of 2 rows .* have no picture in the column 'image'"):
        read(folder / "t.parquet")


@pytest.mark.parametrize("hole", [None, {"bytes": None, "path": None}])
def test_rows_without_a_struct(folder: Path, hole: dict | None):
    rows = pa.array([{"bytes": png(0), "path": "a.png"}, hole])
    pq.write_table(pa.table({"image": rows, "label": ["a", "b"]}), folder / "t.parquet")
    with pytest.raises(UserError, match="1 of 2 rows .* have no picture in the column 'image'"):
        read(folder / "t.parquet")


@pytest.mark.parametrize("name", ["None", "NA", "null", "n/a", "nan"])
def test_class_names_that_pandas_would_lose(folder: Path, name: str):
    assert read(write(folder / "table.csv", "image,label", [("0.png", name), ("1.png", "ok")]))["all"].labels == [
        name,
        "ok",
    ]


def test_numbers_with_gaps_in_between(folder: Path):
    raw = read(write(folder / "table.csv", "image,label", [("0.png", 1), ("1.png", None), ("2.png", 0)]))["all"]
    assert raw.labels == [1.0, None, 0.0]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_empty_file(folder: Path, suffix: str):
    (folder / f"table.{suffix}").touch()
    with pytest.raises(UserError, match=r"table\.\w+ is empty"):
        read(folder / f"table.{suffix}")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_no_rows(folder: Path, suffix: str):
    path = folder / f"table.{suffix}"
    if suffix == "csv":
        path.write_text("image,label\n")
    else:
        pq.write_table(pa.table({"image": pa.array([], pa.string()), "label": pa.array([], pa.string())}), path)
    with pytest.raises(UserError, match="has column names and no rows|has no pictures"):
        load_image_data(config_for(path))


@pytest.mark.parametrize(
    ("suffix", "content"), [("jsonl", "{nope\n"), ("parquet", "PAR1 and no more"), ("csv", 'a,b\n"1,2\n1,2,3,4\n')]
)
def test_a_broken_file(folder: Path, suffix: str, content: str):
    (folder / f"table.{suffix}").write_text(content)
    with pytest.raises(UserError, match=r"table\.\w+ cannot be read as"):
        read(folder / f"table.{suffix}")


@pytest.mark.parametrize(("value", "words"), [([1, 2], "several labels"), ({"a": 1}, "dict values")])
def test_labels_of_another_kind(folder: Path, value: object, words: str):
    with pytest.raises(UserError, match=f"label column 'label' .* holds {words}") as raised:
        read(write(folder / "table.jsonl", "image,label", [("0.png", value)]))
    assert "--label_column" in str(raised.value)


def test_pictures_of_another_kind(folder: Path):
    table = write(folder / "table.csv", "image,label", [(1, "cat"), (2, "dog")])
    with pytest.raises(UserError, match="image column 'image' .* holds Value") as raised:
        read(table)
    assert "--image_column" in str(raised.value)


def test_paths_in_a_table_of_the_hub():
    table = datasets.Dataset.from_dict({"image": ["a.png"], "label": ["cat"]})
    with pytest.raises(UserError, match="holds paths, which lead nowhere"):
        raw_table(table, None, None, "someone/pets", folder=None)


TEXT, CLASSES, IMAGE = datasets.Value("string"), datasets.ClassLabel(names=["a", "b"]), datasets.Image()


@pytest.mark.parametrize(
    ("features", "image", "label"),
    [
        ({"image": IMAGE, "label": CLASSES}, "image", "label"),
        ({"img": IMAGE, "fine_label": CLASSES, "coarse_label": CLASSES}, "img", "fine_label"),
        ({"id": TEXT, "scan": IMAGE, "diagnosis": CLASSES}, "scan", "diagnosis"),
        ({"scan": IMAGE, "file_name": TEXT, "target": TEXT}, "scan", "target"),
        ({"File_Name": TEXT, "Species": TEXT, "note": TEXT}, "File_Name", "Species"),
        ({"filepath": TEXT, "class": datasets.Value("int64")}, "filepath", "class"),
        ({"label": TEXT, "path": TEXT}, "path", "label"),
    ],
)
def test_columns_are_guessed_by_type_then_by_name(features: dict, image: str, label: str):
    assert find_columns(datasets.Features(features), None, None, "pets") == (image, label)


def test_the_user_has_the_last_word():
    features = datasets.Features({"image": IMAGE, "thumbnail": IMAGE, "label": CLASSES, "breed": TEXT})
    assert find_columns(features, "thumbnail", "breed", "pets") == ("thumbnail", "breed")


@pytest.mark.parametrize(
    ("features", "words", "flag"),
    [
        ({"front": IMAGE, "back": IMAGE, "label": CLASSES}, "pictures in front or back", "--image_column"),
        ({"image": IMAGE, "breed": CLASSES, "colour": CLASSES}, "labels in breed or colour", "--label_column"),
        ({"a": TEXT, "label": TEXT}, "no column that looks like pictures", "--image_column"),
        ({"image": TEXT, "b": TEXT}, "no column that looks like labels", "--label_column"),
    ],
)
def test_columns_that_cannot_be_guessed(features: dict, words: str, flag: str):
    with pytest.raises(UserError, match=words) as raised:
        find_columns(datasets.Features(features), None, None, "pets")
    assert f"{flag} with one of: {', '.join(features)}" in str(raised.value)


@pytest.mark.parametrize(("chosen", "flag"), [(("imag", None), "--image_column"), ((None, "lable"), "--label_column")])
def test_columns_that_are_not_there(chosen: tuple, flag: str):
    with pytest.raises(UserError, match=f"{flag} \\w+: pets has no such column") as raised:
        find_columns(datasets.Features({"image": IMAGE, "label": CLASSES}), *chosen, "pets")
    assert f"Try: {flag} {'image' if chosen[0] else 'label'}" in str(raised.value)
