"""`hf-transfer export` from the outside: files, refusals, and predictions from the files alone."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TextNetImageProcessor

from hf_transfer.cli import main
from hf_transfer.publishing import export
from hf_transfer.publishing.export_command import export_command
from hf_transfer.publishing.export_pictures import evenly, made_pictures
from tests.evaluation.conftest import COLOURS, plain, save_colour_model
from tests.publishing.export_models import need_onnx
from tests.tiny_project import tiny_pictures


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three colours."""
    return save_colour_model(tmp_path_factory.mktemp("colours") / "checkpoint")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, name in enumerate(COLOURS):
        plain(name, side=40 + 7 * index).save(folder / f"{name}.png")
    return folder


def report_of(folder: Path) -> dict:
    return json.loads((folder / "export.json").read_text(encoding="utf-8"))


def arguments(model: Path, output: Path, *more: object, export_format: str = "torch") -> list[str]:
    return [str(model), "--format", export_format, "--output", str(output), *map(str, more)]


@pytest.mark.parametrize("export_format", ["onnx", pytest.param("torch", marks=pytest.mark.slow)])
def test_an_export_predicts_from_its_files_alone(colours: Path, pictures: Path, tmp_path: Path, export_format: str):
    if export_format == "onnx":
        need_onnx()
    out = tmp_path / "out"
    assert export_command(arguments(colours, out, "--images", pictures, export_format=export_format)) == 0
    model_file = {"onnx": "model.onnx", "torch": "model.pt2"}[export_format]
    names = {model_file, "preprocessing.json", "predict.py", "export.json"}
    assert {file.name for file in out.iterdir()} == names
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    report = report_of(out)
    assert report["picture_kind"] == "images"
    assert report["comparison"]["same_predictions"] == report["comparison"]["num_pictures"] == 3
    assert 0 < report["comparison"]["largest_logit"] < 50
    assert report["comparison"]["max_abs_difference"] <= report["allowed_difference"] < 0.05
    assert report["preprocessing"]["exact"]
    assert report["preprocessing"]["same_predictions"] == 3
    assert report["original_bytes"] == (colours / "model.safetensors").stat().st_size
    assert report["exported_bytes"] == (out / model_file).stat().st_size
    assert [item["batch_size"] for item in report["latency"]] == [1, 8]
    assert all(
        item["original_ms"] > 0 and item["exported_ms"] > 0 and item["turns"] >= 5 for item in report["latency"]
    )
    assert set(report["files"]) == names - {"export.json"}
    assert report["opset"] == (20 if export_format == "onnx" else None)
    assert report["hardware"]["processor"]
    assert report["versions"]["torch"] == torch.__version__.split("+")[0]

    # A new process, in a place where this package cannot be imported from the working folder.
    files = sorted(map(str, pictures.iterdir()))
    command = [sys.executable, str(out / "predict.py"), *files]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert answer.returncode == 0, answer.stderr
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [(row["file"], row["label"]) for row in rows] == [(file, Path(file).stem) for file in files]
    assert all(row["score"] > 0.99 for row in rows)


def test_the_sidecar_says_what_a_person_needs(colours: Path, pictures: Path, tmp_path: Path):
    assert export_command(arguments(colours, tmp_path / "out", "--images", pictures)) == 0
    text = (tmp_path / "out" / "preprocessing.json").read_text(encoding="utf-8")
    sidecar = json.loads(text)
    assert sidecar["input"] == {
        "name": "pixel_values",
        "dtype": "float32",
        "shape": ["batch", 3, 32, 32],
        "layout": "batch, channel, row, column",
        "channel_order": "RGB",
    }
    assert sidecar["labels"] == ["green", "red", "blue"]
    assert sidecar["output"]["shape"] == ["batch", 3]
    assert [step["do"] for step in sidecar["steps"]] == ["resize", "multiply", "normalize"]
    assert sidecar["steps"][0] == {
        "do": "resize",
        "height": 32,
        "width": 32,
        "resample": "bilinear",
        "arithmetic": "torchvision",
    }


