"""Commands, exit codes and quick help."""

import subprocess
import sys
from pathlib import Path

import pytest

from hf_transfer import __version__
from hf_transfer.cli import main, run_command
from hf_transfer.errors import UserError, user_message

ROOT = Path(__file__).resolve().parents[1]


def test_help_and_version(capsys: pytest.CaptureFixture):
    assert main([]) == 0
    assert main(["--help"]) == 0
    assert "predict" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture):
    assert main(["predct"]) == 2
    assert "hf-transfer predict" in capsys.readouterr().err


def test_a_mistake_is_one_message_and_exit_code_2(capsys: pytest.CaptureFixture):
    assert main(["train", "--model", "m"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: --dataset is missing")
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture):
    assert main(["train", "--model", "m", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_other_processes_of_a_distributed_run_stay_silent(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert run_command("train", ["--model", "m"]) == 2
    assert capsys.readouterr().err == ""


def test_the_message_of_a_worker_process_is_unpacked():
    packed = "Caught UserError in DataLoader worker process 0.\nOriginal Traceback:\n  File x\n"
    error = UserError(packed + "hf_transfer.errors.UserError: The picture 'a.png' cannot be read.\nTry: remove it\n")
    assert user_message(error) == "The picture 'a.png' cannot be read.\nTry: remove it"


@pytest.mark.parametrize(
    "words",
    [
        ["finetune.py", "--help"],
        ["-m", "hf_transfer", "--help"],
        ["-m", "hf_transfer", "train", "--help"],
        ["-m", "hf_transfer", "evaluate", "--help"],
        ["-m", "hf_transfer", "predict", "--help"],
    ],
    ids=" ".join,
)
def test_help_does_not_wait_for_torch(words: list[str]):
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *words], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    imported = {
        line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines() if line.startswith("import time:")
    }
    assert "hf_transfer.cli" in imported or "hf_transfer" in imported
    assert not {"torch", "datasets", "torchvision"} & imported
    assert "usage" in result.stdout.lower()


def test_the_scripts_docstring_is_short_and_true():
    text = (ROOT / "finetune.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 50
    for word in ("recipes/quickstart.yaml", "recipes/accelerate/multi_gpu.yaml"):
        assert word in text
        assert (ROOT / word).is_file()
