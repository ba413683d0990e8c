"""Pictures varied in batches on the device (here the CPU): one trajectory, however it is cut, stopped or cached."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_transfer.data.mixing import MixingCollator, collate_images
from hf_transfer.training.picture_trainer import PictureTrainer
from tests.processes import launched, run_on_cpus
from tests.training.cached_run import cached_trainer, weights_of
from tests.training.test_trajectory import assert_same
from tests.training.tiny_run import NUM_LABELS, tiny_model, tiny_trainer, trained_weights


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of an uninterrupted training without workers."""
    return trained_weights("vit", tmp_path_factory.mktemp("whole"), 8, 1, varied_on="device")


def test_it_ends_near_the_training_on_the_cpu(whole: dict[str, torch.Tensor], tmp_path: Path):
    """A level of 255 here and there is the whole difference; another draw would move weights by far more."""
    on_cpu = trained_weights("vit", tmp_path, 8, 1, varied_on="cpu")
    before = {f"vit/{name}": tensor for name, tensor in tiny_model("vit").state_dict().items()}
    moved = max(float((on_cpu[name] - before[name]).abs().max()) for name in on_cpu)
    apart = max(float((on_cpu[name] - whole[name]).abs().max()) for name in on_cpu)
    assert apart < 0.01 * moved


def test_workers_do_not_change_the_weights(whole: dict[str, torch.Tensor], tmp_path: Path):
    found = trained_weights("vit", tmp_path, 8, 1, varied_on="device", dataloader_num_workers=2)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in found.items())


def test_accumulation_does_not_change_the_weights(whole: dict[str, torch.Tensor], tmp_path: Path):
    assert_same(whole, trained_weights("vit", tmp_path, 2, 4, varied_on="device"))


def test_resumed_is_uninterrupted(whole: dict[str, torch.Tensor], tmp_path: Path):
    settings = {"per_device_train_batch_size": 8, "varied_on": "device", "save_strategy": "steps", "save_steps": 2}
    tiny_trainer(tiny_model("vit"), tmp_path, **settings).train()
    model = tiny_model("vit")
    tiny_trainer(model, tmp_path, **settings).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    found = weights_of(model)
    assert all(torch.equal(tensor, whole[f"vit/{name}"]) for name, tensor in found.items())


@pytest.mark.slow
def test_two_processes_train_what_one_does(whole: dict[str, torch.Tensor], tmp_path: Path):
    out = tmp_path / "two.safetensors"
    result = run_on_cpus(launched("tests.training.tiny_run", str(out), "4", "1", "vit"), TEST_VARIED_ON="device")
    assert result.returncode == 0, result.stderr[-3000:]
    assert_same(whole, load_file(out))


def test_what_is_kept_of_frozen_layers_is_of_the_same_pixels(tmp_path: Path):
    weights = []
    for mode in ("off", "auto"):
        model = tiny_model("vit")
        settings = {"strategy": "feature-extraction", "num_train_epochs": 4, "varied_on": "device"}
        trainer = cached_trainer(model, tmp_path / mode, "vit", tmp_path / "cache", mode=mode, **settings)
        trainer.train()
        assert trainer.prefix is not None
        assert [fact["cached"] for fact in trainer.prefix.facts] == [mode == "auto"]
        weights.append(weights_of(model))
    assert_same(*weights)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0)])
def test_pictures_are_mixed_after_they_are_varied(mixup: float, cutmix: float, tmp_path: Path):
    """With the same partners in the same shares."""
    batches = {}
    for place in ("cpu", "device"):
        collator = MixingCollator(NUM_LABELS, mixup, cutmix, seed=2)
        trainer = tiny_trainer(tiny_model("vit"), tmp_path, varied_on=place, train_collator=collator)
        batches[place] = trainer._prepare_inputs(collator([trainer.train_dataset[visit] for visit in range(8)]))
    assert batches["device"].keys() == {"pixel_values", "labels"}
    assert torch.equal(batches["device"]["labels"], batches["cpu"]["labels"])
    difference = (batches["device"]["pixel_values"] - batches["cpu"]["pixel_values"]).abs()
    # Pixels go from -1 to 1: a level is 2 / 255.
    assert difference.mean() < 0.1 * 2 / 255
    assert difference.max() < 2.5 * 2 / 255


def test_operations_are_counted_as_on_the_cpu(tmp_path: Path):
    counts = []
    for place in ("cpu", "device"):
        trainer = tiny_trainer(tiny_model("vit"), tmp_path, varied_on=place)
        assert isinstance(trainer, PictureTrainer)
        counts.append(trainer.floating_point_ops(collate_images([trainer.train_dataset[visit] for visit in range(4)])))
    assert counts[0] == counts[1] > 0
