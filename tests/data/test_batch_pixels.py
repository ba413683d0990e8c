"""A batch that is varied at once looks as its pictures do one by one, to the level that is stated."""

import hashlib

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.transforms import v2

from hf_transfer.data.batch_pixels import BatchPixels, colour_matrices
from hf_transfer.data.drawn_pictures import PictureDraws, collate_pixels, reason_against_device
from hf_transfer.data.image_dataset import ImageClassificationDataset
from hf_transfer.data.pixel_steps import ColourJitter, FrameCrop, PixelMap
from hf_transfer.data.processor_facts import processor_facts
from hf_transfer.data.transforms import POLICIES, AugmentationSettings, build_train_transform, resolve_augmentation
from tests.data.photos import jpeg, photo, split_of

PROCESSORS = {
    "squeezing, bilinear": transformers.ViTImageProcessor(),
    "squeezing, bicubic": transformers.ViTImageProcessor(resample=3),
    "keeping, bilinear": transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, resample=2),
    "keeping, bicubic": transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875),
    "blue first": transformers.MobileViTImageProcessor(),
    "shrinking": transformers.ViTImageProcessor(size={"height": 30, "width": 40}),
}
SETTINGS = {
    "light": POLICIES["light"],
    "erasing": resolve_augmentation("light", random_erasing=0.6),
    "crops": AugmentationSettings("crops", crop_scale=(0.3, 1.0), flip=0.5),
}
SIZES = {
    "photos": [(300, 200), (500, 100), (224, 224), (400, 300)],
    "small": [(30, 20), (50, 60), (64, 64), (12, 90), (1, 1), (300, 60)],
}
VISITS = range(8)
MEAN = {"photos": 0.03, "small": 0.3}
MOST = 2.5
"""Levels of 255. Single pixels differ by two where both roundings fell otherwise; contrast stretches that a little. A
fifth of the pixels of a small picture differ by one where Pillow 13 goes down before it goes across."""


def drawn(split, processor, settings: AugmentationSettings, visits=VISITS) -> list:
    transform = PictureDraws(processor_facts(processor), settings)
    pictures = ImageClassificationDataset(split, transform, seed=5)
    return [pictures[visit]["pixel_values"] for visit in visits]


def varied(split, processor, settings: AugmentationSettings, visits=VISITS) -> torch.Tensor:
    batch = collate_pixels(drawn(split, processor, settings, visits))
    return BatchPixels(processor_facts(processor))(batch["pictures"])


def one_by_one(split, processor, settings: AugmentationSettings, visits=VISITS) -> torch.Tensor:
    pictures = ImageClassificationDataset(split, build_train_transform(processor, settings), seed=5)
    return torch.stack([pictures[visit]["pixel_values"] for visit in visits])


@pytest.fixture(scope="module")
def splits() -> dict:
    return {name: split_of([jpeg(i, size) for i, size in enumerate(sizes)]) for name, sizes in SIZES.items()}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", PROCESSORS)
def test_both_ways_agree(name: str, settings: str, sizes: str, splits: dict):
    processor, wanted = PROCESSORS[name], SETTINGS[settings]
    found, expected = (way(splits[sizes], processor, wanted) for way in (varied, one_by_one))
    assert (found.shape, found.dtype) == (expected.shape, torch.float32)
    levels = ((found - expected) / torch.tensor(processor_facts(processor).gain).view(3, 1, 1)).abs()
    assert levels.mean() < MEAN[sizes]
    assert levels.max() < MOST


def test_erased_boxes_are_the_same(splits: dict):
    processor, settings = PROCESSORS["squeezing, bilinear"], SETTINGS["erasing"]
    found, expected = (way(splits["photos"], processor, settings, range(20)) for way in (varied, one_by_one))
    assert torch.equal((found == 0).all(1), (expected == 0).all(1))
    assert 0.3 < (found == 0).flatten(1).any(1).float().mean() < 0.9


@pytest.mark.parametrize("name", ["squeezing, bicubic", "keeping, bilinear"])
def test_a_picture_looks_the_same_in_any_company(name: str, splits: dict):
    """What fills a batch up to one shape is never seen, not even in the last bit: micro-batches may be cut anyhow."""
    together = varied(splits["photos"], PROCESSORS[name], SETTINGS["crops"])
    alone = [varied(splits["photos"], PROCESSORS[name], SETTINGS["crops"], [visit]) for visit in VISITS]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("name", PROCESSORS)
