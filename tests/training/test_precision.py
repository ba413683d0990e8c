"""Who decides on the precision of a run, and that frozen features which bfloat16 would move are left in float32."""

import dataclasses
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.loading import load_image_data
from hf_transfer.models.checkpoint import load_checkpoint
from hf_transfer.pipeline import arguments_of
from hf_transfer.training import precision
from hf_transfer.training.arguments import build_training_arguments
from hf_transfer.training.checkpoints import seal_checkpoint, write_identity
from hf_transfer.training.precision import MOST_MOVED, Precision, choose_precision, moved_share
from hf_transfer.training.resume_record import PRECISION
from hf_transfer.training.sampled_pictures import SampledPictures
from tests.ports import unused_port
from tests.training.tiny_sample import tiny_sample


def config(strategy: str, training: dict, tune_norms: str | None = None) -> FinetuneConfig:
    return FinetuneConfig(model="m", dataset="d", strategy=strategy, training=training, tune_norms=tune_norms)


def chosen(strategy: str, tmp_path, pictures: SampledPictures | None = None, **training):
    asked = config(strategy, {"output_dir": str(tmp_path), "use_cpu": True, **training})
    return choose_precision(asked, build_training_arguments(asked, 1e-3), pictures or tiny_sample())


@pytest.fixture
def bfloat16_pays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision, "bfloat16_is_faster", lambda: True)


@pytest.fixture
def nothing_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision, "bfloat16_is_faster", lambda: pytest.fail("measured, and need not be"))


def moved(monkeypatch: pytest.MonkeyPatch, share: float | None) -> None:
    monkeypatch.setattr(precision, "moved_share", lambda full, half: share)


@pytest.mark.parametrize("strategy", ["feature-extraction", "full"])
def test_float32_where_bfloat16_is_no_faster(strategy: str, monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(precision, "bfloat16_is_faster", lambda: False)
    monkeypatch.setattr(precision, "moved_share", lambda full, half: pytest.fail("looked at, and need not be"))
    assert chosen(strategy, tmp_path).name == "no"


@pytest.mark.parametrize("strategy", ["feature-extraction", "partial", "progressive", "lp-ft"])
@pytest.mark.parametrize(
    ("share", "name", "said"),
    [
        (MOST_MOVED / 2, "bf16", "moves what the head sees by 2.5 %"),
        (2 * MOST_MOVED, "no", "bfloat16 would move what the head sees by 10 %"),
        (float("nan"), "no", "no numbers as large"),
        (None, "bf16", "the faster one"),
    ],
)
def test_frozen_features_must_stay(strategy, share, name, said, bfloat16_pays, monkeypatch, tmp_path):
    moved(monkeypatch, share)
    found = chosen(strategy, tmp_path)
    assert found.name == name
    assert said in found.reason
    # What learns follows what it is given; what thaws would change its precision as well.
    follows = share == 2 * MOST_MOVED and strategy == "partial"
    assert found.where_it_learns == ("bf16" if follows else None)
    assert Precision.of_record(found.recorded) == dataclasses.replace(found, reason="as the run began")


def test_norms_that_learn_first_do_so_in_half_precision(bfloat16_pays, monkeypatch, tmp_path):
    moved(monkeypatch, 2 * MOST_MOVED)
    asked = config("feature-extraction", {"output_dir": str(tmp_path), "use_cpu": True}, tune_norms="1")
    found = choose_precision(asked, build_training_arguments(asked, 1e-3), tiny_sample())
    assert (found.name, found.where_it_learns) == ("no", "bf16")


def test_gradients_in_float16_would_have_to_be_scaled(monkeypatch, tmp_path):
    moved(monkeypatch, 1.0)
    monkeypatch.setattr(precision, "_faster", lambda device: "fp16")
    found = chosen("partial", tmp_path)
    assert (found.name, found.where_it_learns) == ("no", None)


@pytest.mark.parametrize("strategy", ["full", "scratch"])
def test_weights_that_all_learn_learn_in_the_faster_one(strategy, bfloat16_pays, monkeypatch, tmp_path):
    moved(monkeypatch, 1.0)
    assert chosen(strategy, tmp_path).name == "bf16"


def test_a_network_is_looked_at_and_left_as_it_was(bfloat16_pays, tmp_path):
    pictures = tiny_sample("resnet")
    before = {name: tensor.clone() for name, tensor in pictures.checkpoint.model.state_dict().items()}
    state = torch.get_rng_state()
    assert chosen("feature-extraction", tmp_path, pictures) == chosen("feature-extraction", tmp_path, pictures)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], kept) for name, kept in pictures.checkpoint.model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in pictures.checkpoint.model.modules())
    assert not pictures.checkpoint.model.training


