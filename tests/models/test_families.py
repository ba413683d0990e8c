"""Every image-classification family of transformers, and a dozen of timm's: load, forward, one step, save, reload."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from hf_transfer.errors import UserError
from hf_transfer.models.checkpoint import Checkpoint, load_checkpoint
from hf_transfer.models.configuration import OTHER_INTERFACE
from hf_transfer.models.head import find_head
from tests.models.families import (
    FAMILIES,
    NOT_BUILT,
    VIT,
    build_tiny_checkpoint,
    classes_of,
    tiny_image,
    tiny_image_processor,
)
from tests.models.timm_architectures import TIMM_ARCHITECTURES, build_tiny_timm_checkpoint

LABELS = ("zebra", "ant", "cow", "bee")
CASES = [
    pytest.param(model_type, model_class.__name__, id=model_class.__name__)
    for model_type in FAMILIES
    if model_type not in OTHER_INTERFACE
    for model_class in classes_of(model_type)
]
TIMM_HEADS = {
    "deit_tiny_distilled_patch16_224": ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias"),
    "ghostnet_050": ("classifier.weight", "classifier.bias"),
    "levit_conv_128s": ("head.linear.weight", "head.linear.bias", "head_dist.linear.weight", "head_dist.linear.bias"),
    "mixer_s32_224": ("head.weight", "head.bias"),
    "mobilenetv3_small_050": ("classifier.weight", "classifier.bias"),
    "test_efficientnet": ("classifier.weight", "classifier.bias"),
    "test_efficientnet_gn": ("classifier.weight", "classifier.bias"),
    "test_resnet": ("fc.weight", "fc.bias"),
    "test_vit": ("head.weight", "head.bias"),
    "test_vit3": ("head.weight", "head.bias"),
}
"""Where timm's head is not `head.fc`."""


def test_every_family_is_accounted_for():
    known = set(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
    assert known == set(FAMILIES) | set(NOT_BUILT)
    assert not set(FAMILIES) & set(NOT_BUILT)


def _class_named(name: str) -> type[transformers.PreTrainedModel]:
    return getattr(transformers, name)


def _assert_only_head_is_new(checkpoint: Checkpoint, before: dict[str, torch.Tensor]) -> None:
    after = checkpoint.model.state_dict()
    assert set(after) == set(before)
    assert set(checkpoint.new_tensors) == set(checkpoint.head_parameter_names) == set(find_head(checkpoint.model))
    for name, tensor in after.items():
        if name not in checkpoint.new_tensors:
            assert torch.equal(tensor, before[name]), name
        assert not tensor.is_floating_point() or tensor.dtype == torch.float32


def _assert_one_step_moves_the_head(checkpoint: Checkpoint) -> None:
    pixels = checkpoint.image_processor([tiny_image(seed) for seed in range(4)], return_tensors="pt")["pixel_values"]
    parameters = dict(checkpoint.model.named_parameters())
    head = [parameters[name] for name in checkpoint.head_parameter_names]
    before = [parameter.detach().clone() for parameter in head]
    checkpoint.model.train()
    logits = checkpoint.model(pixel_values=pixels).logits
    assert logits.shape == (4, len(LABELS))
    loss = F.cross_entropy(logits, torch.tensor([0, 0, 1, 2]))
    loss.backward()
    assert loss.isfinite()
    torch.optim.Rprop(head, lr=0.1).step()  # goes by the sign: random features can be as small as 1e-10
    for name, old, new in zip(checkpoint.head_parameter_names, before, head, strict=True):
        assert not torch.equal(old, new), name


def _assert_survives_saving(checkpoint: Checkpoint, folder: Path) -> None:
    checkpoint.model.save_pretrained(folder)
    checkpoint.image_processor.save_pretrained(folder)
    again = AutoModelForImageClassification.from_pretrained(folder)
    assert again.config.id2label == dict(enumerate(LABELS))
    assert again.config.label2id == {name: index for index, name in enumerate(LABELS)}
    for name, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    picture = tiny_image(7)
    ours = checkpoint.image_processor(picture, return_tensors="pt")["pixel_values"]
    theirs = AutoImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")["pixel_values"]
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("model_type", "class_name"), CASES)
def test_family(model_type: str, class_name: str, tmp_path: Path):
    torch.manual_seed(0)
    model_class = _class_named(class_name)
    folder = build_tiny_checkpoint(tmp_path / "base", model_type, 3, model_class)
    before = model_class.from_pretrained(folder).state_dict()
    checkpoint = load_checkpoint(str(folder), label_names=LABELS)
    assert checkpoint.architecture == class_name
    assert type(checkpoint.model) is model_class
    assert checkpoint.revision is None
    _assert_only_head_is_new(checkpoint, before)
    _assert_one_step_moves_the_head(checkpoint)
    if len(classes_of(model_type)) == 1 or class_name == classes_of(model_type)[0].__name__:
        _assert_survives_saving(checkpoint, tmp_path / "saved")


