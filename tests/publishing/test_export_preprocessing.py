"""The steps of the sidecar make the processor's pixels, with Pillow and numpy alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional
from transformers import BaseImageProcessor

from hf_transfer.data.images import to_rgb
from hf_transfer.data.transforms import build_eval_transform
from hf_transfer.publishing import export_reader
from hf_transfer.publishing.export_pictures import made_pictures
from hf_transfer.publishing.export_preprocessing import (
    awkward_pictures,
    measure_fidelity,
    preprocessing_steps,
    sidecar,
)

TIMM = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3), "input_size": (3, 96, 96), "crop_pct": 0.9}
PROCESSORS = {
    "ViT": ("ViTImageProcessor", {}),
    "ViT, Lanczos": ("ViTImageProcessor", {"resample": 1}),
    "ViT, not resized": ("ViTImageProcessor", {"do_resize": False, "do_center_crop": True, "crop_size": 20}),
    "ViT, proportions kept": (
        "ViTImageProcessor",
        {"size": {"shortest_edge": 64}, "do_center_crop": True, "crop_size": {"height": 64, "width": 64}},
    ),
    "ViT, crop beyond the picture": (
        "ViTImageProcessor",
        {"size": {"height": 50, "width": 41}, "do_center_crop": True, "crop_size": {"height": 63, "width": 64}},
    ),
    "DeiT": ("DeiTImageProcessor", {}),
    "BEiT": ("BeitImageProcessor", {}),
    "CLIP": ("CLIPImageProcessor", {}),
    "BiT": ("BitImageProcessor", {}),
    "SigLIP": ("SiglipImageProcessor", {}),
    "MobileNetV2": ("MobileNetV2ImageProcessor", {}),
    "MobileViT, blue first": ("MobileViTImageProcessor", {}),
    "SegFormer": ("SegformerImageProcessor", {}),
    "PVT": ("PvtImageProcessor", {}),
    "ConvNeXt at 224": ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
    "ConvNeXt at 384": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "LeViT": ("LevitImageProcessor", {}),
    "PoolFormer": ("PoolFormerImageProcessor", {}),
    "Perceiver": ("PerceiverImageProcessor", {}),
    "EfficientNet": ("EfficientNetImageProcessor", {}),
    "EfficientNet, nearest, offset": (
        "EfficientNetImageProcessor",
        {"resample": 0, "rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": False},
    ),
    "timm": ("TimmWrapperImageProcessor", {"pretrained_cfg": TIMM}),
    "timm, squeezed": ("TimmWrapperImageProcessor", {"pretrained_cfg": TIMM | {"crop_mode": "squash"}}),
    "timm, odd": (
        "TimmWrapperImageProcessor",
        {"pretrained_cfg": TIMM | {"input_size": (3, 97, 97), "interpolation": "bilinear"}},
    ),
}


def processor_of(name: str) -> BaseImageProcessor:
    class_name, settings = PROCESSORS[name]
    return getattr(transformers, class_name)(**settings)


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_steps_make_the_processors_pixels(name: str):
    processor = processor_of(name)
    steps = preprocessing_steps(processor)
    assert steps is not None
    transform = build_eval_transform(processor)
    for image in (*made_pictures(6), *awkward_pictures()):
        wanted, found = transform(image).numpy(), export_reader.pixel_values(image, steps)
        assert found.dtype == np.float32
        assert found.shape == wanted.shape
        # A thousandth of a grey level at the smallest standard deviation: what float32 rounds.
        np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)
    assert measure_fidelity(processor, steps, made_pictures(3)).exact


@pytest.mark.parametrize("name", ["timm, border", "TextNet", "Donut"])
def test_what_the_steps_cannot_say_is_left_out_with_the_reason(name: str):
    if name == "timm, border":
        processor = transformers.TimmWrapperImageProcessor(pretrained_cfg=TIMM | {"crop_mode": "border"})
    else:
        processor = getattr(transformers, f"{name}ImageProcessor")()
    steps = preprocessing_steps(processor)
    fidelity = measure_fidelity(processor, steps, made_pictures(2))
    assert steps is None
    assert not fidelity.exact
    assert fidelity.max_grey_levels is None
    assert "use transformers with `settings`" in fidelity.reason


def test_wrong_steps_are_found_out():
    processor = processor_of("ViT")
    description = sidecar(processor, ("a", "b"), "model.onnx", (3, 224, 224), made_pictures(2))
    assert description["steps"] is not None
    assert description["fidelity"].exact
    steps = preprocessing_steps(processor)
    assert steps is not None
    bilinear = [step | {"resample": "nearest"} if "resample" in step else step for step in steps]
    fidelity = measure_fidelity(processor, bilinear, made_pictures(2))
    assert fidelity.max_grey_levels is not None
    assert fidelity.max_grey_levels > 3
    assert "off by" in fidelity.reason


def test_wrong_steps_are_not_written(monkeypatch: pytest.MonkeyPatch):
    processor = processor_of("ViT")
    steps = preprocessing_steps(processor)
    assert steps is not None
    wrong = [step | {"std": [0.4, 0.5, 0.5]} if step["do"] == "normalize" else step for step in steps]
    monkeypatch.setattr("hf_transfer.publishing.export_preprocessing.preprocessing_steps", lambda _: wrong)
    description = sidecar(processor, ("a", "b"), "model.onnx", (3, 224, 224), made_pictures(2))
    assert description["steps"] is None
    assert description["settings"]["size"] == {"height": 224, "width": 224}


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
def test_resampling_is_torchvisions_bit_for_bit(resample: str):
    step = {"do": "resize", "height": 37, "width": 91, "resample": resample, "arithmetic": "torchvision"}
    for image in awkward_pictures():
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        wanted = functional.resize(pixels, [37, 91], interpolation=InterpolationMode(resample), antialias=True)
        found = export_reader.pixel_values(image, [step])
        assert np.array_equal(found, wanted.numpy().astype(np.float32))
        if resample == "bicubic" and image.width < 91:
            # The reason for arithmetic of our own: Pillow's is another where noise overshoots.
            pillow = export_reader.pixel_values(image, [step | {"arithmetic": "pillow"}])
            assert not np.array_equal(pillow, found)


def test_pictures_are_opened_as_the_package_opens_them(tmp_path: Path):
    generator = np.random.default_rng(0)
    rgba = Image.fromarray(generator.integers(0, 256, (20, 30, 4), dtype=np.uint8))
    rgb = rgba.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    rgba.save(tmp_path / "transparent.png")
    rgb.save(tmp_path / "turned.jpg", exif=exif)
    rgb.convert("L").save(tmp_path / "grey.png")
    rgb.quantize(16).save(tmp_path / "palette.png")
    rgb.convert("CMYK").save(tmp_path / "print.jpg")
    Image.merge("LA", rgba.split()[2:]).save(tmp_path / "grey_transparent.png")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 6
    for file in files:
        assert np.array_equal(np.asarray(export_reader.open_picture(file)), np.asarray(to_rgb(file))), file.name
    assert export_reader.open_picture(tmp_path / "turned.jpg").size == (20, 30)
    Image.fromarray(generator.integers(0, 65536, (9, 9), dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="scale it to 8 bits"):
        export_reader.open_picture(tmp_path / "deep.png")


def test_an_unknown_step_is_an_error():
    with pytest.raises(ValueError, match="unknown step 'rotate'"):
        export_reader.pixel_values(awkward_pictures()[0], [{"do": "rotate"}])


def test_the_reader_needs_neither_torch_nor_this_package():
    code = f"import sys; sys.path.insert(0, {str(Path(export_reader.__file__).parent)!r}); import export_reader; "
    code += "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'hf_transfer'}))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"
