"""timm's folders: each fault of the wrapper that is stepped around, and the proof that it is there."""

import json
from pathlib import Path

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from transformers import AutoModelForImageClassification, TimmWrapperConfig

from hf_transfer.models.checkpoint import load_checkpoint
from tests.models.checkpoint_folders import message_of
from tests.models.families import tiny_image
from tests.models.timm_architectures import build_tiny_timm_checkpoint

OLD = ("old_0", "old_1", "old_2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:  # in place of the ViT in conftest.py
    torch.manual_seed(0)
    return build_tiny_timm_checkpoint(tmp_path / "checkpoint", "test_vit")


def _config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def _pipeline_labels(folder: Path) -> set[str]:
    answers = transformers.pipeline("image-classification", model=str(folder), device="cpu")(tiny_image(), top_k=None)
    return {answer["label"] for answer in answers}


@pytest.mark.parametrize("second", [("x", "y", "z"), ("p", "q")])
def test_timm_on_timm_has_the_new_names(folder: Path, tmp_path: Path, second: tuple[str, ...]):
    source = folder
    for number, labels in enumerate([("a", "b", "c"), second]):
        checkpoint = load_checkpoint(str(source), label_names=labels)
        source = tmp_path / f"run-{number}"
        checkpoint.model.save_pretrained(source)
        checkpoint.image_processor.save_pretrained(source)
        assert _pipeline_labels(source) == set(labels)
        assert _config(source)["label_names"] == list(labels)
        assert _config(source)["num_classes"] == len(labels)


def test_upstream_still_keeps_old_names(folder: Path, tmp_path: Path):
    """When this fails, `_drop_old_labels` can go (transformers#35553)."""
    names = {0: "a", 1: "b", 2: "c"}
    config = _config(folder)
    config["model_args"].pop("num_classes")
    (folder / "config.json").write_text(json.dumps(config))
    model = AutoModelForImageClassification.from_pretrained(folder, id2label=names)
    model.save_pretrained(tmp_path / "saved")
    assert _config(tmp_path / "saved")["label_names"] == list(OLD)


def test_upstream_still_trips_over_num_classes(folder: Path):
    """When this fails, `_drop_num_classes_from_model_args` can go."""
    assert _config(folder)["model_args"]["num_classes"] == 3
    with pytest.raises(TypeError, match="multiple values for keyword argument 'num_classes'"):
        AutoModelForImageClassification.from_pretrained(folder)
    assert load_checkpoint(str(folder), label_names=OLD)


def test_other_model_args_stay(tmp_path: Path):
    folder = build_tiny_timm_checkpoint(tmp_path / "small", "deit_tiny_distilled_patch16_224")
    assert _config(folder)["model_args"]["patch_size"] == 8
    checkpoint = load_checkpoint(str(folder), label_names=OLD)
    assert checkpoint.model.config.model_args["patch_size"] == 8
    assert checkpoint.model.timm_model.patch_embed.grid_size == (4, 4)
    pixels = checkpoint.image_processor(tiny_image(), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)


def test_what_is_saved_opens_in_timm(folder: Path, tmp_path: Path):
    checkpoint = load_checkpoint(str(folder), label_names=("a", "b"))
    checkpoint.model.save_pretrained(tmp_path / "saved")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True)
    pixels = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.allclose(theirs.eval()(pixels), checkpoint.model(pixel_values=pixels).logits)
    assert theirs.pretrained_cfg["label_names"] == ["a", "b"]