def test_an_export_that_is_another_model_leaves_nothing(
    colours: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    out = tmp_path / "out"
    write = export.write_torch

    def spoil(program: torch.export.ExportedProgram, path: Path) -> None:
        # A tensor of its own: the graph shares its weights with the original.
        shifted = program.state_dict["model.classifier.bias"].detach() + torch.tensor([0.0, 0.0, 1.0])
        program.state_dict["model.classifier.bias"] = torch.nn.Parameter(shifted)
        write(program, path)

    monkeypatch.setattr(export, "write_torch", spoil)
    assert main(["export", *arguments(colours, out, "--images", pictures)]) == 2
    message = capsys.readouterr().err
    assert "The torch export is not the same model, so nothing is written" in message
    assert "Traceback" not in message
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures"]


def test_a_failed_export_keeps_the_one_before(
    colours: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    assert export_command(arguments(colours, out, "--images", pictures)) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    monkeypatch.setattr(export, "check_comparison", _refuse)
    assert main(["export", *arguments(colours, out, "--images", pictures, "--overwrite")]) == 2
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def _refuse(*_: object) -> None:
    raise export.UserError("refused")


def test_an_export_is_replaced_only_when_asked(
    colours: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    out = tmp_path / "out"
    assert main(["export", *arguments(colours, out, "--images", pictures)]) == 0
    (out / "export.json").write_text('{"old": 1}')
    assert main(["export", *arguments(colours, out, "--images", pictures)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert report_of(out) == {"old": 1}
    assert main(["export", *arguments(colours, out, "--images", pictures, "--overwrite")]) == 0
    assert report_of(out)["export_format"] == "torch"


def test_without_pictures_it_says_that_they_are_made(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["export", *arguments(colours, tmp_path / "out")]) == 0
    assert "note: checked on made pictures, not on real ones" in capsys.readouterr().out
    report = report_of(tmp_path / "out")
    assert report["picture_kind"] == "generated"
    assert report["comparison"]["num_pictures"] == 16


def test_a_run_is_checked_on_its_own_test_pictures(tmp_path: Path, capsys: pytest.CaptureFixture):
    data = tiny_pictures(tmp_path / "data", per_class=4)
    run = tmp_path / "run"
    save_colour_model(run / "model", label_names=("dark", "grey", "light"))
    (run / "run.json").write_text(json.dumps({"config": {"dataset": str(data)}, "data": {"fingerprint": "old"}}))
    assert main(["export", str(run), "--format", "torch", "--num_images", "5", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == report_of(run / "export_torch")
    assert printed["picture_kind"] == "dataset"
    assert printed["pictures"].startswith("5 of the 12 test pictures of")
    assert "is not what it was" in printed["notes"][0]

    # The data set has moved: nobody asked for it, so the export goes on and says so.
    (run / "run.json").write_text(json.dumps({"config": {"dataset": str(tmp_path / "gone")}}))
    assert main(["export", str(run), "--format", "torch", "--overwrite"]) == 0
    assert "the run's data set cannot be read any more" in capsys.readouterr().out
    # Asked for in this command, it is a mistake.
    moved = ["--dataset", str(tmp_path / "gone"), "--overwrite"]
    assert main(["export", str(run), "--format", "torch", *moved]) == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--format", "tflite"], "onnx"),
        (["--num_images", "0"], "--num_images 0"),
        (["--tolerance", "2"], "--tolerance 2"),
        (["--opset", "17", "--format", "torch"], "--opset 17 with --format torch"),
        (["--images", "nowhere.png", "--format", "torch"], "nowhere.png"),
        (["--images", "a.png", "--dataset", "digits"], "exclude each other"),
        (["--opsett", "18"], "--opset"),
    ],
)
def test_mistakes_are_told(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture, more: list[str], message: str
):
    assert main(["export", str(colours), "--output", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_pixels_of_varying_size_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    model = save_colour_model(tmp_path / "model")
    (model / "preprocessor_config.json").unlink()
    TextNetImageProcessor(size={"shortest_edge": 32}).save_pretrained(model)
    assert main(["export", *arguments(model, tmp_path / "out")]) == 2
    assert "tensors of different sizes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_output_folder(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "out").write_text("")
    assert main(["export", str(colours), "--output", str(tmp_path / "out")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert main(["export", str(colours), "--output", str(tmp_path / "out" / "below"), "--format", "torch"]) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_pictures_are_spread_evenly():
    assert evenly(10, 4) == [0, 2, 5, 7]
    assert evenly(3, 64) == [0, 1, 2]
    assert len({image.size for image in made_pictures(16)}) > 3
    assert all(np.array_equal(*map(np.asarray, pair)) for pair in zip(made_pictures(2), made_pictures(2), strict=True))


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_128", "timm_vit_tiny_patch16_224"])
def test_onnxruntime_alone_predicts_as_hf_transfer_does(assets: Path, tmp_path: Path, name: str):
    """20 real photos: `predict.py`, with Pillow, numpy and onnxruntime, against `hf-transfer predict`."""
    need_onnx()
    with tarfile.open(assets / "datasets" / "clothing10.tar") as archive:
        members = [entry for entry in archive.getmembers() if "/test/" in entry.name and entry.name.endswith(".jpg")]
        chosen = [members[index] for index in evenly(len(members), 20)]
        archive.extractall(tmp_path, chosen, filter="data")
    files = [str(tmp_path / member.name) for member in chosen]
    assert len({Path(file).parent.name for file in files}) >= 8
    model, out = assets / "checkpoints" / name, tmp_path / "out"
    assert main(["export", str(model), "--output", str(out), "--images", *files]) == 0
    assert main(["predict", str(model), *files, "--output", str(tmp_path / "wanted.jsonl")]) == 0
    wanted = [json.loads(line) for line in (tmp_path / "wanted.jsonl").read_text(encoding="utf-8").splitlines()]
    # -I: neither this folder nor PYTHONPATH; torch is blocked, so that it cannot help.
    code = (
        "import runpy, sys; sys.modules['torch'] = sys.modules['transformers'] = None; "
        f"sys.argv = ['predict.py', *{files!r}]; runpy.run_path({str(out / 'predict.py')!r}, run_name='__main__')"
    )
    answer = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    found = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [row["file"] for row in found] == [row["file"] for row in wanted]
    assert [row["label"] for row in found] == [row["label"] for row in wanted]
    assert len({row["label"] for row in found}) > 3
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in wanted], abs=1e-4)
