"""DeepSpeed on CPU: strategies that do not thaw train what one process does; what cannot be is refused at the start.

Run with `pip install deepspeed` and `pytest -m slow tests/training/test_deepspeed.py`. Its CPU backend cannot gather
predictions of several processes through accelerate 1.15, so that two processes are tried without evaluation.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.processes import on_cpus
from tests.tiny_project import tiny_project
from tests.training.test_thawing_processes import assert_same
from tests.training.tiny_run import tiny_model, tiny_trainer

STRATEGIES = ("full", "feature-extraction", "partial")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="DeepSpeed is not installed"),
]


def launch(folder: Path, zero: dict, processes: int, *words: str, **more: Any) -> subprocess.CompletedProcess:
    settings = more | {
        "zero_optimization": zero,
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
    }
    config = folder / "deepspeed.json"
    config.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--use_deepspeed", "--deepspeed_config_file"]
    command += [str(config), "--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    command += ["--dynamo_backend", "no", "--main_process_port", "0", *words]
    surroundings = on_cpus(DS_ACCELERATOR="cpu")
    del surroundings["ACCELERATE_USE_CPU"]  # accelerate would leave DeepSpeed out
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.parametrize("zero", [{"stage": 2}, {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}])
def test_two_processes_train_what_one_does(zero: dict, tmp_path: Path):
    out = tmp_path / "two.safetensors"
    result = launch(tmp_path, zero, 2, "-m", "tests.training.sharded_run", str(out), "vit", *STRATEGIES)
    assert result.returncode == 0, result.stderr[-3000:]
    two = load_file(out)
    for strategy in STRATEGIES:
        model = tiny_model("vit")
        tiny_trainer(model, tmp_path / strategy, split_size=16, strategy=strategy).train()
        assert_same(dict(model.state_dict()), {name: two[f"{strategy}/{name}"] for name in model.state_dict()})


@pytest.mark.parametrize(
    ("zero", "strategy", "message"),
    [
        ({"stage": 2}, "partial", ""),
        ({"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}, "full", ""),
        ({"stage": 3}, "full", "stage3_gather_16bit_weights_on_model_save: true"),
        ({"stage": 2}, "progressive", "thaws layers during the run, and DeepSpeed fixes"),
        ({"stage": 2}, "lp-ft", "thaws layers during the run, and DeepSpeed fixes"),
    ],
)
def test_the_whole_run(zero: dict, strategy: str, message: str, tmp_path: Path):
    checkpoint, pictures = tiny_project(tmp_path)
    words = ["finetune.py", "--model", str(checkpoint), "--dataset", str(pictures), "--strategy", strategy]
    result = launch(tmp_path, zero, 1, *words, "--max_steps", "2", "--output_dir", str(tmp_path / "run"))
    if message:
        assert message in result.stderr
        assert "Traceback" not in result.stderr.split("error: ")[0]
        assert not (tmp_path / "run" / "model").exists()
    else:
        assert result.returncode == 0, result.stderr[-3000:]
        assert (tmp_path / "run" / "model" / "model.safetensors").exists()
        assert "Measured on the model as reloaded" in result.stdout


def test_an_optimizer_of_its_own_is_refused(tmp_path: Path):
    checkpoint, pictures = tiny_project(tmp_path)
    words = ["finetune.py", "--model", str(checkpoint), "--dataset", str(pictures), "--strategy", "full"]
    words += ["--max_steps", "2", "--output_dir", str(tmp_path / "run")]
    result = launch(tmp_path, {"stage": 2}, 1, *words, optimizer={"type": "AdamW", "params": {"lr": "auto"}})
    assert "has `optimizer` of its own: one rate for all weights" in result.stderr
    assert not (tmp_path / "run" / "model").exists()
