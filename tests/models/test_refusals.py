"""Tensors that do not fit, and folders that are no image classifier: one message each."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from hf_transfer.models.checkpoint import load_checkpoint
from hf_transfer.models.configuration import TIMM_TWINS
from tests.models.checkpoint_folders import edit_config, edit_tensors, message_of
from tests.models.families import VIT, build_tiny_model, tiny_image_processor

OLD = ("old_0", "old_1", "old_2")
NEW = ("cat", "dog")


def test_missing_tensor_beyond_the_head(folder: Path):
    edit_tensors(folder, lambda tensors: tensors.pop("vit.layernorm.weight"))
    message = message_of(folder)
    assert "lacks tensors" in message
    assert "vit.layernorm.weight" in message
    assert "classifier" not in message.split("needs besides its head")[1]


def test_tensor_of_another_shape_beyond_the_head(folder: Path):
    edit_tensors(folder, lambda tensors: tensors.update({"vit.layernorm.weight": torch.ones(5)}))
    assert "vit.layernorm.weight is (5,), should be (16,)" in message_of(folder)


def test_tensor_without_a_place(folder: Path):
    edit_tensors(folder, lambda tensors: tensors.update({"vit.extra.weight": torch.ones(5)}))
    message = message_of(folder)
    assert "has no place for" in message
    assert "vit.extra.weight" in message


def test_base_model_gets_a_head_and_its_pooler_is_reported(tmp_path: Path):
    torch.manual_seed(0)
    model = transformers.ViTModel(transformers.ViTConfig(**VIT))
    model.save_pretrained(tmp_path)
    tiny_image_processor("vit").save_pretrained(tmp_path)
    checkpoint = load_checkpoint(str(tmp_path), label_names=NEW)
    assert checkpoint.new_tensors == ("classifier.weight", "classifier.bias")
    assert torch.equal(checkpoint.model.vit.layernorm.weight, model.layernorm.weight)
    (note,) = checkpoint.notes
    assert "saved from ViTModel" in note
    assert "pooler.dense.bias" in note


def test_clip_leaves_its_text_tower_unused(tmp_path: Path):
    torch.manual_seed(0)
    config = build_tiny_model("clip").config
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    tiny_image_processor("clip").save_pretrained(tmp_path)
    checkpoint = load_checkpoint(str(tmp_path), label_names=NEW)
    assert checkpoint.new_tensors == ("classifier.weight", "classifier.bias")
    assert "saved from CLIPModel" in checkpoint.notes[0]


def test_damaged_weights(folder: Path):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "are damaged" in message_of(folder)


def test_other_task(tmp_path: Path):
    config = transformers.BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    transformers.BertModel(config).save_pretrained(tmp_path)
    assert "is a 'bert' checkpoint, no image classifier" in message_of(tmp_path)


@pytest.mark.parametrize("model_type", TIMM_TWINS)
def test_backbone_without_a_class_names_its_timm_twin(folder: Path, model_type: str):
    transformers.CONFIG_MAPPING[model_type]().save_pretrained(folder)
    message = message_of(folder)
    assert f"is a '{model_type}' backbone" in message
    assert f"--model {TIMM_TWINS[model_type]}" in message


def test_remote_code_is_not_run(folder: Path):
    (folder / "modeling_evil.py").write_text("raise SystemExit('remote code ran')")
    change = {"model_type": "evil", "auto_map": {"AutoModelForImageClassification": "modeling_evil.Evil"}}
    edit_config(folder, lambda config: config.update(change))
    assert "brings its own code (model type 'evil'), which is not run here" in message_of(folder)


def test_remote_code_beside_a_known_family_is_ignored(folder: Path):
    (folder / "modeling_evil.py").write_text("raise SystemExit('remote code ran')")
    change = {"auto_map": {"AutoModelForImageClassification": "modeling_evil.Evil"}}
    edit_config(folder, lambda config: config.update(change))
    assert load_checkpoint(str(folder), label_names=NEW).architecture == "ViTForImageClassification"


def test_unknown_model_type(folder: Path):
    edit_config(folder, lambda config: config.update(model_type="vitt"))
    assert "does not know the model type 'vitt'" in message_of(folder)


def test_no_model_type(folder: Path):
    edit_config(folder, lambda config: config.pop("model_type"))
    assert "names neither a transformers `model_type` nor a timm `architecture`" in message_of(folder)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_damaged_config(folder: Path, text: str):
    (folder / "config.json").write_text(text)
    message = message_of(folder)
    assert "damaged" in message or "no JSON object" in message


def test_config_with_an_impossible_value(folder: Path):
    edit_config(folder, lambda config: config.update(hidden_size="many"))
    assert "cannot be used" in message_of(folder)


def test_no_config(folder: Path):
    (folder / "config.json").unlink()
    assert "holds no config.json" in message_of(folder)


def test_no_image_processor(folder: Path):
    (folder / "preprocessor_config.json").unlink()
    message = message_of(folder)
    assert "has no image processor" in message
    assert "AutoImageProcessor" in message


def test_image_processor_of_unknown_class(folder: Path):
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "EvilImageProcessor"}))
    assert "cannot load the image processor" in message_of(folder)


def test_image_processor_that_is_remote_code(folder: Path):
    (folder / "processing_evil.py").write_text("raise SystemExit('remote code ran')")
    settings = {"auto_map": {"AutoImageProcessor": "processing_evil.Evil"}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    change = {"model_type": "dinov2_with_registers", "architectures": ["Dinov2WithRegistersModel"]}
    edit_config(folder, lambda config: config.update(change))  # a family for which transformers names no processor
    assert "is code from the Hub, which is not run here" in message_of(folder)


def test_damaged_image_processor(folder: Path):
    (folder / "preprocessor_config.json").write_text("{")
    assert "cannot load the image processor" in message_of(folder)


def test_only_pickle(folder: Path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "only as pickle (pytorch_model.bin)" in message_of(folder)


def test_file_instead_of_folder(folder: Path):
    assert f"--model {folder}" in message_of(folder / "model.safetensors").split("Try:")[1]


def test_revision_of_a_folder(folder: Path):
    assert "drop --model_revision" in message_of(folder, revision="main")
