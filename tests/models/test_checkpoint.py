"""What a loaded checkpoint is: provenance, precision, fresh weights, the real ones."""

import hashlib
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageClassification

from hf_transfer.models.checkpoint import load_checkpoint
from hf_transfer.models.head import find_head
from tests.models.checkpoint_folders import message_of
from tests.models.families import build_tiny_model

OLD = ("old_0", "old_1", "old_2")
NEW = ("cat", "dog")


def test_provenance(folder: Path):
    checkpoint = load_checkpoint(str(folder), label_names=NEW)
    assert checkpoint.source == str(folder)
    assert checkpoint.weights_sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert checkpoint.new_tensors == ("classifier.weight", "classifier.bias")
    assert checkpoint.notes == ()
    assert checkpoint.model.config.problem_type == "single_label_classification"
    assert checkpoint.model.config.num_labels == 2
    assert not checkpoint.model.training


def test_sharded_weights(folder: Path):
    expected = AutoModelForImageClassification.from_pretrained(folder).state_dict()
    model = build_tiny_model("vit")
    model.load_state_dict(expected)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="10KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    checkpoint = load_checkpoint(str(folder), label_names=NEW)
    digest = hashlib.sha256(b"".join(shard.read_bytes() for shard in shards)).hexdigest()
    assert checkpoint.weights_sha256 == digest
    name = "vit.embeddings.position_embeddings"
    assert torch.equal(checkpoint.model.state_dict()[name], expected[name])
    shards[0].unlink()
    assert "lacks 1 of its weight files" in message_of(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_trained_in_float32(folder: Path, dtype: torch.dtype):
    AutoModelForImageClassification.from_pretrained(folder).to(dtype).save_pretrained(folder)
    assert AutoModelForImageClassification.from_pretrained(folder).dtype == dtype
    checkpoint = load_checkpoint(str(folder), label_names=NEW)
    assert {parameter.dtype for parameter in checkpoint.model.parameters()} == {torch.float32}
    assert checkpoint.model.config.dtype == torch.float32


def test_find_head_leaves_the_model_alone():
    torch.manual_seed(0)
    model = build_tiny_model("swin")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert find_head(model) == ("classifier.weight", "classifier.bias")
    assert model.config.num_labels == 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_fresh_weights(folder: Path):
    (folder / "model.safetensors").unlink()  # only architecture and image processor are taken
    torch.manual_seed(1)
    first = load_checkpoint(str(folder), label_names=NEW, fresh_weights=True)
    torch.manual_seed(1)
    second = load_checkpoint(str(folder), label_names=NEW, fresh_weights=True)
    assert first.weights_sha256 is None
    assert set(first.new_tensors) == set(first.model.state_dict())
    assert first.head_parameter_names == ("classifier.weight", "classifier.bias")
    assert first.model.config.id2label == dict(enumerate(NEW))
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])
    assert first.model.vit.embeddings.position_embeddings.std() > 0


def test_fresh_weights_have_no_head_to_keep(folder: Path):
    assert "drop --keep_head" in message_of(folder, OLD, keep_head=True, fresh_weights=True)


def test_quickstart():
    checkpoint = load_checkpoint("quickstart", label_names=NEW)
    assert checkpoint.source == "quickstart"
    assert checkpoint.revision is None
    assert checkpoint.model.config.name_or_path == "quickstart"


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_128", "mobilenet_v2_1.0_224", "vit_tiny_patch16_224"])
def test_real_checkpoint(assets: Path, name: str):
    checkpoint = load_checkpoint(str(assets / "checkpoints" / name), label_names=NEW)
    assert checkpoint.new_tensors == ("classifier.weight", "classifier.bias")
    assert checkpoint.notes == ()
