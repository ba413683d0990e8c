"""The first of a frozen network's views as evaluation has it: who gets it, and the same with a cache or without."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from hf_transfer.cli import main
from hf_transfer.data.image_dataset import ImageClassificationDataset
from hf_transfer.data.transforms import POLICIES, build_eval_transform, build_train_transform
from hf_transfer.data.visits import VisitedImages
from hf_transfer.training.prefix_fill import _batches_of_a_view
from tests.models.families import tiny_image_processor
from tests.tiny_project import train_words
from tests.training.test_prefix_cache import trained
from tests.training.test_thawing_processes import assert_same
from tests.training.tiny_run import tiny_split

NUM_IMAGES = 6


def light_pictures() -> ImageClassificationDataset:
    return ImageClassificationDataset(
        tiny_split(NUM_IMAGES), build_train_transform(tiny_image_processor("vit"), POLICIES["light"]), seed=7
    )


def test_only_the_first_of_limited_views_is_not_varied():
    varied = light_pictures()
    still = varied.with_transform(build_eval_transform(tiny_image_processor("vit")), seed=None)
    visited = VisitedImages(varied, "train", still)
    for epoch in range(4):
        visit = epoch * NUM_IMAGES + 2
        visited.show(pixels=True, views=None)
        assert torch.equal(visited[visit]["pixel_values"], varied[visit]["pixel_values"])
        visited.show(pixels=True, views=2)
        expected = still[2] if epoch % 2 == 0 else varied[NUM_IMAGES + 2]
        item = visited[visit]
        assert torch.equal(item["pixel_values"], expected["pixel_values"])
        assert (item["labels"], item["train_visits"]) == (varied[2]["labels"], visit)


def test_evaluation_sees_kept_pixels_as_it_sees_the_picture():
    transform = build_eval_transform(tiny_image_processor("vit"))
    # Three rows of pixels could be three channels.
    picture = Image.effect_noise((40, 3), 60).convert("RGB")
    levels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(3, 40, 3).numpy()
    assert torch.equal(transform(levels), transform(picture))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (range(14), [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 10], [11, 12, 13]]),
        (range(1, 14, 2), [[1, 3, 5], [7, 9, 11, 13]]),
        (range(3, 2, 2), []),
    ],
    ids=["one process", "the second of two", "more processes than rows"],
)
def test_no_batch_has_two_views(rows: range, expected: list):
    assert list(_batches_of_a_view(rows, 4, 7)) == expected


@pytest.mark.parametrize("place", ["cpu", "device"])
def test_the_same_with_a_cache_and_without(place: str, tmp_path: Path):
    settings = {"still_first": True, "varied_on": place, "num_train_epochs": 5}
    plain, facts = trained("vit", tmp_path, "off", **settings)
    assert (facts[0]["cached"], facts[0]["views"], facts[0]["first_varied"]) == (False, 2, False)
    kept, facts = trained("vit", tmp_path, **settings)
    assert (facts[0]["cached"], facts[0]["views"], facts[0]["first_varied"]) == (True, 2, False)
    assert_same(plain, kept)
    varied, facts = trained("vit", tmp_path, **settings | {"still_first": False})
    assert facts[0]["first_varied"]
    assert any(not torch.allclose(kept[name], varied[name], atol=1e-6) for name in kept)


@pytest.mark.parametrize(
    ("options", "said", "first_varied"),
    [
        (
            ["--strategy", "feature-extraction"],
            "2 views of each picture while layers are frozen, the first not",
            False,
        ),
        (["--strategy", "feature-extraction", "--cache_views", "1"], "1 view of each picture", True),
        (["--strategy", "partial"], "2 views of each picture while layers are frozen", True),
        (["--strategy", "feature-extraction", "--cache", "off"], None, None),
        (["--strategy", "feature-extraction", "--augmentation", "none"], None, True),
    ],
    ids=["feature-extraction", "one view", "partial", "no cache", "not varied"],
)
def test_a_run_says_what_its_pictures_showed(options, said, first_varied, tmp_path: Path):
    folder = tmp_path / "run"
    words = [*train_words(tmp_path), "--output_dir", str(folder), "--cache_dir", str(tmp_path / "cache")]
    assert main([*words, "--num_train_epochs", "3", "--augmentation", "light", *options]) == 0
    report = json.loads((folder / "run.json").read_text())
    row = next(decision for decision in report["decisions"] if decision["name"] == "training pixels")
    assert (said in row["value"]) if said else ("view" not in row["value"])
    assert ("not varied" in row["value"]) is (first_varied is False)
    assert row["value"] in (folder / "README.md").read_text()
    cache = report["training"]["cache"]
    assert (cache[0]["first_varied"] if cache else None) is first_varied