@pytest.mark.parametrize(("model_type", "class_name"), CASES)
def test_head_of_the_right_size_is_new_too(model_type: str, class_name: str, tmp_path: Path):
    torch.manual_seed(0)
    model_class = _class_named(class_name)
    folder = build_tiny_checkpoint(tmp_path, model_type, 3, model_class)
    before = model_class.from_pretrained(folder).state_dict()
    torch.manual_seed(1)
    first = load_checkpoint(str(folder), label_names=LABELS[:3])
    torch.manual_seed(1)
    second = load_checkpoint(str(folder), label_names=LABELS[:3])
    _assert_only_head_is_new(first, before)
    for name in first.new_tensors:
        new = first.model.state_dict()[name]
        assert torch.equal(new, second.model.state_dict()[name]), name
        if name.endswith("weight"):
            assert not torch.equal(new, before[name]), name


@pytest.mark.parametrize("model_type", OTHER_INTERFACE)
def test_family_of_another_interface(model_type: str, tmp_path: Path):
    folder = build_tiny_checkpoint(tmp_path, model_type)
    with pytest.raises(UserError, match="takes `pixel_values` and returns `logits`") as caught:
        load_checkpoint(str(folder), label_names=LABELS)
    assert OTHER_INTERFACE[model_type] in caught.value.given


def test_family_with_native_code_asks_for_its_package(tmp_path: Path):
    transformers.DinatConfig().save_pretrained(tmp_path)
    tiny_image_processor("vit").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="needs a package that is not installed.*natten"):
        load_checkpoint(str(tmp_path), label_names=LABELS, fresh_weights=True)


def test_family_without_a_head(tmp_path: Path):
    text = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    config = transformers.ShieldGemma2Config(
        text_config={**text, "num_attention_heads": 2, "num_key_value_heads": 1},
        vision_config={**VIT, "vision_use_head": False},
        mm_tokens_per_image=4,
    )
    config.save_pretrained(tmp_path)
    tiny_image_processor("siglip").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no head whose size depends on the number of labels"):
        load_checkpoint(str(tmp_path), label_names=LABELS, fresh_weights=True)


@pytest.mark.parametrize("architecture", TIMM_ARCHITECTURES)
def test_timm_architecture(architecture: str, tmp_path: Path):
    torch.manual_seed(0)
    folder = build_tiny_timm_checkpoint(tmp_path / "base", architecture)
    before = _timm_tensors(folder)
    checkpoint = load_checkpoint(str(folder), label_names=LABELS)
    assert checkpoint.architecture == f"TimmWrapperForImageClassification ({architecture})"
    names = TIMM_HEADS.get(architecture, ("head.fc.weight", "head.fc.bias"))
    assert checkpoint.head_parameter_names == tuple(f"timm_model.{name}" for name in names)
    _assert_only_head_is_new(checkpoint, before)
    _assert_one_step_moves_the_head(checkpoint)
    _assert_survives_saving(checkpoint, tmp_path / "saved")


def _timm_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {f"timm_model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
