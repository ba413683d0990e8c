"""Squeezed or cropped: who decides, and that what is saved crops too."""

import io

import datasets
import pytest
from PIL import Image
from transformers import AutoImageProcessor, ConvNextImageProcessor, SiglipImageProcessor, ViTImageProcessor

from hf_transfer.data.processor_facts import processor_facts
from hf_transfer.data.proportions import choose_proportions
from hf_transfer.errors import UserError


def pictures(*sizes: tuple[int, int]) -> datasets.Dataset:
    rows = []
    for size in sizes:
        buffer = io.BytesIO()
        Image.new("RGB", size, (200, 30, 90)).save(buffer, format="PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    features = datasets.Features({"image": datasets.Image(decode=False)})
    return datasets.Dataset.from_dict({"image": rows}, features=features)


def squeezing() -> ViTImageProcessor:
    return ViTImageProcessor(size={"height": 32, "width": 32}, resample=3)


@pytest.mark.parametrize(
    ("sizes", "crops"),
    [
        ([(30, 40), (40, 30), (40, 30)], True),
        ([(40, 40), (41, 40), (60, 20)], False),
        ([(90, 30), (90, 40), (30, 90)], False),
    ],
)
def test_auto_follows_the_shape_of_most_pictures(sizes, crops):
    choice = choose_proportions(squeezing(), pictures(*sizes), "auto")
    assert processor_facts(choice.image_processor).keeps_aspect is crops
    assert ("unchanged" in choice.reason) is not crops


def test_nothing_but_the_shape_changes(tmp_path):
    before = squeezing()
    choice = choose_proportions(before, pictures((30, 40)), "auto")
    choice.image_processor.save_pretrained(tmp_path)
    saved = processor_facts(AutoImageProcessor.from_pretrained(tmp_path))
    old = processor_facts(before)
    assert not old.keeps_aspect, "the checkpoint's own processor must not change"
    assert saved.keeps_aspect
    assert (saved.height, saved.width, saved.gain, saved.offset) == (old.height, old.width, old.gain, old.offset)
    assert saved.interpolation == old.interpolation


def test_the_checkpoint_s_way_is_a_flag_away():
    processor = squeezing()
    assert choose_proportions(processor, pictures((30, 40)), "checkpoint").image_processor is processor


def test_a_kept_head_keeps_the_processor_it_was_trained_with():
    processor = squeezing()
    assert choose_proportions(processor, pictures((30, 40)), "auto", keep_head=True).image_processor is processor


def test_siglip_was_pretrained_on_squeezed_pictures():
    processor = SiglipImageProcessor(size={"height": 32, "width": 32})
    assert choose_proportions(processor, pictures((30, 40)), "auto").image_processor is processor
    kept = choose_proportions(processor, pictures((30, 40)), "keep").image_processor
    assert processor_facts(kept).keeps_aspect


def test_a_processor_that_cannot_crop_is_left_alone_and_said_so_when_asked():
    processor = ConvNextImageProcessor(size={"shortest_edge": 384})
    assert not processor_facts(processor).keeps_aspect
    assert choose_proportions(processor, pictures((30, 40)), "auto").image_processor is processor
    with pytest.raises(UserError, match="ConvNextImageProcessor cannot crop"):
        choose_proportions(processor, pictures((30, 40)), "keep")


def test_keep_crops_square_pictures_too():
    kept = choose_proportions(squeezing(), pictures((40, 40)), "keep").image_processor
    assert processor_facts(kept).keeps_aspect
