"""Crops and colours are those of PIL and torchvision, to the level that is stated; a visit alone decides them."""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torchvision.transforms.v2 import functional

from hf_transfer.data.pixel_steps import ColourJitter, FrameCrop, PixelMap
from hf_transfer.data.processor_facts import processor_facts
from tests.data.photos import photo

BILINEAR = processor_facts(transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, resample=2))
BICUBIC = processor_facts(transformers.ConvNextImageProcessor(size={"shortest_edge": 224}))
LANCZOS = processor_facts(transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, resample=1))


def differences(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one.int() - other.int()).abs()


@pytest.mark.parametrize("size", [(500, 400), (200, 180), (224, 224)])
@pytest.mark.parametrize("facts", [BILINEAR, BICUBIC, LANCZOS], ids=["bilinear", "bicubic", "lanczos"])
def test_a_crop_is_pils_to_two_levels(facts, size: tuple[int, int]):
    image = photo(3, size)
    crop = FrameCrop(facts, (0.5, 0.9), 1.1)
    for seed in range(5):
        torch.manual_seed(seed)
        found = crop(image)
        torch.manual_seed(seed)
        box = crop.draw(*size)
        # torch sees nothing beyond the box, PIL does.
        part = image if facts is LANCZOS else image.crop([round(edge) for edge in box])
        inside = box if facts is LANCZOS else None
        expected = functional.pil_to_tensor(part.resize((224, 224), facts.interpolation, inside, reducing_gap=3.0))
        assert found.dtype == torch.uint8
        assert found.shape == (3, 224, 224)
        assert differences(found, expected).max() <= 2
        assert differences(found, expected).float().mean() < 0.5


def test_small_pictures_are_cut_between_pixels():
    """A crop that moves by a part of a pixel shows something else: whole pixels would show."""
    image = photo(1, (20, 20))
    crop = FrameCrop(BILINEAR, (0.5, 0.9), 1.1)
    torch.manual_seed(4)
    found = crop(image)
    torch.manual_seed(4)
    expected = image.resize((224, 224), Image.Resampling.BILINEAR, box=crop.draw(20, 20), reducing_gap=3.0)
    assert torch.equal(found, functional.pil_to_tensor(expected))


def test_an_array_and_a_picture_give_the_same():
    image = photo(2, (300, 200))
    crop = FrameCrop(BICUBIC, (0.5, 0.9), 1.1)
    torch.manual_seed(0)
    from_picture = crop(image)
    torch.manual_seed(0)
    assert torch.equal(crop(np.array(image)), from_picture)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_colours_are_torchvisions(order: list[int]):
    """Away from black and white, where torchvision cuts off after each step and this only at the end."""
    pixels = functional.pil_to_tensor(photo(5, (60, 50))) // 2 + 60
    factors = [1.08, 0.93, 1.1]
    expected = pixels.float() / 255
    steps = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    for kind in order:
        expected = steps[kind](expected, factors[kind])
    planes = pixels.float().flatten(1)
    matrix, shift = ColourJitter._matrix(planes.mean(1), order, factors)
    found = (matrix @ planes + shift[:, None]).view(pixels.shape)
    torch.testing.assert_close(found, expected * 255, rtol=0, atol=0.1)


def test_jitter_stays_in_its_range_and_is_drawn_anew():
    grey = torch.full((3, 40, 40), 100, dtype=torch.uint8)
    jitter = ColourJitter(0.2)
    torch.manual_seed(0)
    levels = [float(jitter(grey).mean()) for _ in range(200)]
    assert 80 <= min(levels) < 84
    assert 116 < max(levels) <= 120
    assert len(set(levels)) > 150
    white = jitter(torch.full((3, 8, 8), 255, dtype=torch.uint8))
    assert white.max() <= 255
    torch.manual_seed(1)
    first = jitter(grey)
    torch.manual_seed(1)
    assert torch.equal(jitter(grey), first)


def test_a_pixel_map_is_the_processors():
    processor = transformers.MobileViTImageProcessor()
    facts = processor_facts(processor)
    image = photo(0, (facts.width, facts.height))
    found = PixelMap(facts)(functional.pil_to_tensor(image))
    planes = functional.pil_to_tensor(image)[[2, 1, 0]].float() / 255
    torch.testing.assert_close(found, planes, rtol=0, atol=1e-5)
