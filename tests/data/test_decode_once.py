"""What is decoded once is what would be decoded at each visit, whatever happens to the cache."""

import copy
import ctypes
import dataclasses
import gc
import hashlib
import multiprocessing
import os
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_transfer.cache_folder import things_in
from hf_transfer.config import FinetuneConfig
from hf_transfer.data.decode_once import EACH_VISIT, TrainingInput, decode_once
from hf_transfer.data.image_data import ImageData
from hf_transfer.data.images import to_rgb
from hf_transfer.data.picture_store import ROWS
from hf_transfer.data.transforms import POLICIES, build_eval_transform
from hf_transfer.errors import UserError
from tests.data.photos import jpeg, split_of
from tests.data.pictures import png
from tests.data.test_transforms import PROCESSORS

FILES = [jpeg(0), jpeg(1, (700, 600)), jpeg(2, (80, 120), orientation=6), jpeg(3, (1500, 1100), orientation=8), png(4)]
VIT = PROCESSORS["vit"]


def image_data(train: list[bytes] = FILES, validation: list[bytes] | None = None) -> ImageData:
    splits = {"train": train, "validation": FILES[1:] if validation is None else validation, "test": FILES[:1]}
    return ImageData(
        name="pictures",
        kind="table",
        **{name: split_of(files) for name, files in splits.items()},
        label_names=("a", "b", "c"),
        split_methods={},
        fingerprint="",
        content_hashes={
            name: tuple(hashlib.sha256(file).hexdigest() for file in files) for name, files in splits.items()
        },
    )


def prepared(
    cache: Path, data: ImageData | None = None, processor=VIT, policy: str = "light", visits: float = 3, **settings
) -> TrainingInput:
    settings = {"decoded_cache": "auto", "cache_dir": str(cache)} | settings
    config = FinetuneConfig(model="none", dataset="pictures", **settings)
    return decode_once(config, data or image_data(), processor, POLICIES[policy], seed=7, visits=visits)


def assert_same(one: TrainingInput, other: TrainingInput) -> None:
    """Compares every split over two epochs, bit for bit."""
    for mine, others in ((one.train, other.train), (one.validation, other.validation)):
        assert len(mine) == len(others) > 0
        for visit in range(2 * len(mine)):
            item, expected = mine[visit], others[visit]
            assert item["labels"] == expected["labels"]
            assert item["pixel_values"].dtype == torch.float32
            assert torch.equal(item["pixel_values"].view(torch.int32), expected["pixel_values"].view(torch.int32))


@pytest.mark.parametrize("policy", ["none", "light", "strong"])
@pytest.mark.parametrize("name", ["vit", "mobilenet_v1", "mobilevit", "convnext-crop", "levit"])
def test_pixels_are_the_same_with_and_without(name: str, policy: str, tmp_path: Path):
    cached = prepared(tmp_path, processor=PROCESSORS[name], policy=policy)
    assert cached.decoded == "once"
    assert_same(cached, prepared(tmp_path, processor=PROCESSORS[name], policy=policy, decoded_cache="off"))


@pytest.mark.parametrize("name", PROCESSORS)
def test_evaluation_pixels_are_the_processors_bit_for_bit(name: str, tmp_path: Path):
    found = prepared(tmp_path, processor=PROCESSORS[name]).validation
    evaluate = build_eval_transform(PROCESSORS[name])
    for row, file in enumerate(FILES[1:]):
        assert torch.equal(found[row]["pixel_values"], evaluate(to_rgb(file)))


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_saved_processor_finds_what_was_made_for_it(name: str, tmp_path: Path):
    found = prepared(tmp_path / "cache", processor=PROCESSORS[name])
    PROCESSORS[name].save_pretrained(tmp_path / "saved")
    reloaded = type(PROCESSORS[name]).from_pretrained(tmp_path / "saved")
    kept, evaluate = found.processed(reloaded), build_eval_transform(reloaded)
    assert kept is not None
    assert len(kept) == len(FILES[1:])
    for row, file in enumerate(FILES[1:]):
        assert torch.equal(kept[row], evaluate(to_rgb(file)))
    other = copy.deepcopy(reloaded)
    other.image_mean = [0.1, 0.2, 0.3]
    assert found.processed(other) is None
    uncached = prepared(tmp_path / "cache", processor=PROCESSORS[name], decoded_cache="off")
    assert uncached.processed(reloaded) is None


