"""`accelerate launch --cpu --num_processes 2` trains with two processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_transfer.cpu_processes import processes_asked_for
from tests.ports import unused_port
from tests.processes import ROOT, run_at_root
from tests.tiny_project import tiny_project


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["python", "accelerate", "launch", "--cpu", "--num_processes", "2", "finetune.py", "--seed", "1"], 2),
        (["accelerate", "launch", "--cpu", "finetune.py", "--num_processes", "3"], 1),
        (["python", "-m", "accelerate.commands.launch", "--cpu", "--num_processes=4", "finetune.py"], 4),
        (["accelerate", "launch", "--cpu", "--num_processes", "4", "--mpirun_hostfile", "hosts", "finetune.py"], 1),
        (["accelerate", "launch", "--num_processes", "4", "--num_machines", "2", "finetune.py"], 1),
        (["bash"], 1),
    ],
)
def test_the_number_of_processes_is_read_from_the_launcher(words: list[str], count: int):
    assert processes_asked_for(words) == count


def launch(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    return run_at_root([*command, "--main_process_port", str(unused_port()), *words])


def test_upstream_still_starts_one_process(tmp_path: Path):
    """When this fails, accelerate starts the processes itself and `hf_transfer.cpu_processes` can go."""
    script = tmp_path / "count.py"
    script.write_text("import os\nprint('RANK', os.environ.get('RANK'))\n", encoding="utf-8")
    result = launch(str(script))
    assert result.stdout.split("\n").count("RANK None") == 1, result.stderr[-2000:]


def test_finetune_runs_in_two_processes_with_the_weights_of_one(tmp_path: Path):
    torch.manual_seed(0)
    checkpoint, pictures = tiny_project(tmp_path)
    words = ["finetune.py", "--model", str(checkpoint), "--dataset", str(pictures), "--strategy", "full"]
    # The launcher below says `--mixed_precision no`; by itself a run takes bfloat16 where the processor has it.
    words += ["--max_steps", "4", "--disable_tqdm", "true", "--learning_rate", "1e-3", "--optim", "sgd"]
    words += ["--bf16", "false"]
    two = launch(*words, "--per_device_train_batch_size", "4", "--output_dir", str(tmp_path / "two"))
    assert two.returncode == 0, two.stderr[-3000:]
    one = [sys.executable, *words, "--per_device_train_batch_size", "8", "--output_dir", str(tmp_path / "one")]
    subprocess.run(one, cwd=ROOT, check=True, timeout=280, capture_output=True)
    reports = {name: json.loads((tmp_path / name / "run.json").read_text(encoding="utf-8")) for name in ("one", "two")}
    assert reports["two"]["hardware"]["num_processes"] == 2
    assert reports["one"]["hardware"]["num_processes"] == 1
    weights = {name: load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two")}
    for name, tensor in weights["one"].items():
        torch.testing.assert_close(weights["two"][name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_resuming_in_mid_epoch_with_two_processes_goes_on_as_if_never_stopped(tmp_path: Path):
    torch.manual_seed(0)
    checkpoint, pictures = tiny_project(tmp_path)
    words = ["finetune.py", "--model", str(checkpoint), "--dataset", str(pictures), "--strategy", "full"]
    words += ["--disable_tqdm", "true", "--eval_strategy", "no", "--save_strategy", "steps", "--save_steps", "5"]
    words += ["--per_device_train_batch_size", "4", "--max_steps", "8", "--save_total_limit", "5"]
    whole = launch(*words, "--output_dir", str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr[-3000:]
    resume = ["--resume_from_checkpoint", str(tmp_path / "whole" / "checkpoint-5")]
    resumed = launch(*words, *resume, "--output_dir", str(tmp_path / "resumed"))
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    expected = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "resumed" / "model" / "model.safetensors").items():
        assert torch.equal(tensor, expected[name]), name


def test_a_mistake_under_the_launcher_is_said_once(tmp_path: Path):
    out = str(tmp_path / "run")
    result = launch("finetune.py", "--model", "nowhere/nothing here", "--dataset", str(tmp_path), "--output_dir", out)
    assert result.returncode != 0
    assert result.stderr.count("error: ") == 1
