"""Each picture is decoded once and kept, where it is looked at more than once.

Knows when that is worth it and where what is kept has its place. Does not know what is kept of a picture
(`hf_transfer.data.kept_pictures`) or how it lies on the disk (`hf_transfer.data.picture_store`).
"""

import dataclasses
import hashlib
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from transformers import BaseImageProcessor

from hf_transfer.cache_folder import cache_folder, lock_of, make_room, mark_used, parse_size, shown_size
from hf_transfer.config import FinetuneConfig
from hf_transfer.data.batch_pixels import BatchPixels
from hf_transfer.data.drawn_pictures import PictureDraws
from hf_transfer.data.fingerprint import content_hashes, sequence_digest
from hf_transfer.data.image_data import ImageData
from hf_transfer.data.image_dataset import ImageClassificationDataset
from hf_transfer.data.images import picture_size
from hf_transfer.data.kept_pictures import Kept, KeptPictures, KeptPixels, NotExact, rows
from hf_transfer.data.picture_store import DamagedStore, PictureStore, StoreTooLarge, write_store
from hf_transfer.data.processor_facts import processor_facts
from hf_transfer.data.stored_pictures import StoredPixels, as_it_is
from hf_transfer.data.training_pictures import TrainingPictures, needed_side
from hf_transfer.data.transforms import AugmentationSettings, build_eval_transform, build_train_transform, varies
from hf_transfer.errors import UserError

EACH_VISIT = "at each visit"
_SAMPLE = 100
_FREE_SHARE = 0.9


@dataclass(frozen=True)
class Varied:
    """Where training pictures are varied: one by one on the `cpu`, or in batches on the `device`."""

    place: str
    reason: str
    seconds_per_picture: dict[str, float] | None = None
    """Of both, where they were measured."""


@dataclass(frozen=True)
class TrainingInput:
    """The data sets of a training, and what was kept of their pictures."""

    train: ImageClassificationDataset
    validation: ImageClassificationDataset
    decoded: str
    reason: str
    stores: dict[str, dict[str, Any]] = field(default_factory=dict)
    """For each split that is kept: pictures, bytes, seconds, and whether it was found or made."""
    folders: tuple[Path, ...] = ()
    """Where it is kept."""
    varied: Varied = Varied("cpu", "picture by picture")
    vary: BatchPixels | None = None
    """What varies batches on the device, where the data set only draws."""

    def varied_on_device(
        self, image_processor: BaseImageProcessor, augmentation: AugmentationSettings
    ) -> "TrainingInput":
        """Returns the same pictures with the same draws, for the device to vary."""
        facts = processor_facts(image_processor)
        drawn = self.train.with_transform(PictureDraws(facts, augmentation), self.train.seed)
        return dataclasses.replace(self, train=drawn, vary=BatchPixels(facts))

    def processed(self, image_processor: BaseImageProcessor) -> StoredPixels | None:
        """Returns what a processor makes of the validation pictures, bit for bit, where that is kept."""
        pictures: Any = self.validation.pictures
        if isinstance(pictures, StoredPixels) and pictures.processor == image_processor.to_json_string():
            return pictures
        return None

    def discard(self) -> None:
        """Removes what is kept; data sets that are read on decode at each visit."""
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Found:
    """What is kept of a split, and in which store."""

    kept: Kept
    store: PictureStore
    facts: dict[str, Any]


class _NoRoom(Exception):
    """What would be kept does not fit."""


def decode_once(
    config: FinetuneConfig,
    data: ImageData,
    image_processor: BaseImageProcessor,
    augmentation: AugmentationSettings,
    seed: int,
    visits: float,
) -> TrainingInput:
    """Makes the data sets of a training, with pictures that are decoded once where that pays.

    The pixels are the same either way. Several processes may call this at once: one decodes, the others wait for it.

    Args:
        config (`FinetuneConfig`):
            `decoded_cache`, `cache_dir` and `cache_limit`.
        data (`ImageData`):
            Train and validation are used.
        image_processor (`BaseImageProcessor`):
            The checkpoint's own.
        augmentation (`AugmentationSettings`):
            How training pictures are varied.
        seed (`int`):
            Seed of the variation.
        visits (`float`):
            How often a training picture is going to be looked at.

    Returns:
        [`TrainingInput`]

    Raises:
        UserError: if the user insists and there is no room, or a picture cannot be read.
    """
    plain = _uncached(data, image_processor, augmentation, seed)
    if config.decoded_cache == "off":
        return TrainingInput(*plain, EACH_VISIT, "as you asked")
    if visits <= 1 and config.decoded_cache == "auto":
        return TrainingInput(*plain, EACH_VISIT, "there is only one")
    pixels: list[Kept] = [KeptPixels(image_processor, as_levels) for as_levels in (True, False)]
    pictures: Any = plain[0].pictures
    kinds: dict[str, list[Kept]] = {
        "train": [KeptPictures(pictures.side)] if varies(augmentation) else pixels,
        "validation": pixels,
    }
    root, limit = cache_folder(config.cache_dir) / "decoded", parse_size(config.cache_limit)
    try:
        found = _keep(root, limit, data, kinds)
    except (_NoRoom, StoreTooLarge, OSError) as error:
        reason = _why_not(error, limit)
        if config.decoded_cache == "on":
            raise UserError(f"--decoded_cache on: {reason}.", hint="a larger --cache_limit, or --cache_dir") from error
        return TrainingInput(*plain, EACH_VISIT, reason)
    train, validation = (_from_store(dataset, found[split]) for split, dataset in zip(kinds, plain, strict=True))
    facts = {split: entry.facts for split, entry in found.items()}
    total, seconds = (sum(entry[name] for entry in facts.values()) for name in ("bytes", "seconds"))
    made = any(entry["made"] for entry in facts.values())
    how = f"made in {seconds:.1f} s" if made else "found from an earlier run"
    folders = tuple(entry.store.folder for entry in found.values())
    return TrainingInput(train, validation, "once", f"{shown_size(total)} kept, {how}", facts, folders)


