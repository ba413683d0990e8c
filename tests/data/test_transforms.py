"""Evaluation pixels are the processor's, bit for bit; training pixels have its size and scale."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor, pipeline
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from hf_transfer.data.processor_facts import processor_facts
from hf_transfer.data.transforms import (
    POLICIES,
    AugmentationSettings,
    build_eval_transform,
    build_train_transform,
    resolve_augmentation,
)
from hf_transfer.errors import UserError
from hf_transfer.models.checkpoint import load_checkpoint
from tests.models.families import build_tiny_model
from tests.models.timm_architectures import build_tiny_timm_checkpoint

SHAPES = {"square": (64, 64), "wide": (300, 90), "tall": (70, 260), "tiny": (5, 3), "exact": (224, 224)}
PROCESSORS = {
    "vit": transformers.ViTImageProcessor(),
    "convnext-crop": transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875),
    "convnext-384": transformers.ConvNextImageProcessor(size={"shortest_edge": 384}),
    "resnet": transformers.BitImageProcessor(),
    "mobilenet_v1": transformers.MobileNetV1ImageProcessor(),
    "mobilenet_v2": transformers.MobileNetV2ImageProcessor(),
    "swin": transformers.ViTImageProcessor(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]),
    "efficientnet": transformers.EfficientNetImageProcessor(),
    "mobilevit": transformers.MobileViTImageProcessor(size={"shortest_edge": 288}),
    "levit": transformers.LevitImageProcessor(),
    "beit": transformers.BeitImageProcessor(),
    "poolformer": transformers.PoolFormerImageProcessor(),
    "clip": transformers.CLIPImageProcessor(),
}
# Their output is no picture of a fixed size, so that no batch can be made of it: refused with a message, see below.
NOT_PICTURES = ("ImageGPT", "Siglip2", "TextNet")
# Pads where others crop: the edges of a plain picture are not plain.
PADDED = ("MobileViT", "Donut")


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PROCESSORS)
def test_evaluation_pixels_are_those_of_pipeline(name: str, shape: str, tmp_path: Path):
    PROCESSORS[name].save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    classifier = pipeline("image-classification", model=build_tiny_model("vit"), image_processor=processor)
    image = noise(SHAPES[shape])
    expected = classifier.preprocess(image)["pixel_values"]
    assert torch.equal(build_eval_transform(processor)(image)[None], expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_pixels_of_timm_are_those_of_pipeline(shape: str, tmp_path: Path):
    folder = build_tiny_timm_checkpoint(tmp_path, "test_convnext")
    processor = load_checkpoint(str(folder), label_names=["a", "b"]).image_processor
    classifier = pipeline("image-classification", model=build_tiny_model("vit"), image_processor=processor)
    expected = classifier.preprocess(noise(SHAPES[shape]))["pixel_values"]
    assert torch.equal(build_eval_transform(processor)(noise(SHAPES[shape]))[None], expected)


def processors_of_all_families() -> list[str]:
    names: list[str] = []
    for model_type in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        entry = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type)
        names += list(entry.values()) if isinstance(entry, dict) else []
    return sorted({name for name in names if name and name != "TimmWrapperImageProcessor"})


def test_the_list_of_processors_is_not_empty():
    assert len(processors_of_all_families()) > 20


@pytest.mark.parametrize("name", processors_of_all_families())
def test_training_pixels_have_size_and_scale_of_every_processor(name: str):
    if name.startswith(NOT_PICTURES):
        pytest.skip("no picture of a fixed size comes out; the refusal has its own test")
    processor = getattr(transformers, name)()
    plain = Image.new("RGB", (300, 200), (200, 30, 90))
    evaluated = build_eval_transform(processor)(plain)
    trained = build_train_transform(processor, AugmentationSettings("flips", flip=0.5))(plain)
    assert trained.shape == evaluated.shape
    margin = evaluated.shape[1] // 3 if name.startswith(PADDED) else 0
    middle = slice(margin, evaluated.shape[1] - margin)
    if not name.startswith("Donut"):  # it fits the whole picture in, and the plain middle is a thin strip
        torch.testing.assert_close(trained[:, middle, middle], evaluated[:, middle, middle], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["Siglip2ImageProcessor", "TextNetImageProcessor"])
def test_a_processor_without_a_fixed_picture_is_refused(name: str):
    with pytest.raises(UserError, match=name):
        processor_facts(getattr(transformers, name)())


@pytest.mark.parametrize(
    ("name", "size", "keeps_aspect", "kept"),
    [
        ("vit", 224, False, 1.0),
        ("convnext-crop", 224, True, 0.875),
        ("resnet", 224, True, 1.0),
        ("mobilenet_v1", 224, True, 0.875),
        ("poolformer", 224, True, 0.9),
    ],
)
def test_facts_are_measured(name: str, size: int, keeps_aspect: bool, kept: float):
    facts = processor_facts(PROCESSORS[name])
    assert (facts.height, facts.width, facts.keeps_aspect) == (size, size, keeps_aspect)
    assert facts.kept == pytest.approx(kept, abs=0.02)


def test_channel_order_is_followed():
    facts = processor_facts(transformers.MobileViTImageProcessor())
    assert facts.channels == (2, 1, 0)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["vit", "resnet", "mobilevit", "convnext-crop"])
def test_policies_give_finite_pixels_of_the_right_shape(policy: str, name: str):
    transform = build_train_transform(PROCESSORS[name], POLICIES[policy])
    expected = build_eval_transform(PROCESSORS[name])(noise((90, 60))).shape
    for seed, shape in enumerate(SHAPES.values()):
        torch.manual_seed(seed)
        pixels = transform(noise(shape))
        assert pixels.shape == expected
        assert pixels.dtype == torch.float32
        assert pixels.isfinite().all()


def test_policy_none_is_evaluation():
    image = noise((80, 50))
    for name in ("vit", "resnet"):
        none = build_train_transform(PROCESSORS[name], POLICIES["none"])
        assert torch.equal(none(image), build_eval_transform(PROCESSORS[name])(image))


def test_light_varies_and_evaluation_does_not():
    image = noise((80, 50))
    light = build_train_transform(PROCESSORS["vit"], POLICIES["light"])
    assert not torch.equal(light(image), light(image))
    evaluation = build_eval_transform(PROCESSORS["vit"])
    assert torch.equal(evaluation(image), evaluation(image))


@pytest.mark.parametrize(("name", "proportion"), [("vit", 2.0), ("mobilenet_v1", 1.0)])
def test_crops_have_the_shape_that_evaluation_sees(name: str, proportion: float):
    """A picture twice as wide as high is squeezed where the processor squeezes, and cut where it cuts."""
    x, y = np.meshgrid(np.arange(200), np.arange(100))
    ramps = Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))
    transform = build_train_transform(PROCESSORS[name], AugmentationSettings("crops", crop_scale=(0.5, 0.9)))
    for seed in range(5):
        torch.manual_seed(seed)
        pixels = transform(ramps)
        across = pixels[0, :, 150].mean() - pixels[0, :, 50].mean()
        down = pixels[1, 150].mean() - pixels[1, 50].mean()
        assert (across / down).item() == pytest.approx(proportion, rel=0.05)


@pytest.mark.parametrize("policy", ["light", "strong"])
def test_transforms_travel_to_worker_processes(policy: str):
    transform = build_train_transform(PROCESSORS["vit"], POLICIES[policy])
    torch.manual_seed(3)
    here = transform(noise((50, 70)))
    torch.manual_seed(3)
    assert torch.equal(pickle.loads(pickle.dumps(transform))(noise((50, 70))), here)


def test_what_the_user_sets_replaces_the_policy():
    settings = resolve_augmentation("strong", auto_augment="none", random_erasing=0.0, mixup=0.0, cutmix=0.5)
    assert (settings.auto_augment, settings.random_erasing, settings.mixup, settings.cutmix) == ("none", 0.0, 0.0, 0.5)
    assert settings.crop_scale == POLICIES["strong"].crop_scale


@pytest.mark.parametrize(
    ("given", "flag"),
    [({"random_erasing": 1.5}, "--random_erasing"), ({"mixup": -1.0}, "--mixup"), ({"cutmix": -0.1}, "--cutmix")],
)
def test_values_out_of_range_name_their_flag(given: dict, flag: str):
    with pytest.raises(UserError, match=flag):
        resolve_augmentation("light", **given)
