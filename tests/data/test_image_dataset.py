"""A visit decides the picture and its random numbers; workers, order and what ran before do not."""

import io
import random
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, SequentialSampler
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from hf_transfer.data.image_dataset import ImageClassificationDataset
from hf_transfer.data.mixing import collate_images
from hf_transfer.data.sampling import WholeBatchSampler
from hf_transfer.data.table import STORED_IMAGE
from hf_transfer.data.visits import VisitedImages
from hf_transfer.errors import UserError
from tests.data.pictures import png

NUM_IMAGES = 12


def noisy(image: Image.Image) -> torch.Tensor:
    """Returns the picture and random numbers of both generators that torchvision draws from."""
    pixels = functional.pil_to_tensor(v2.RandomHorizontalFlip(0.5)(image)).float()
    return pixels + torch.rand(1) + random.random()


def plain(image: Image.Image) -> torch.Tensor:
    """Returns the picture as it is."""
    return functional.pil_to_tensor(image).float()


@pytest.fixture(scope="module")
def split() -> datasets.Dataset:
    features = datasets.Features({"image": STORED_IMAGE, "label": datasets.ClassLabel(names=["a", "b", "c"])})
    rows = [{"bytes": png(number), "path": None} for number in range(NUM_IMAGES)]
    labels = [number % 3 for number in range(NUM_IMAGES)]
    return datasets.Dataset.from_dict({"image": rows, "label": labels}, features=features)


@pytest.fixture
def dataset(split: datasets.Dataset) -> ImageClassificationDataset:
    return ImageClassificationDataset(split, noisy, seed=7)


def test_a_visit_is_a_picture_in_an_epoch(split: datasets.Dataset):
    dataset = ImageClassificationDataset(split, plain, seed=7)
    assert len(dataset) == NUM_IMAGES
    for visit in (0, 5, NUM_IMAGES + 5, 7 * NUM_IMAGES + 11):
        item = dataset[visit]
        expected = np.asarray(Image.open(io.BytesIO(png(visit % NUM_IMAGES))))
        assert (item["pixel_values"].permute(1, 2, 0).numpy() == expected).all()
        assert item["labels"] == visit % NUM_IMAGES % 3
        assert item["visit"] == visit


@pytest.mark.parametrize("visited", [False, True], ids=["pictures", "visited"])
def test_going_through_the_pictures_ends_after_the_last(dataset: ImageClassificationDataset, visited: bool):
    pictures = VisitedImages(dataset, "train") if visited else dataset
    assert [item["labels"] for item in pictures] == [number % 3 for number in range(NUM_IMAGES)]


def test_the_same_visit_is_the_same_tensor(dataset: ImageClassificationDataset):
    first = dataset[3]["pixel_values"]
    torch.rand(5)
    random.random()
    for other in (11, 2, 0):
        dataset[other]
    assert torch.equal(dataset[3]["pixel_values"], first)


def test_another_epoch_picture_or_seed_is_another_draw(split: datasets.Dataset, dataset: ImageClassificationDataset):
    same_picture = dataset.split.select([0] * NUM_IMAGES)
    repeated = ImageClassificationDataset(same_picture, noisy, seed=7)
    draws = [float(repeated[visit]["pixel_values"].sum()) for visit in range(5 * NUM_IMAGES)]
    assert len(set(draws)) == len(draws)
    assert not torch.equal(
        dataset[3]["pixel_values"], ImageClassificationDataset(split, noisy, seed=8)[3]["pixel_values"]
    )


def by_visit(
    dataset: ImageClassificationDataset, workers: int, batch_size: int, epoch: int
) -> dict[int, torch.Tensor]:
    """Loads an epoch and returns the tensor of each visit."""
    sampler = WholeBatchSampler(NUM_IMAGES, 4, seed=epoch)
    sampler.set_epoch(1)
    loader = DataLoader(dataset, batch_size, sampler=sampler, num_workers=workers, collate_fn=list)
    return {item["visit"]: item["pixel_values"].clone() for batch in loader for item in batch}


@pytest.mark.parametrize(("workers", "batch_size", "order"), [(0, 5, 0), (2, 4, 0), (2, 1, 3), (1, 6, 1)])
def test_workers_batches_and_order_do_not_matter(
    dataset: ImageClassificationDataset, workers: int, batch_size: int, order: int
):
    expected = by_visit(dataset, workers=0, batch_size=1, epoch=0)
    assert sorted(expected) == list(range(NUM_IMAGES, 2 * NUM_IMAGES))
    torch.manual_seed(workers)
    found = by_visit(dataset, workers, batch_size, order)
    assert sorted(found) == sorted(expected)
    for visit, tensor in found.items():
        assert torch.equal(tensor, expected[visit])


@pytest.mark.parametrize("seed", [7, 0, None])
def test_the_global_generators_are_left_alone(split: datasets.Dataset, seed: int | None):
    dataset = ImageClassificationDataset(split, plain if seed is None else noisy, seed=seed)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    for visit in range(5):
        dataset[visit]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


def test_the_global_generators_are_left_alone_when_a_transform_fails(split: datasets.Dataset):
    def failing(image: Image.Image) -> torch.Tensor:
        noisy(image)
        raise ZeroDivisionError

    before = torch.get_rng_state(), random.getstate()
    with pytest.raises(ZeroDivisionError):
        ImageClassificationDataset(split, failing, seed=7)[0]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_the_global_seed_does_not_matter(dataset: ImageClassificationDataset):
    torch.manual_seed(1)
    first = dataset[0]["pixel_values"]
    torch.manual_seed(2)
    random.seed(2)
    assert torch.equal(dataset[0]["pixel_values"], first)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, workers: int):
    (tmp_path / "good.png").write_bytes(png(0))
    (tmp_path / "broken.png").write_bytes(png(0)[:60])
    rows = [str(tmp_path / "good.png"), str(tmp_path / "broken.png")]
    features = datasets.Features({"image": STORED_IMAGE, "label": datasets.Value("int64")})
    split = datasets.Dataset.from_dict({"image": rows, "label": [0, 1]}, features=features)
    dataset = ImageClassificationDataset(split, plain, seed=None)
    loader = DataLoader(dataset, 1, sampler=SequentialSampler(dataset), num_workers=workers, collate_fn=collate_images)
    with pytest.raises(UserError, match="broken.png' cannot be read"):
        list(loader)
