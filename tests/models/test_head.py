"""The head: found, new, kept and reordered, and the dropout before it."""

from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoImageProcessor, AutoModelForImageClassification, PretrainedConfig

from hf_transfer.errors import UserError
from hf_transfer.models.checkpoint import load_checkpoint
from hf_transfer.models.head import find_head
from tests.models.checkpoint_folders import edit_config, edit_tensors, message_of
from tests.models.families import VIT, build_tiny_checkpoint, tiny_image

OLD = ("old_0", "old_1", "old_2")
NEW = ("cat", "dog")


def _logits(model: transformers.PreTrainedModel, folder: Path) -> torch.Tensor:
    pixels = AutoImageProcessor.from_pretrained(folder)(tiny_image(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return model(pixel_values=pixels).logits[0]


def test_new_head_follows_the_seed(folder: Path):
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(load_checkpoint(str(folder), label_names=NEW).model.classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_kept_head_is_matched_by_name(folder: Path):
    original = AutoModelForImageClassification.from_pretrained(folder)
    kept = load_checkpoint(str(folder), label_names=("old_2", "old_0", "old_1"), keep_head=True)
    assert kept.new_tensors == ()
    assert kept.head_parameter_names == ("classifier.weight", "classifier.bias")
    assert kept.model.config.id2label == {0: "old_2", 1: "old_0", 2: "old_1"}
    assert torch.equal(_logits(kept.model, folder), _logits(original, folder)[[2, 0, 1]])


def test_kept_head_with_other_labels(folder: Path):
    message = message_of(folder, ("old_0", "old_1", "cat"), keep_head=True)
    assert "the checkpoint lacks 'cat', the data set lacks 'old_2'" in message
    assert "drop --keep_head" in message


def test_kept_head_with_fewer_labels(folder: Path):
    assert "has 3 labels, the data set has 2" in message_of(folder, OLD[:2], keep_head=True)


def test_kept_head_with_two_labels_of_one_name(folder: Path):
    edit_config(folder, lambda config: config.update(id2label={"0": "crane", "1": "crane", "2": "old_2"}))
    assert "several labels called 'crane'" in message_of(folder, OLD, keep_head=True)


def test_labels_of_the_data_set_must_differ(folder: Path):
    assert "'crane' stands for more than one class" in message_of(folder, ("crane", "crane", "cat"))
    assert "1 label(s)" in message_of(folder, ("cat",))


def test_kept_head_of_a_checkpoint_without_one(folder: Path):
    edit_tensors(folder, lambda tensors: [tensors.pop(name) for name in ("classifier.weight", "classifier.bias")])
    assert "has no classification head to keep" in message_of(folder, OLD, keep_head=True)
    assert load_checkpoint(str(folder), label_names=OLD).new_tensors == ("classifier.weight", "classifier.bias")


def test_model_without_a_head():
    config = transformers.ViTConfig(**VIT, num_labels=0)
    with pytest.raises(UserError, match="no head whose size depends on the number of labels"):
        find_head(transformers.ViTModel(config))


def _mobilenet(folder: Path, model_type: str, probability: float) -> Path:
    torch.manual_seed(0)
    build_tiny_checkpoint(folder, model_type)
    edit_config(folder, lambda config: config.update(classifier_dropout_prob=probability))
    return folder


@pytest.mark.parametrize(("model_type", "default"), [("mobilenet_v1", 0.999), ("mobilenet_v2", 0.8)])
def test_dropout_of_the_defaults_is_noticed(tmp_path: Path, model_type: str, default: float):
    assert transformers.CONFIG_MAPPING[model_type]().classifier_dropout_prob == default  # when not, the trap is gone
    folder = _mobilenet(tmp_path / "checkpoint", model_type, default)
    (note,) = load_checkpoint(str(folder), label_names=NEW).notes
    assert f"is {default:g}" in note
    assert "--head_dropout" in note


def test_dropout_of_one_half_is_fine(tmp_path: Path):
    folder = _mobilenet(tmp_path / "checkpoint", "mobilenet_v1", 0.5)
    assert load_checkpoint(str(folder), label_names=NEW).notes == ()


@pytest.mark.parametrize("fresh_weights", [False, True])
def test_head_dropout_is_set_and_saved(tmp_path: Path, fresh_weights: bool):
    folder = _mobilenet(tmp_path / "checkpoint", "mobilenet_v1", 0.999)
    checkpoint = load_checkpoint(str(folder), label_names=NEW, head_dropout=0.3, fresh_weights=fresh_weights)
    assert checkpoint.notes == ()
    assert checkpoint.model.dropout.p == 0.3
    checkpoint.model.save_pretrained(tmp_path / "saved")
    assert PretrainedConfig.from_pretrained(tmp_path / "saved").classifier_dropout_prob == 0.3


def test_head_dropout_changes_no_other_dropout(tmp_path: Path):
    torch.manual_seed(0)
    folder = build_tiny_checkpoint(tmp_path, "mobilevit")
    before = load_checkpoint(str(folder), label_names=NEW).model
    after = load_checkpoint(str(folder), label_names=NEW, head_dropout=0.4).model
    changed = [
        name
        for name, module in after.named_modules()
        if isinstance(module, torch.nn.Dropout) and module.p != before.get_submodule(name).p
    ]
    assert changed == ["dropout"]


def test_head_dropout_where_there_is_none(folder: Path):
    assert "has no dropout right before its head" in message_of(folder, head_dropout=0.2)


@pytest.mark.parametrize("value", [-0.1, 1.0, 5])
def test_head_dropout_that_is_no_probability(folder: Path, value: float):
    assert f"--head_dropout {value}" in message_of(folder, head_dropout=value)