def test_evaluation_pixels_are_kept_as_levels_where_that_loses_nothing(tmp_path: Path):
    facts = prepared(tmp_path).stores["validation"]
    assert facts["bytes"] == len(FILES[1:]) * 3 * 224 * 224


class Blurred:
    """A processor whose numbers are more than 256."""

    def __init__(self):
        self.image_processor = VIT

    def to_json_string(self) -> str:
        return "blurred " + VIT.to_json_string()

    def __call__(self, images, return_tensors: str):
        output = VIT(images=images, return_tensors=return_tensors)
        pixels = output["pixel_values"]
        output["pixel_values"] = (pixels + pixels.roll(1, -1)) / 3
        return output


def test_numbers_that_no_table_holds_are_kept_as_they_are(tmp_path: Path):
    processor: Callable = Blurred()
    cached = prepared(tmp_path, processor=processor, policy="none")
    assert cached.stores["validation"]["bytes"] == len(FILES[1:]) * 3 * 224 * 224 * 4
    assert_same(cached, prepared(tmp_path, processor=processor, policy="none", decoded_cache="off"))
    again = prepared(tmp_path, processor=processor, policy="none")
    assert not again.stores["validation"]["made"]
    assert_same(again, cached)


def test_a_later_run_finds_what_was_made(tmp_path: Path):
    made, found = prepared(tmp_path), prepared(tmp_path)
    assert all(facts["made"] for facts in made.stores.values())
    assert not any(facts["made"] for facts in found.stores.values())
    assert "found from an earlier run" in found.reason
    assert_same(found, made)


@pytest.mark.parametrize(
    "change",
    [
        lambda: {"data": image_data(FILES[::-1])},
        lambda: {"data": image_data([*FILES[:-1], png(5)])},
        lambda: {"processor": PROCESSORS["convnext-384"]},
        lambda: {"policy": "strong"},
    ],
    ids=["order", "contents", "processor", "policy"],
)
def test_what_was_made_for_something_else_is_not_read(tmp_path: Path, change: Callable):
    prepared(tmp_path)
    settings = change()
    other = prepared(tmp_path, **settings)
    assert other.stores["train"]["made"]
    assert_same(other, prepared(tmp_path, **settings, decoded_cache="off"))


