"""`hf-transfer verify` on a real run: all holds at first, and each kind of change is found and named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from hf_transfer.cli import main
from tests.hub_server import HubServer
from tests.tiny_project import tiny_project

OPTIONS = ["--use_cpu", "--max_steps", "2", "--disable_tqdm", "true", "--check_usage", "false"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished run."""
    folder = tmp_path_factory.mktemp("verify")
    torch.manual_seed(0)
    checkpoint, pictures = tiny_project(folder)
    words = ["train", "--model", str(checkpoint), "--dataset", str(pictures), "--output_dir", str(folder / "run")]
    assert main([*words, *OPTIONS, "--eval_strategy", "steps", "--eval_steps", "1"]) == 0
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    return shutil.copytree(made / "run", tmp_path / "copy of the run")


def change_json(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8", newline="")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def wrong(folder: Path, capsys: pytest.CaptureFixture, *words: str) -> set[str]:
    """Returns what does not hold."""
    capsys.readouterr()
    code = main(["verify", str(folder), "--json", *words])
    answer = json.loads(capsys.readouterr().out)
    assert answer["holds"] == (code == 0)
    assert code in (0, 1)
    return {check["what"] for check in answer["checks"] if not check["holds"]}


def test_a_run_as_it_was_left_holds(made: Path, run: Path, capsys: pytest.CaptureFixture):
    assert main(["verify", str(run)]) == 0
    assert "comparisons hold. The pictures were not looked at" in capsys.readouterr().out
    assert main(["verify", str(run), "--dataset", str(made / "pictures")]) == 0
    assert "comparisons hold.\n" in capsys.readouterr().out


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "a bit of the weights": (lambda run: flip_a_bit(run / "model/model.safetensors"), {"model/model.safetensors"}),
    "a label": (lambda run: replace(run / "model/config.json", '"dark"', '"bright"'), {"model/config.json"}),
    "the processor": (
        lambda run: (run / "model/preprocessor_config.json").unlink(),
        {"model/preprocessor_config.json"},
    ),
    "a pickle slipped in": (
        lambda run: (run / "model/pytorch_model.bin").write_bytes(b"x"),
        {"model/pytorch_model.bin"},
    ),
    "a metric": (
        lambda run: change_json(run / "metrics.json", lambda m: m["test"].update(accuracy=0.999)),
        {"metrics.json"},
    ),
    "a metric more": (
        lambda run: change_json(run / "metrics.json", lambda m: m["test"].update(f1=1.0)),
        {"metrics.json"},
    ),
    "no metrics": (lambda run: (run / "metrics.json").unlink(), {"metrics.json"}),
    "damaged metrics": (lambda run: (run / "metrics.json").write_text("{"), {"metrics.json"}),
    "a row of the history": (
        lambda run: (run / "history.csv").write_text((run / "history.csv").read_text().split("\n2.0")[0] + "\n"),
        {"history.csv"},
    ),
    "a number of the history": (lambda run: replace(run / "history.csv", "\n2.0,2,", "\n2.5,2,"), {"history.csv"}),
    "no history": (lambda run: (run / "history.csv").unlink(), {"history.csv"}),
    "the card": (lambda run: replace(run / "README.md", "Test accuracy 0.", "Test accuracy 1."), {"README.md"}),
    "no card": (lambda run: (run / "README.md").unlink(), {"README.md"}),
    "a figure": (lambda run: flip_a_bit(run / "curves.png"), {"curves.png"}),
    "no figure": (lambda run: (run / "confusion_matrix.png").unlink(), {"confusion_matrix.png"}),
    "a metric of the report": (
        lambda run: change_json(run / "run.json", lambda r: r["evaluation"]["test"]["metrics"].update(accuracy=0.999)),
        {"metrics.json", "README.md"},
    ),
    "a label in the manifest": (
        lambda run: replace(run / "manifest.jsonl", '"label": "dark"', '"label": "grey"'),
        {"manifest.jsonl", "manifest.jsonl: train", "manifest.jsonl: fingerprint"},
    ),
    "a label that does not exist": (
        lambda run: replace(run / "manifest.jsonl", '"label": "dark"', '"label": "none"'),
        {"manifest.jsonl", "manifest.jsonl: train", "manifest.jsonl: fingerprint"},
    ),
    "a file name in the manifest": (
        lambda run: replace(run / "manifest.jsonl", '"train/dark/0.png"', '"train/dark/7.jpg"'),
        {"manifest.jsonl", "manifest.jsonl: train"},
    ),
    "no manifest": (lambda run: (run / "manifest.jsonl").unlink(), {"manifest.jsonl"}),
    "a damaged manifest": (lambda run: (run / "manifest.jsonl").write_text("{"), {"manifest.jsonl"}),
    "the base": (
        lambda run: change_json(run / "run.json", lambda r: r["checkpoint"].update(weights_sha256="0" * 64)),
        {"run.json: weights of the checkpoint", "README.md"},
    ),
    "the fingerprint": (
        lambda run: change_json(run / "run.json", lambda r: r["data"].update(fingerprint="0" * 64)),
        {"run.json: fingerprint of the data", "README.md"},
    ),
    "a recorded hash": (
        lambda run: change_json(
            run / "run.json", lambda r: r["lineage"]["model_files"].update({"config.json": "0" * 64})
        ),
        {"model/config.json", "README.md"},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_kind_of_change_is_found(name: str, run: Path, capsys: pytest.CaptureFixture):
    change, expected = CHANGES[name]
    change(run)
    assert wrong(run, capsys) == expected


def test_the_table_says_what_was_recorded_and_found(run: Path, capsys: pytest.CaptureFixture):
    (run / "curves.png").unlink()
    change_json(run / "metrics.json", lambda metrics: metrics["test"].update(accuracy=2.0))
    assert main(["verify", str(run)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "2 of " in lines[0]
    assert lines[1].split() == ["what", "recorded", "found"]
    assert lines[2].startswith("  curves.png  ")
    assert lines[2].endswith("no such file")
    assert "test accuracy is 2.0 in place of 0." in lines[3]


def test_pictures_that_changed_moved_or_came_are_named(made: Path, run: Path, capsys, tmp_path: Path):
    pictures = shutil.copytree(made / "pictures", tmp_path / "pictures")
    assert wrong(run, capsys, "--dataset", str(pictures)) == set()
    # Renamed and touched, they are the same pictures.
    (pictures / "test/dark/0.png").rename(pictures / "test/dark/another.png")
    assert wrong(run, capsys, "--dataset", str(pictures)) == set()
    Image.new("RGB", (36, 36), "red").save(pictures / "train/light/3.png")
    (pictures / "validation/grey/1.png").rename(pictures / "validation/dark/moved.png")
    (pictures / "test/light/7.png").unlink()
    assert wrong(run, capsys, "--dataset", str(pictures)) == {
        f"{pictures}: fingerprint",
        f"{pictures}: train, light, train/light/3.png",
        f"{pictures}: validation, grey, validation/grey/1.png",
        f"{pictures}: validation, dark, validation/dark/moved.png",
        f"{pictures}: test, light, test/light/7.png",
    }


def test_a_hub_data_set_is_read_at_the_commit_of_the_run(
    hub: HubServer, repo_id: str, made: Path, tmp_path: Path, capsys
):
    hub.add_dataset(repo_id, made / "pictures")
    words = ["train", "--model", str(made / "checkpoint"), "--dataset", repo_id, "--output_dir", str(tmp_path / "run")]
    assert main([*words, *OPTIONS]) == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "run"), "--dataset", repo_id]) == 0
    assert wrong(tmp_path / "run", capsys, "--dataset", str(made / "pictures")) == set()


def test_a_run_without_lineage_is_refused(run: Path, capsys: pytest.CaptureFixture):
    change_json(run / "run.json", lambda report: report.update(lineage=None))
    assert main(["verify", str(run)]) == 2
    assert "before lineage was recorded" in capsys.readouterr().err


def test_a_data_set_that_is_not_there_is_refused(run: Path, capsys: pytest.CaptureFixture, tmp_path: Path):
    assert main(["verify", str(run), "--dataset", str(tmp_path / "nowhere at all")]) == 2
    assert "does not exist" in capsys.readouterr().err