def _uncached(
    data: ImageData, image_processor: BaseImageProcessor, augmentation: AugmentationSettings, seed: int
) -> tuple[ImageClassificationDataset, ImageClassificationDataset]:
    evaluate = build_eval_transform(image_processor)
    validation = ImageClassificationDataset(data.validation, evaluate, seed=None)
    if not varies(augmentation):
        return ImageClassificationDataset(data.train, evaluate, seed=None), validation
    pictures = TrainingPictures(data.train, needed_side(processor_facts(image_processor), augmentation))
    vary = build_train_transform(image_processor, augmentation)
    return ImageClassificationDataset(data.train, vary, seed, pictures), validation


def _from_store(dataset: ImageClassificationDataset, found: _Found) -> ImageClassificationDataset:
    transform = dataset.transform if isinstance(found.kept, KeptPictures) else as_it_is
    pictures = found.kept.reader(found.store, dataset.split)
    return ImageClassificationDataset(dataset.split, transform, dataset.seed, pictures)


def _keep(root: Path, limit: int, data: ImageData, kinds: dict[str, list[Kept]]) -> dict[str, _Found]:
    """Opens or makes what is kept of each split."""
    names = {split: _content_name(data, split) for split in kinds}
    opened = {split: _open_any(root, names[split], kinds[split]) for split in kinds}
    missing = [split for split in kinds if opened[split] is None]
    needed = {split: _estimate(kinds[split][0], data.split(split)) for split in missing}
    _check_room(root, needed, limit)
    found = {}
    for split in kinds:
        start = time.perf_counter()
        kept, store = opened[split] or _make_any(root, limit, names[split], kinds[split], data.split(split), split)
        seconds = round(time.perf_counter() - start, 3)
        facts = {"pictures": len(store), "bytes": store.num_bytes, "seconds": seconds, "made": split in missing}
        found[split] = _Found(kept, store, facts)
    return found


def _open_any(root: Path, content: str, kinds: list[Kept]) -> tuple[Kept, PictureStore] | None:
    for kept in kinds:
        try:
            store = PictureStore(_place(root, content, kept))
        except DamagedStore:  # or not there
            continue
        mark_used(store.folder)
        return kept, store
    return None


def _make_any(
    root: Path, limit: int, content: str, kinds: list[Kept], split: datasets.Dataset, name: str
) -> tuple[Kept, PictureStore]:
    root.mkdir(parents=True, exist_ok=True)
    for kept in kinds:
        folder = _place(root, content, kept)
        with lock_of(folder):
            made_meanwhile = _open_any(root, content, [kept])
            if made_meanwhile is not None:
                return made_meanwhile
            make_room(root, _estimate(kept, split), limit)
            try:
                images = rows(kept, split, f"decoding {name}")
                return kept, write_store(folder, images, kept.dtype, kept.facts(), limit)
            except NotExact:
                continue
    raise _NoRoom("the processor does not make float32 pixels")


def _place(root: Path, content: str, kept: Kept) -> Path:
    settings = json.dumps(kept.settings(), sort_keys=True)
    return root / hashlib.sha256(f"{content}\n{settings}".encode()).hexdigest()[:32]


def _content_name(data: ImageData, split: str) -> str:
    """Returns a hash of the files of a split in their order."""
    hashes = data.content_hashes.get(split) or content_hashes(data.split(split))
    return sequence_digest(hashes, "\n")


def _estimate(kept: Kept, split: datasets.Dataset) -> int:
    """Returns the bytes that a split is going to take, from the sizes of some of its pictures."""
    step = max(1, len(split) // _SAMPLE)
    some = split.select_columns("image").select(range(0, len(split), step))
    # Whoever decodes a picture that cannot be read says what is wrong with it.
    sizes = [size for row in some if (size := picture_size(row["image"])) is not None]
    return round(sum(kept.row_bytes(*size) for size in sizes) / max(1, len(sizes)) * len(split))


def _check_room(root: Path, needed: dict[str, int], limit: int) -> None:
    total = sum(needed.values())
    if total > limit:
        raise _NoRoom(f"it would take about {shown_size(total)}, --cache_limit is {shown_size(limit)}")
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if total > _FREE_SHARE * free:
        raise _NoRoom(f"it would take about {shown_size(total)}, the disk has {shown_size(free)} left")


def _why_not(error: Exception, limit: int) -> str:
    if isinstance(error, StoreTooLarge):
        return f"it takes more than --cache_limit, which is {shown_size(limit)}"
    if isinstance(error, OSError):
        return f"the cache cannot be written ({error.strerror})"
    return str(error)