def test_files_without_known_hashes_are_hashed(tmp_path: Path):
    nameless = dataclasses.replace(image_data(), content_hashes={})
    prepared(tmp_path, nameless)
    assert not prepared(tmp_path).stores["train"]["made"]


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_rows_are_decoded_anew_and_told_of(tmp_path: Path, workers: int, capfd: pytest.CaptureFixture):
    plain = prepared(tmp_path, decoded_cache="off")
    prepared(tmp_path)
    for thing in things_in(tmp_path / "decoded"):
        content = bytearray((thing / ROWS).read_bytes())
        content[len(content) // 2] ^= 4
        (thing / ROWS).write_bytes(content)
    damaged = prepared(tmp_path)
    assert not damaged.stores["train"]["made"]
    loader = DataLoader(damaged.train, batch_size=None, shuffle=False, num_workers=workers)
    for visit, item in enumerate(loader):
        assert torch.equal(item["pixel_values"], plain.train[visit]["pixel_values"])
    assert capfd.readouterr().out.count("is damaged") == 1
    assert_same(damaged, plain)


def test_a_store_that_is_gone_while_workers_start_is_done_without(tmp_path: Path):
    cached, plain = prepared(tmp_path), prepared(tmp_path, decoded_cache="off")
    for thing in things_in(tmp_path / "decoded"):
        (thing / ROWS).unlink()
    loader = DataLoader(cached.train, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    for visit, item in enumerate(loader):
        assert torch.equal(item["pixel_values"], plain.train[visit]["pixel_values"])


def test_cut_off_stores_are_made_again(tmp_path: Path):
    prepared(tmp_path)
    for thing in things_in(tmp_path / "decoded"):
        os.truncate(thing / ROWS, 100)
    again = prepared(tmp_path)
    assert all(facts["made"] for facts in again.stores.values())
    assert_same(again, prepared(tmp_path, decoded_cache="off"))


def make_in_process(cache: str, out: str) -> None:
    found = prepared(Path(cache))
    pixels = [found.train[visit]["pixel_values"].numpy() for visit in range(len(FILES))]
    np.save(out, np.stack([*pixels, np.full_like(pixels[0], found.stores["train"]["seconds"])]))


def test_two_runs_at_once_share_one_store(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    outs = [tmp_path / f"{number}.npy" for number in range(2)]
    runs = [context.Process(target=make_in_process, args=(str(tmp_path / "cache"), str(out))) for out in outs]
    for run in runs:
        run.start()
    for run in runs:
        run.join(120)
        assert run.exitcode == 0
    plain = prepared(tmp_path, decoded_cache="off").train
    for out in outs:
        for visit, pixels in enumerate(np.load(out)[:-1]):
            assert np.array_equal(pixels, plain[visit]["pixel_values"].numpy())
    assert len(things_in(tmp_path / "cache" / "decoded")) == 2


def test_one_visit_is_not_worth_it(tmp_path: Path):
    found = prepared(tmp_path, visits=1)
    assert (found.decoded, found.reason) == (EACH_VISIT, "there is only one")
    assert list(tmp_path.iterdir()) == []
    assert prepared(tmp_path, visits=1, decoded_cache="on").decoded == "once"


def test_what_does_not_fit_is_decoded_at_each_visit(tmp_path: Path):
    found = prepared(tmp_path, cache_limit="100KB")
    assert found.decoded == EACH_VISIT
    assert "--cache_limit is 100 kB" in found.reason
    assert_same(found, prepared(tmp_path, decoded_cache="off"))
    with pytest.raises(UserError, match="--decoded_cache on: it would take about"):
        prepared(tmp_path, cache_limit="100KB", decoded_cache="on")


def test_older_stores_make_room(tmp_path: Path):
    first = prepared(tmp_path)
    size = sum(facts["bytes"] for facts in first.stores.values())
    prepared(tmp_path, image_data(FILES[::-1]), cache_limit=f"{int(1.3 * size)}")
    assert prepared(tmp_path, image_data(FILES[::-1])).stores["train"]["made"] is False
    assert prepared(tmp_path).stores["train"]["made"] is True


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hf_transfer.data.decode_once.write_store", full)
    found = prepared(tmp_path)
    assert (found.decoded, found.reason) == (EACH_VISIT, "the cache cannot be written (No space left on device)")
    with pytest.raises(UserError, match="No space left"):
        prepared(tmp_path, decoded_cache="on")


def test_a_picture_that_cannot_be_read_ends_the_run_before_it_begins(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read"):
        prepared(tmp_path, image_data([*FILES, FILES[0][:200]]))
    assert things_in(tmp_path / "decoded") == []


def private_memory() -> int:
    """Returns the bytes of this process that are in use and no pages of files."""
    gc.collect()
    # What was freed, by other tests too, would go back to the system at any time.
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc for freed memory, and /proc for the rest")
def test_memory_does_not_grow_with_the_pictures(tmp_path: Path):
    files = [jpeg(number, (400, 300)) for number in range(10)]
    prepared(tmp_path, image_data(files))  # Threads and decoders begin, and stay.
    held = []
    for times in (4, 40):
        pictures = image_data(files * times)
        before = private_memory()
        found = prepared(tmp_path, pictures)
        assert found.stores["train"]["bytes"] == times * 10 * 400 * 300 * 3
        for visit in range(len(found.train)):
            found.train[visit]
        held.append(private_memory() - before)
    # 14 MB are kept on the disk the first time, 144 MB the second.
    assert held[1] - held[0] < 40e6