def test_image_processor_is_timms_own(folder: Path):
    assert not (folder / "preprocessor_config.json").exists()
    checkpoint = load_checkpoint(str(folder), label_names=OLD)
    settings = timm.data.resolve_data_config(_config(folder)["pretrained_cfg"])
    expected = timm.data.create_transform(**settings, is_training=False)(tiny_image())
    pixels = checkpoint.image_processor(tiny_image(), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(pixels, expected)


@pytest.mark.parametrize("as_map", [False, True])
def test_kept_head_is_matched_by_name(folder: Path, as_map: bool):
    if as_map:
        config = _config(folder)
        config["label_names"] = {str(index): name for index, name in enumerate(OLD)}
        (folder / "config.json").write_text(json.dumps(config))
    before = timm.create_model(f"local-dir:{folder}", pretrained=True).head.weight
    kept = load_checkpoint(str(folder), label_names=("old_1", "old_2", "old_0"), keep_head=True)
    assert torch.equal(kept.model.timm_model.head.weight, before[[1, 2, 0]])
    assert "the checkpoint lacks 'cat'" in message_of(folder, ("old_0", "old_1", "cat"), keep_head=True)


def test_upstream_still_enumerates_the_keys_of_a_label_map():
    """When this fails, `_plain_label_names` can go."""
    config = TimmWrapperConfig.from_dict(
        {"architecture": "test_vit", "label_names": {"0": "a", "1": "b"}, "pretrained_cfg": {}, "num_classes": 2}
    )
    assert list(config.id2label.values()) == ["0", "1"]


def test_backbone_without_a_head(tmp_path: Path):
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0)
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    checkpoint = load_checkpoint(str(tmp_path), label_names=OLD)
    assert checkpoint.new_tensors == ("timm_model.head.weight", "timm_model.head.bias")
    assert "no classification head to keep" in message_of(tmp_path, OLD, keep_head=True)


def test_fresh_weights_are_drawn_as_timm_does(tmp_path: Path):
    torch.manual_seed(0)
    folder = build_tiny_timm_checkpoint(tmp_path, "test_resnet")
    checkpoint = load_checkpoint(str(folder), label_names=OLD, fresh_weights=True)
    wrapper = transformers.TimmWrapperForImageClassification(checkpoint.model.config).timm_model
    ours, theirs, wrapped = (
        model.layer1[0].conv1.weight.std().item()
        for model in (checkpoint.model.timm_model, timm.create_model("test_resnet"), wrapper)
    )
    assert ours == pytest.approx(theirs, rel=0.1)
    assert wrapped < 0.5 * theirs  # when this fails, `fresh_timm_weights` can go (transformers#34564)
    assert set(checkpoint.new_tensors) == set(checkpoint.model.state_dict())


@pytest.mark.parametrize("architecture", ["test_vit", "test_efficientnet", "test_convnext", "test_resnet"])
def test_head_dropout_is_set_and_saved(tmp_path: Path, architecture: str):
    torch.manual_seed(0)
    folder = build_tiny_timm_checkpoint(tmp_path / "checkpoint", architecture)
    checkpoint = load_checkpoint(str(folder), label_names=OLD, head_dropout=0.9)
    assert "is 0.9" in checkpoint.notes[0]
    checkpoint.model.save_pretrained(tmp_path / "saved")
    assert _config(tmp_path / "saved")["model_args"]["drop_rate"] == 0.9
    pixels = torch.rand(2, 3, 160, 160)
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "saved")
    for module in again.modules():
        module.training = not isinstance(module, torch.nn.BatchNorm2d)
    assert not torch.equal(again(pixels).logits, again(pixels).logits)


def test_unknown_architecture(folder: Path):
    config = _config(folder)
    config["architecture"] = "vit_from_the_future"
    (folder / "config.json").write_text(json.dumps(config))
    assert "does not know the architecture 'vit_from_the_future'" in message_of(folder, OLD)


def test_config_without_pretrained_cfg(folder: Path):
    (folder / "config.json").write_text(json.dumps({"architecture": "test_vit", "num_classes": 3}))
    assert "has no `pretrained_cfg`" in message_of(folder, OLD)


def test_tensor_without_a_place(folder: Path):
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "extra.weight": torch.ones(2)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert "extra.weight" in message_of(folder, OLD)


def test_real_timm_checkpoint(assets: Path, tmp_path: Path):
    checkpoint = load_checkpoint(str(assets / "checkpoints" / "timm_vit_tiny_patch16_224"), label_names=("a", "b"))
    assert checkpoint.new_tensors == ("timm_model.head.weight", "timm_model.head.bias")
    pixels = checkpoint.image_processor(tiny_image(), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 224, 224)
    checkpoint.model.save_pretrained(tmp_path)
    assert _pipeline_labels(tmp_path) == {"a", "b"}