def test_what_the_head_sees_is_really_compared(bfloat16_pays, monkeypatch, tmp_path):
    seen = []

    def noting(full, half):
        seen.append((full, half))
        return moved_share(full, half)

    monkeypatch.setattr(precision, "moved_share", noting)
    pictures = tiny_sample("vit")
    chosen("feature-extraction", tmp_path, pictures)
    [(full, half)] = seen
    assert [features.shape for features in full] == [features.shape for features in half]
    assert len(full[0]) == len(pictures) == 12
    assert not torch.equal(full[0], half[0])
    assert 0 < moved_share(full, half) < 0.5


@pytest.mark.parametrize(("checkpoint", "name"), [("mobilenet_v1_0.25_128", "no"), ("vit_tiny_patch16_224", "bf16")])
def test_real_networks(checkpoint: str, name: str, assets: Path, bfloat16_pays, tmp_path):
    """Of those that a head's accuracy was measured on: `benchmarks/results/feature_precision.md`."""
    data = load_image_data(FinetuneConfig(model="m", dataset=str(assets / "datasets" / "clothing10.tar")))
    loaded = load_checkpoint(str(assets / "checkpoints" / checkpoint), label_names=data.label_names)
    assert chosen("feature-extraction", tmp_path, SampledPictures(data, loaded)).name == name


def test_the_share_is_of_what_pictures_differ_by():
    full = [torch.tensor([[0.0, 10.0], [2.0, 10.0]])]
    half = [torch.tensor([[0.1, 10.0], [1.9, 10.0]])]
    assert moved_share(full, half) == pytest.approx(0.1)
    shifted = [full[0] + 1000.0]
    assert moved_share(shifted, [half[0] + 1000.0]) == pytest.approx(0.1, rel=1e-3)
    assert moved_share([torch.ones(3, 2)], [torch.ones(3, 2)]) is None
    assert moved_share([], []) is None


def test_a_given_precision_is_not_measured(nothing_measured, monkeypatch: pytest.MonkeyPatch, tmp_path):
    found = chosen("feature-extraction", tmp_path, bf16=False)
    assert (found.name, found.reason) == ("no", "as you asked")
    assert chosen("feature-extraction", tmp_path, bf16=True).name == "bf16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    found = chosen("feature-extraction", tmp_path)
    assert (found.name, found.reason) == ("no", "as the launcher says")


@pytest.mark.parametrize("recorded", ["bf16", "no", "bf16 where it learns"])
def test_a_resumed_run_keeps_the_precision_it_began_with(recorded: str, nothing_measured, tmp_path):
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    write_identity(checkpoint, {PRECISION: recorded})
    seal_checkpoint(checkpoint)
    asked = {"resume_from_checkpoint": "last"}
    assert chosen("partial", tmp_path, **asked).recorded == recorded
    assert chosen("partial", tmp_path, **asked, bf16=recorded == "no").recorded != recorded


def test_the_arguments_follow(bfloat16_pays, monkeypatch: pytest.MonkeyPatch, tmp_path):
    asked = config("feature-extraction", {"output_dir": str(tmp_path), "use_cpu": True})
    for share, name in ((0.0, "bf16"), (1.0, "no")):
        moved(monkeypatch, share)
        args, why = arguments_of(asked, 1e-3, tiny_sample())
        assert (args.mixed_precision, why.name) == (name, name)


def test_a_gpu_has_bfloat16_or_float16(monkeypatch: pytest.MonkeyPatch):
    device = types.SimpleNamespace(type="cuda")
    for supported, name in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda answer=supported, **kwargs: answer)
        assert precision._faster(device) == name


def test_processes_agree_on_what_the_main_one_finds_faster(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", str(unused_port()), "-m", "tests.training.precision_run", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "ACCELERATE_MIXED_PRECISION"}
    environment |= {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert [(tmp_path / rank).read_text(encoding="utf-8") for rank in "01"] == ["bf16, 2 processes"] * 2
