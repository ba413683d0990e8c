"""`hf-transfer evaluate` and `hf-transfer predict`, from the command line to the printed word."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.loading import load_image_data
from hf_transfer.errors import UserError
from hf_transfer.evaluation.commands import evaluate_command, format_evaluation, predict_command
from hf_transfer.evaluation.evaluator import ClassResult, Evaluation, wilson_interval
from tests.evaluation.conftest import COLOURS, plain
from tests.hub_server import HubServer

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """An image folder with 3 splits; in `test` 4 of 5 pictures are what their folder says."""
    for split, shown in {
        "train": {"red": ["red"] * 2, "green": ["green"] * 2, "blue": ["blue"] * 2},
        "validation": {"red": ["red"], "green": ["green"], "blue": ["blue"]},
        "test": {"red": ["red", "blue"], "green": ["green"], "blue": ["blue", "blue"]},
    }.items():
        for label, colours in shown.items():
            folder = tmp_path / "pictures" / split / label
            folder.mkdir(parents=True)
            for index, colour in enumerate(colours):
                plain(colour, 40 + index).save(folder / f"{index}.png")
    return tmp_path / "pictures"


def write_run(folder: Path, model: Path, dataset: Path, **config: object) -> Path:
    """Writes what a finished run leaves behind, as far as `evaluate` reads it."""
    shutil.copytree(model, folder / "model")
    data = load_image_data(FinetuneConfig(model="m", dataset=str(dataset), **config))
    run = {"config": {"dataset": str(dataset), **config}, "data": {"fingerprint": data.fingerprint}}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_evaluate_prints_a_table(colour_model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]):
    assert evaluate_command([str(colour_model), "--dataset", str(pictures)]) == 0
    out = capsys.readouterr().out
    assert "test: 5 pictures" in out
    assert "accuracy           0.8000  (95 % interval 0.3755 to 0.9638)" in out
    assert [line.split() for line in out.splitlines()][-3:] == [
        ["blue", "2", "0.6667", "1.0000", "0.8000"],
        ["green", "1", "1.0000", "1.0000", "1.0000"],
        ["red", "2", "1.0000", "0.5000", "0.6667"],
    ]


def test_evaluate_json_is_json_and_nothing_else(
    colour_model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "results" / "result.json"
    argv = [str(colour_model), "--dataset", str(pictures), "--json", "--output", str(output)]
    assert evaluate_command(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["accuracy"] == 0.8
    assert found["confusion_matrix"] == [[2, 0, 0], [0, 1, 0], [1, 0, 1]]
    red = {"label": "red", "count": 2, "precision": 1.0, "recall": 0.5, "f1": 2 / 3}
    assert found["per_class"][2] == {**red, "recall_interval": list(wilson_interval(1, 2))}
    assert found["split"] == "test"
    assert found["dataset"] == str(pictures)
    assert json.loads(output.read_text()) == found


def test_evaluate_another_split(colour_model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]):
    for split, count in (("validation", 3), ("train", 6)):
        evaluate_command([str(colour_model), "--dataset", str(pictures), "--split", split, "--json"])
        found = json.loads(capsys.readouterr().out)
        assert (found["split"], found["num_images"], found["metrics"]["accuracy"]) == (split, count, 1.0)


def test_evaluate_names_a_label_that_the_model_does_not_know(colour_model: Path, pictures: Path):
    for split in ("train", "test"):
        (pictures / split / "red").rename(pictures / split / "crimson")
    (pictures / "validation" / "red").rename(pictures / "validation" / "crimson")
    with pytest.raises(UserError, match="does not know the label 'crimson'"):
        evaluate_command([str(colour_model), "--dataset", str(pictures)])


def test_a_run_knows_its_data_and_how_it_was_split(
    colour_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for label in COLOURS:
        folder = tmp_path / "unsplit" / label
        folder.mkdir(parents=True)
        for index in range(10):
            plain(label, 32 + index).save(folder / f"{index}.png")
    run = write_run(tmp_path / "run", colour_model, tmp_path / "unsplit", test_fraction=0.4)
    counts = []
    for argv in ([str(run)], [str(run / "model")], [str(run), "--dataset", str(tmp_path / "unsplit")]):
        evaluate_command([*argv, "--json"])
        counts.append(json.loads(capsys.readouterr().out)["num_images"])
    assert counts == [12, 12, 12]
    evaluate_command([str(colour_model), "--dataset", str(tmp_path / "unsplit"), "--json"])
    assert json.loads(capsys.readouterr().out)["num_images"] == 6


def test_a_data_set_that_has_changed_since_the_training_is_noticed(
    colour_model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = write_run(tmp_path / "run", colour_model, pictures)
    evaluate_command([str(run)])
    assert capsys.readouterr().err == ""
    plain("red", 77).save(pictures / "test" / "red" / "new.png")
    evaluate_command([str(run)])
    assert "is not what it was when the model was trained" in capsys.readouterr().err
    evaluate_command([str(run), "--json"])
    captured = capsys.readouterr()
    assert "is not what it was" in json.loads(captured.out)["note"]


def test_a_model_alone_needs_a_data_set(colour_model: Path):
    with pytest.raises(UserError, match="does not say which data set") as caught:
        evaluate_command([str(colour_model)])
    assert "--dataset DATASET" in str(caught.value)


def test_a_damaged_run_json_is_a_user_error(colour_model: Path, pictures: Path, tmp_path: Path):
    run = write_run(tmp_path / "run", colour_model, pictures)
    (run / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        evaluate_command([str(run)])


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["MODEL", "--dataset", "D", "--batchsize", "3"], "--batch_size"),
        (["MODEL", "--dataset", "D", "--split", "tset"], "'test', 'validation', 'train'"),
        (["MODEL", "--dataset", "D", "--batch_size", "many"], "invalid int value: 'many'"),
        (["MODEL", "--dataset", "D", "--batch_size", "0"], "--batch_size 0"),
        (["MODEL", "--dataset", "D", "--output", "."], "is a folder"),
        ([], "MODEL"),
    ],
)
def test_mistakes_in_the_flags_of_evaluate(argv: list[str], complaint: str):
    with pytest.raises(UserError) as caught:
        evaluate_command(argv)
    assert complaint in str(caught.value)


def test_of_many_classes_the_worst_are_shown():
    results = tuple(ClassResult(f"class {index}", 1, 1.0, 1.0, index / 40) for index in range(40))
    unseen = ClassResult("unseen", 0, None, None, None)
    evaluation = Evaluation("test", 40, {"loss": 1.0, "accuracy": 0.5}, (unseen, *results), (), (0.4, 0.6), 1.0)
    text = format_evaluation(evaluation)
    assert "The 30 classes with the lowest F1, of 41:" in text
    assert "class 29" in text
    assert "class 30" not in text
    assert "unseen" not in text


def test_predict_prints_labels(colour_model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]):
    assert predict_command([str(colour_model), str(pictures / "validation"), "--top_k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [Path(line.split()[0]).parent.name for line in lines] == ["blue", "green", "red"]
    assert [line.split()[1:3] for line in lines] == [["blue", "0.9999,"], ["green", "0.9999,"], ["red", "0.9999,"]]


def test_predict_writes_what_it_could_and_says_what_it_could_not(
    colour_model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (pictures / "validation" / "red" / "0.png").write_bytes(b"no picture")
    output = tmp_path / "new" / "labels.csv"
    assert predict_command([str(colour_model), str(pictures / "validation"), "--output", str(output)]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"3 rows written to {output}\n"
    assert "1 of 3 pictures could not be read; see the column `error`." in captured.err
    lines = output.read_text().splitlines()
    assert lines[0] == "file,label,score,error"
    assert [line.split(",")[1] for line in lines[1:]] == ["blue", "green", ""]


def test_predict_json_is_json_and_nothing_else(colour_model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]):
    (pictures / "validation" / "red" / "0.png").write_bytes(b"no picture")
    assert predict_command([str(colour_model), str(pictures / "validation"), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in rows] == ["blue", "green", None]
    assert "0.png" in rows[2]["error"]


def test_predict_takes_a_run(colour_model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = write_run(tmp_path / "run", colour_model, pictures)
    assert predict_command([str(run), str(pictures / "test" / "green" / "0.png")]) == 0
    assert " green 0.9999" in capsys.readouterr().out


def test_predict_takes_a_hub_id(
    hub: HubServer, repo_id: str, colour_model: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
):
    hub.add_model(repo_id, colour_model)
    assert predict_command([repo_id, str(pictures / "test" / "green" / "0.png")]) == 0
    assert " green 0.9999" in capsys.readouterr().out
    with pytest.raises(UserError, match="shows no model"):
        predict_command([f"{repo_id}-2", str(pictures)])


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--output", "labels.xlsx"], ".csv, .jsonl, .parquet"),
        (["--top_k", "0"], "--top_k 0"),
        (["--batch_size", "-1"], "--batch_size -1"),
        (["--topk", "2"], "--top_k"),
    ],
)
def test_mistakes_in_the_flags_of_predict(colour_model: Path, pictures: Path, flags: list[str], complaint: str):
    with pytest.raises(UserError) as caught:
        predict_command([str(colour_model), str(pictures), *flags])
    assert complaint in str(caught.value)


def test_predict_without_a_match_is_an_error(colour_model: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no file, no folder"):
        predict_command([str(colour_model), str(tmp_path / "*.png")])


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_help_needs_no_torch(command: str):
    code = (
        "import sys\n"
        f"from hf_transfer.evaluation.commands import {command}_command\n"
        f"try:\n    {command}_command(['--help'])\n"
        "except SystemExit as stopped:\n    assert stopped.code == 0\n"
        "heavy = {'torch', 'transformers', 'datasets', 'evaluate', 'matplotlib'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--batch_size" in done.stdout
