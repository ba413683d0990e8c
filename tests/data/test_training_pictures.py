"""Training pictures lose nothing that a crop could show, and never grow."""

import io

import numpy as np
import pytest
import transformers
from PIL import Image

from hf_transfer.data.images import to_rgb
from hf_transfer.data.processor_facts import processor_facts
from hf_transfer.data.training_pictures import needed_side, training_picture
from hf_transfer.data.transforms import POLICIES
from tests.data.photos import jpeg, photo


def test_the_smallest_crop_has_as_many_pixels_as_the_network_sees():
    facts = processor_facts(transformers.ViTImageProcessor())
    for name in ("light", "strong"):
        settings = POLICIES[name]
        side = needed_side(facts, settings)
        assert 224 <= side * settings.crop_scale[0] ** 0.5 < 225
    assert needed_side(facts, POLICIES["none"]) == 224


@pytest.mark.parametrize("size", [(90, 70), (40, 300), (125, 125)])
def test_pictures_that_are_not_much_larger_stay_as_they_are(size: tuple[int, int]):
    file = jpeg(1, size)
    found = training_picture({"bytes": file, "path": None}, side=100)
    assert np.array_equal(np.asarray(found), np.asarray(to_rgb(file)))


@pytest.mark.parametrize(("size", "expected"), [((300, 200), (150, 100)), ((200, 1000), (100, 500))])
@pytest.mark.parametrize("orientation", [None, 6])
def test_large_pictures_shrink_to_the_shorter_side(size, expected, orientation: int | None):
    found = training_picture(jpeg(1, size, orientation), side=100)
    assert found.size == (expected if orientation is None else expected[::-1])


@pytest.mark.parametrize("wanted", [100, 200, 300])
def test_a_jpeg_is_never_decoded_below_twice_what_is_wanted(wanted: int):
    decoded = to_rgb(jpeg(1, (1600, 1200)), enough=wanted)
    assert min(decoded.size) >= 2 * wanted
    assert (decoded.size == (1600, 1200)) == (4 * wanted > 1200)


def test_other_formats_are_decoded_whole():
    buffer = io.BytesIO()
    photo(1, (800, 600)).save(buffer, format="PNG")
    assert to_rgb(buffer.getvalue(), enough=50).size == (800, 600)


@pytest.mark.parametrize(("size", "mean", "most"), [((1600, 1200), 0.6, 8), ((700, 500), 0.6, 8)])
def test_what_a_crop_shows_of_a_large_photo_stays_within_the_stated_difference(size, mean: float, most: int):
    """On photographs that are smooth at this size; the table in `benchmarks/results/input.md` has sharper ones."""
    whole = to_rgb(jpeg(7, size))
    small = training_picture(jpeg(7, size), side=289)
    seen = []
    for image in (whole, small):
        box = (0.1 * image.width, 0.15 * image.height, 0.9 * image.width, 0.95 * image.height)
        seen.append(image.resize((224, 224), Image.Resampling.BICUBIC, box=box))
    difference = np.abs(np.asarray(seen[0]).astype(int) - np.asarray(seen[1]))
    assert difference.mean() <= mean
    assert difference.max() <= most
