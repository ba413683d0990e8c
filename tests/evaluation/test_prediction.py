"""Which files are predicted, what they are called, and the tables that come out."""

import csv
import json
import os
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import transformers

from hf_transfer.errors import UserError
from hf_transfer.evaluation.classifier import load_classifier
from hf_transfer.evaluation.prediction import Prediction, find_pictures, predict_files, write_predictions
from tests.evaluation.conftest import plain
from tests.models.families import build_tiny_checkpoint, build_tiny_timm_checkpoint, tiny_image


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Pictures in a folder, below it, hidden, and files that are none."""
    for name in ("b.png", "a.JPG", "sub/c.png", "sub/deeper/d.webp", ".hidden/e.png", ".f.png", "g[1].png"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        plain("red").save(path)
    (tmp_path / "tree" / "notes.txt").write_text("no picture")
    (tmp_path / "tree" / "Thumbs.db").write_text("no picture")
    (tmp_path / "empty").mkdir()
    return tmp_path / "tree"


def names(paths: Sequence[Path], tree: Path) -> list[str]:
    return [path.relative_to(tree).as_posix() for path in paths]


def test_a_folder_is_searched_to_the_bottom(tree: Path):
    found = names(find_pictures([str(tree)]), tree)
    assert found == ["a.JPG", "b.png", "g[1].png", "sub/c.png", "sub/deeper/d.webp"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("b.png", ["b.png"]),
        ("notes.txt", ["notes.txt"]),  # named outright: it gets a row that says why it cannot be read
        ("*.png", ["b.png", "g[1].png"]),
        ("**/*.png", ["b.png", "g[1].png", "sub/c.png"]),
        ("[ab].*", ["a.JPG", "b.png"]),
        ("su?", ["sub/c.png", "sub/deeper/d.webp"]),
        ("g[1].png", ["g[1].png"]),
    ],
)
def test_files_and_patterns(tree: Path, pattern: str, expected: list[str]):
    assert names(find_pictures([str(tree / pattern)]), tree) == expected


def test_every_file_comes_once_in_the_order_given(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tree)
    found = find_pictures(["sub/c.png", "b.png", str(tree / "b.png"), "sub", "./sub/../b.png"])
    assert [str(path) for path in found] == ["sub/c.png", "b.png", "sub/deeper/d.webp"]


@pytest.mark.parametrize("missing", ["nowhere.png", "nowhere/*.png", "*.txt", "../empty"])
def test_a_path_that_stands_for_nothing_is_an_error(tree: Path, missing: str):
    with pytest.raises(UserError) as caught:
        find_pictures([str(tree), str(tree / missing)])
    assert repr(str(tree / missing)) in str(caught.value)
    assert ".png" in str(caught.value)


@pytest.mark.parametrize("build", ["vit", "resnet", "timm"])
def test_labels_and_scores_are_those_of_the_pipeline(tmp_path: Path, build: str):
    torch.manual_seed(3)
    if build == "timm":
        # As this package saves it: the pipeline cannot load every folder that timm itself writes.
        folder = tmp_path / "model"
        made = load_classifier(build_tiny_timm_checkpoint(tmp_path / "timm", "test_vit", 4))
        made.model.save_pretrained(folder)
        made.image_processor.save_pretrained(folder)
    else:
        folder = build_tiny_checkpoint(tmp_path / "model", build, 4)
    files = []
    for index, size in enumerate([(48, 48), (97, 30), (30, 97), (5, 3), (300, 200)]):
        files.append(tmp_path / f"{index}.png")
        tiny_image(index, max(size)).resize(size).save(files[-1])
    classifier = transformers.pipeline("image-classification", model=str(folder), device="cpu")
    expected = classifier([str(file) for file in files], top_k=3)
    found = list(predict_files(load_classifier(folder), files, top_k=3, batch_size=2, device="cpu"))
    assert [prediction.file for prediction in found] == [str(file) for file in files]
    for prediction, answers in zip(found, expected, strict=True):
        assert list(prediction.labels) == [answer["label"] for answer in answers]
        assert prediction.scores == pytest.approx([answer["score"] for answer in answers], abs=1e-6)


def test_real_photos_get_the_labels_of_the_pipeline(assets: Path, tmp_path: Path):
    with tarfile.open(assets / "datasets" / "clothing10.tar") as archive:
        photos = [member for member in archive if "/test/" in member.name and member.name.endswith(".jpg")][::40]
        archive.extractall(tmp_path, photos, filter="data")
    files = [tmp_path / photo.name for photo in photos]
    folder = assets / "checkpoints" / "mobilenet_v1_0.25_128"
    expected = transformers.pipeline("image-classification", model=str(folder), device="cpu")(
        [str(file) for file in files], top_k=5
    )
    found = list(predict_files(load_classifier(folder), files, top_k=5, batch_size=4, device="cpu"))
    assert len(found) >= 8
    for prediction, answers in zip(found, expected, strict=True):
        assert list(prediction.labels) == [answer["label"] for answer in answers]
        assert prediction.scores == pytest.approx([answer["score"] for answer in answers], abs=1e-6)


def test_one_bad_picture_does_not_lose_the_others(colour_model: Path, tmp_path: Path):
    files = [tmp_path / "red.png", tmp_path / "bad.png", tmp_path / "gone.png", tmp_path / "blue.png"]
    plain("red").save(files[0])
    files[1].write_bytes(files[0].read_bytes()[:60])
    plain("blue").save(files[3])
    for batch_size in (1, 2, 4):
        found = list(predict_files(load_classifier(colour_model), files, batch_size=batch_size, device="cpu"))
        assert [prediction.labels for prediction in found] == [("red",), (), (), ("blue",)]
        assert [prediction.error is None for prediction in found] == [True, False, False, True]
        assert "bad.png" in str(found[1].error)
        assert "does not exist" in str(found[2].error)


def test_more_labels_than_there_are_are_all_labels(colour_model: Path, tmp_path: Path):
    plain("green").save(tmp_path / "green.png")
    (found,) = predict_files(load_classifier(colour_model), [tmp_path / "green.png"], top_k=9, device="cpu")
    assert found.labels[0] == "green"
    assert set(found.labels) == {"red", "green", "blue"}
    assert sum(found.scores) == pytest.approx(1.0)


def test_equal_scores_come_in_the_order_of_the_labels(colour_model: Path, tmp_path: Path):
    plain("green").save(tmp_path / "green.png")
    classifier = load_classifier(colour_model)
    with torch.no_grad():
        classifier.model.get_submodule("classifier").weight.zero_()
    (found,) = predict_files(classifier, [tmp_path / "green.png"], top_k=3, device="cpu")
    assert found.labels == classifier.label_names


ROWS = (
    Prediction("a.png", ("cat", "dog"), (0.75, 0.25)),
    Prediction("=cmd|' /C calc'!A0.png", ("-cat", "dog"), (0.5, 0.5)),
    Prediction("@x.png", (), (), "cannot be read: Ä"),
)


def test_csv_cells_are_no_formulas(tmp_path: Path):
    write_predictions(ROWS, tmp_path / "out.csv", 2)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["file", "label", "score", "label_2", "score_2", "error"],
        ["a.png", "cat", "0.75", "dog", "0.25", ""],
        ["'=cmd|' /C calc'!A0.png", "'-cat", "0.5", "dog", "0.5", ""],
        ["'@x.png", "", "", "", "", "cannot be read: Ä"],
    ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\n"])
def test_whatever_may_start_a_formula_is_quoted(tmp_path: Path, start: str):
    write_predictions([Prediction(f"{start}1+1", ("a",), (1.0,))], tmp_path / "out.csv", 1)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1][0] == f"'{start}1+1"


def test_a_carriage_return_does_not_end_a_row(tmp_path: Path):
    write_predictions([Prediction("\r=1+1", ("a",), (1.0,))], tmp_path / "out.csv", 1)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1:] == [["\\r=1+1", "a", "1.0", ""]]


def test_jsonl_keeps_names_as_they_are(tmp_path: Path):
    write_predictions(ROWS, tmp_path / "out.jsonl", 2)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[1] == {
        "file": "=cmd|' /C calc'!A0.png",
        "label": "-cat",
        "score": 0.5,
        "label_2": "dog",
        "score_2": 0.5,
        "error": None,
    }
    assert rows[2]["label"] is None
    assert rows[2]["error"] == "cannot be read: Ä"


def test_parquet_has_types_even_without_a_value(tmp_path: Path):
    write_predictions(ROWS[2:], tmp_path / "out.parquet", 2)
    table = pq.read_table(tmp_path / "out.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        **{"file": "string", "label": "string", "score": "double"},
        **{"label_2": "string", "score_2": "double", "error": "string"},
    }
    assert table.to_pylist()[0]["file"] == "@x.png"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such a file name")
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_name_that_is_no_utf8_can_be_written(colour_model: Path, tmp_path: Path, suffix: str):
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    with open(name, "wb") as file:
        plain("red").save(file, "PNG")
    found = list(predict_files(load_classifier(colour_model), find_pictures([str(tmp_path)]), device="cpu"))
    assert [(Path(prediction.file).name, prediction.labels) for prediction in found] == [("caf\\xe9.png", ("red",))]
    write_predictions(found, tmp_path / f"out{suffix}", 1)
    assert b"caf\\" in (tmp_path / f"out{suffix}").read_bytes()