def test_grey_is_grey_up_to_its_edges(name: str):
    """Beside larger pictures, whose surroundings are filled with black."""
    images = [Image.new("RGB", (90, 70), (100, 100, 100)), photo(0, (400, 300))]
    processor = PROCESSORS[name]
    facts = processor_facts(processor)
    draws = PictureDraws(facts, SETTINGS["crops"])
    pixels = BatchPixels(facts)(collate_pixels([draws(image) for image in images])["pictures"])[0]
    expected = (100 * torch.tensor(facts.gain) + torch.tensor(facts.offset)).view(3, 1, 1).expand_as(pixels)
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-5)


def test_autocast_takes_no_bits_away(splits: dict):
    plain = varied(splits["photos"], PROCESSORS["squeezing, bicubic"], SETTINGS["light"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = varied(splits["photos"], PROCESSORS["squeezing, bicubic"], SETTINGS["light"])
    assert torch.equal(plain, cast)


def test_colours_are_those_of_single_pictures():
    generator = torch.Generator().manual_seed(0)
    mean = 255 * torch.rand(20, 3, generator=generator)
    order = torch.stack([torch.randperm(3, generator=generator) for _ in range(20)])
    factors = 0.8 + 0.4 * torch.rand(20, 3, generator=generator)
    matrices, shifts = colour_matrices(mean, order, factors)
    for row in range(20):
        matrix, shift = ColourJitter._matrix(mean[row], order[row].tolist(), factors[row].tolist())
        torch.testing.assert_close(matrices[row], matrix)
        torch.testing.assert_close(shifts[row], shift, rtol=1e-5, atol=1e-4)


def test_the_draws_of_a_visit_never_change():
    """Whoever changes them changes every run: a hash of boxes, mirrors, colours and erased boxes."""
    split = split_of([jpeg(0, (300, 200)), jpeg(1, (50, 60))])
    pictures = drawn(split, PROCESSORS["squeezing, bilinear"], SETTINGS["erasing"], range(12))
    facts = [(p.levels.shape, [round(edge, 4) for edge in p.box], p.flipped, p.order, p.erased) for p in pictures]
    factors = [[round(factor, 5) for factor in p.factors] for p in pictures]
    assert hashlib.sha256(repr((facts, factors)).encode()).hexdigest()[:16] == "ae4e8b4fa887038e"


def test_pixels_of_the_cpu_are_what_they_always_were():
    """Bit for bit those of torch's and torchvision's own steps, which were here before the draws had names."""
    processor = PROCESSORS["keeping, bicubic"]
    facts, settings = processor_facts(processor), SETTINGS["erasing"]
    crop, jitter = FrameCrop(facts, settings.crop_scale, settings.crop_ratio), ColourJitter(settings.colour_jitter)
    rest = v2.Compose([v2.RandomHorizontalFlip(settings.flip), jitter, PixelMap(facts), v2.RandomErasing(0.6)])
    transform, image = build_train_transform(processor, settings), photo(3, (500, 400))
    for seed in range(8):
        torch.manual_seed(seed)
        box = [round(edge) for edge in crop.draw(500, 400)]
        part = torch.from_numpy(np.array(image.crop(box))).permute(2, 0, 1)[None]
        expected = rest(interpolate(part, (224, 224), mode="bicubic", antialias=True)[0])
        torch.manual_seed(seed)
        assert torch.equal(transform(image), expected)


@pytest.mark.parametrize(
    ("processor", "settings", "reason"),
    [
        (PROCESSORS["shrinking"], POLICIES["light"], None),
        (PROCESSORS["shrinking"], POLICIES["none"], "not varied"),
        (PROCESSORS["shrinking"], POLICIES["strong"], "trivialaugment"),
        (PROCESSORS["shrinking"], resolve_augmentation("light", auto_augment="randaugment"), "randaugment"),
        (PROCESSORS["shrinking"], resolve_augmentation("strong", auto_augment="none"), "rotation"),
        (transformers.ViTImageProcessor(resample=1), POLICIES["light"], "lanczos"),
    ],
)
def test_what_stays_on_the_cpu_has_a_reason(processor, settings: AugmentationSettings, reason: str | None):
    found = reason_against_device(processor, settings)
    assert found is None if reason is None else reason in str(found)
