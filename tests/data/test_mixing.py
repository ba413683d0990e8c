"""Batches, mixed with mixup and CutMix or not."""

import random

import numpy as np
import pytest
import torch

from hf_transfer.data.mixing import MixingCollator, collate_images


def items(count: int = 6, first_visit: int = 0) -> list[dict]:
    """Returns pictures that hold their own number plus one everywhere."""
    return [
        {"pixel_values": torch.full((3, 8, 8), float(index + 1)), "labels": index % 3, "visit": first_visit + index}
        for index in range(count)
    ]


def label_of(value: float) -> int:
    """Returns the label of the picture that holds this value."""
    return (round(value) - 1) % 3


def test_collation():
    batch = collate_images(items(5))
    assert set(batch) == {"pixel_values", "labels"}
    assert batch["pixel_values"].shape == (5, 3, 8, 8)
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert batch["labels"].dtype == torch.int64
    assert batch["labels"].tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("visits", range(0, 60, 6))
def test_mixup_mixes_labels_as_it_mixes_pictures(visits: int):
    batch = MixingCollator(3, mixup_alpha=1.0, cutmix_alpha=0.0, seed=0)(items(6, visits))
    assert batch["labels"].shape == (6, 3)
    assert torch.allclose(batch["labels"].sum(dim=1), torch.ones(6))
    for index in range(6):
        own, partner = index + 1.0, (index - 1) % 6 + 1.0
        values = batch["pixel_values"][index]
        assert torch.allclose(values, values[0, 0, 0])
        share = (float(values[0, 0, 0]) - partner) / (own - partner)
        expected = torch.zeros(3)
        expected[label_of(own)] += share
        expected[label_of(partner)] += 1 - share
        assert torch.allclose(batch["labels"][index], expected, atol=1e-5)


@pytest.mark.parametrize("visits", range(0, 60, 6))
def test_cutmix_shares_labels_by_area(visits: int):
    batch = MixingCollator(3, mixup_alpha=0.0, cutmix_alpha=1.0, seed=0)(items(6, visits))
    for index in range(6):
        expected = torch.zeros(3)
        for value in batch["pixel_values"][index, 0].flatten().tolist():
            assert value in (index + 1.0, (index - 1) % 6 + 1.0)
            expected[label_of(value)] += 1 / 64
        assert torch.allclose(batch["labels"][index], expected, atol=1e-5)


def test_both_take_turns():
    collator = MixingCollator(3, mixup_alpha=1.0, cutmix_alpha=1.0, seed=0)
    blended = []
    for first_visit in range(0, 240, 6):
        pictures = collator(items(6, first_visit))["pixel_values"]
        blended.append(bool((pictures != pictures.round()).any()))
    assert 8 < sum(blended) < 32


def test_seed_and_visits_decide_and_nothing_else():
    collator = MixingCollator(3, 0.4, 1.0, seed=3)
    first = collator(items(6, 12))
    torch.manual_seed(99)
    collator(items(6, 18))
    again = MixingCollator(3, 0.4, 1.0, seed=3)(items(6, 12))
    assert torch.equal(again["pixel_values"], first["pixel_values"])
    assert torch.equal(again["labels"], first["labels"])
    assert not torch.equal(collator(items(6, 600))["labels"], first["labels"])
    assert not torch.equal(MixingCollator(3, 0.4, 1.0, seed=4)(items(6, 12))["labels"], first["labels"])


def test_the_global_generators_are_left_alone():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    MixingCollator(3, 0.4, 1.0, seed=3)(items())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


def test_the_items_are_left_alone():
    own = items()
    MixingCollator(3, 0.4, 1.0, seed=3)(own)
    assert [float(item["pixel_values"].mean()) for item in own] == [1, 2, 3, 4, 5, 6]


def test_a_batch_of_one_keeps_its_label():
    batch = MixingCollator(3, 1.0, 1.0, seed=0)(items(1))
    assert batch["labels"].tolist() == [[1.0, 0.0, 0.0]]
    assert torch.allclose(batch["pixel_values"], torch.ones(1, 3, 8, 8))
