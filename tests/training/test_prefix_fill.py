"""Batches of rows: cut by views, and what is kept of those that are worked on side by side."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hf_transfer import lanes as lanes_module
from hf_transfer.lanes import side_by_side
from hf_transfer.training.prefix_fill import row_batches
from tests.training.test_prefix_cache import trained
from tests.training.test_prefix_cut import BUILDABLE, cut_below_head
from tests.training.test_thawing_processes import assert_same

CPU = torch.device("cpu")


class Pictures:
    """Ten pictures whose pixels are the number of their row."""

    def __len__(self) -> int:
        return 10

    def shown(self, row: int, views: int) -> dict:
        return {"pixel_values": torch.full((1,), float(row))}


@pytest.mark.parametrize(
    ("lanes", "most", "sizes"), [(1, 64, [10] * 3), (1, 4, [4, 4, 2] * 3), (2, 8, [4, 4, 2] * 3), (2, 1, [1] * 30)]
)
def test_no_batch_has_pictures_of_two_views(lanes: int, most: int, sizes: list[int]):
    args = SimpleNamespace(
        per_device_eval_batch_size=most, dataloader_num_workers=0, dataloader_pin_memory=True, device=CPU
    )
    batches = list(row_batches(Pictures(), 3, range(30), args, lanes))  # type: ignore[arg-type]
    assert [len(rows) for rows, _ in batches] == sizes
    for rows, shown in batches:
        assert len({int(row) // 10 for row in rows}) == 1
        assert torch.equal(shown["pixel_values"][:, 0], rows.float())


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("family", BUILDABLE)
def test_passes_side_by_side_find_what_each_of_them_finds_alone(family: str):
    torch.manual_seed(0)
    cut, pictures = cut_below_head(family)
    batches = [torch.randn(3, *pictures.shape[1:]) for _ in range(20)]
    alone = [cut.collect(batch) for batch in batches]
    found = {}
    with cut.collecting() as collect:

        def work(number: int) -> None:
            found[number] = collect(batches[number])

        side_by_side(work, range(20), 2)
    for number, kept in enumerate(alone):
        for one, other in zip(found[number], kept, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert not any(module._forward_pre_hooks for module in cut.model.modules())


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_lanes_change_nothing_of_what_is_learnt(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = {}
    for lanes in (1, 2):
        monkeypatch.setattr(lanes_module, "LANES", lanes)
        found[lanes], facts = trained(family, tmp_path / str(lanes), strategy="partial")
        assert facts[0]["cached"]
    assert_same(found[1], found[2])
