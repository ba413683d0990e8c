"""Groups that thaw in several processes: no process drifts, and all of them together train what one does."""

import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.ports import unused_port
from tests.processes import launched, on_cpus, run_on_cpus
from tests.training.thawing_run import thawed_weights

# Without BatchNorm, whose statistics belong to a micro-batch by definition.
FAMILIES = ("vit", "convnext", "swin", "dinov2")  # the last has a mask token that is never used


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=5e-6, msg=lambda text, n=name: f"{n}: {text}")


def test_two_processes_thaw_as_one(tmp_path: Path):
    out = tmp_path / "two.safetensors"
    result = run_on_cpus(launched("tests.training.thawing_run", str(out), "2", *FAMILIES))
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("thawed") >= 2 * len(FAMILIES), result.stdout
    one: dict[str, torch.Tensor] = {}
    for family in FAMILIES:
        one |= thawed_weights(family, tmp_path / family, 4)
    assert_same(one, load_file(out))


def test_two_processes_freeze_as_one(tmp_path: Path):
    out = tmp_path / "two.safetensors"
    result = run_on_cpus(launched("tests.training.thawing_run", str(out), "2", "vit"), TEST_STRATEGY="norms")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "step 6: froze stem to layers.1" in result.stdout
    assert_same(thawed_weights("vit", tmp_path / "vit", 4, "norms"), load_file(out))


def test_accumulation_thaws_as_one_batch(tmp_path: Path):
    whole = thawed_weights("vit", tmp_path / "4x1", 4)
    assert_same(whole, thawed_weights("vit", tmp_path / "2x2", 2, gradient_accumulation_steps=2))


@pytest.mark.slow
def test_two_machines_thaw_as_one(tmp_path: Path):
    port = str(unused_port())
    """Two launches of accelerate on one host, each with a machine rank of its own."""
    outs = [tmp_path / str(rank) / "two.safetensors" for rank in range(2)]
    machines = []
    for rank, out in enumerate(outs):
        out.parent.mkdir()
        options = ("--num_machines", "2", "--machine_rank", str(rank), "--main_process_ip", "127.0.0.1")
        options += ("--main_process_port", port)
        command = launched("tests.training.thawing_run", str(out), "2", "vit", machines=options)
        machines.append(
            subprocess.Popen(command, env=on_cpus(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    results = [machine.communicate(timeout=280) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], results
    assert_same(thawed_weights("vit", tmp_path / "one", 4), load_file(outs[0]))


@pytest.mark.slow
def test_ddp_still_forgets_parameters_that_thaw(tmp_path: Path):
    """transformers#416: when this fails, `hf_transfer.training.ddp` can go."""
    out = tmp_path / "two.safetensors"
    command = launched("tests.training.thawing_run", str(out), "2", "vit")
    result = run_on_cpus(command, TEST_WITHOUT_REBUILD="1")
    assert result.returncode != 0
    assert "the processes differ after step 3" in result.stderr
