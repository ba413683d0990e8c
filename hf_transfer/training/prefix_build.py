"""Making what a phase runs on: the cut, and its files, found or computed by all processes together.

Knows models, pixels, files and processes. Does not know which phases there are or whether they are worth it
(`hf_transfer.training.prefix_cache`).
"""

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device

from hf_transfer import cpu_products
from hf_transfer.cache_folder import lock_of, make_room, shown_size
from hf_transfer.data.visits import VisitedImages
from hf_transfer.lanes import lanes_on, side_by_side
from hf_transfer.training.fused_layers import Fusions, find_fusions, fused
from hf_transfer.training.prefix_cost import measure_costs
from hf_transfer.training.prefix_cut import PrefixCut
from hf_transfer.training.prefix_fill import row_batches
from hf_transfer.training.prefix_plan import Costs
from hf_transfer.training.prefix_search import find_cut
from hf_transfer.training.prefix_store import (
    PrefixStore,
    is_sealed,
    make_files,
    memory_folder,
    partial_folder,
    seal_store,
    size_of_store,
)

_CHECKED_PICTURES = 4
_SHARE_OF_DEVICE = 0.25
"""Of a GPU's free memory, that kept inputs may take."""


@dataclass(frozen=True)
class CacheSettings:
    """What the user wants of the cache, and what its contents depend on."""

    mode: str
    """`auto`, `on` or `off`."""
    views: int
    """Of each training picture, in phases that are long enough to see one again."""
    folder: Path
    limit: int
    """Bytes."""
    keep: bool
    """Whether what was computed is left for the next run."""
    pixels: Mapping[str, Any]
    """What the pixels depend on, by split name: JSON values."""


class CachedPrefix:
    """A phase's cut, and its stores by split name."""

    def __init__(self, cut: PrefixCut, stores: dict[str, PrefixStore]):
        self.cut = cut
        self.stores = stores

    def kept(self, split: str) -> torch.Tensor | None:
        """Returns the rows of a split, of shape `(num_rows, ...)`; `None` unless a single input is kept of each."""
        tensors = self.stores[split].tensors
        return tensors[0] if len(tensors) == 1 else None


class PrefixBuilder:
    """Finds or makes what is kept for a lowest open layer group.

    Args:
        trainer (`TransferTrainer`):
            The trainer, whose model is frozen as the phase has it.
        settings ([`CacheSettings`]):
            What the user wants.
        splits (`Mapping[str, VisitedImages]`):
            `train` and `validation`.
    """

    def __init__(self, trainer: Any, settings: CacheSettings, splits: Mapping[str, VisitedImages]):
        self.trainer = trainer
        self.settings = settings
        self.splits = splits
        self._fusions: tuple[PrefixCut, Fusions] | None = None

    def laid_out(self, values: torch.Tensor) -> torch.Tensor:
        """Returns feature maps and pictures in the memory layout of the training."""
        return values.contiguous(memory_format=self.trainer.memory_format) if values.dim() == 4 else values

    def pixels(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Returns the pixels of what `collate_pixels` made, on the device, as a training step sees them."""
        return self.trainer.pixels(send_to_device(batch, self.trainer.args.device, non_blocking=True))

    def measured_costs(self) -> Costs:
        """Measures what a look at a picture costs, by the layers that it is spared."""
        args, visited = self.trainer.args, self.splits["train"]

        def pictures() -> torch.Tensor:
            return self.trainer.pixels_of(visited.pictures, args.per_device_train_batch_size)

        hands = args.dataloader_num_workers
        return measure_costs(self._model(), self.trainer.groups, pictures, hands, computing=self.trainer.computing)

    def open_or_build(self, boundary: int) -> CachedPrefix | str:
        """Finds the cut below a layer group and opens or builds its stores; a string says why there is none."""
        model, pictures = self._model(), self._some_pictures
        # As a training step has it.
        model.train()
        self.trainer.unfreezing.keep_frozen_still()
        with self.trainer.computing():
            cut = find_cut(model, self.trainer.groups, boundary, pictures)
        if cut is None:
            return "no cut of this network was exact"
        sizes = {
            "train": self.settings.views * len(self.splits["train"]),
            "validation": len(self.splits["validation"]),
        }
        needed = sum(size_of_store(cut.inlets, rows) for rows in sizes.values())
        if needed > self.settings.limit:
            return f"{shown_size(needed)} would be kept, --cache_limit is {shown_size(self.settings.limit)}"
        stores = {}
        for split, rows in sizes.items():
            found = self._store(cut, split, rows)
            if isinstance(found, str):
                return found
            stores[split] = found
        self._hold_on_device(stores, needed)
        return CachedPrefix(cut, stores)

    def _store(self, cut: PrefixCut, split: str, rows: int) -> PrefixStore | str:
        """Opens or builds a store: on the disk, or in memory where the disk has no room for it."""
        name = self._key(cut, split, rows)
        problem = self._have(cut, split, rows, self.settings.folder / name)
        if problem is None:
            return self._opened(cut, rows, self.settings.folder / name)
        memory = memory_folder()
        if memory is None or self._have(cut, split, rows, memory / name) is not None:
            return problem
        store = self._opened(cut, rows, memory / name)
        # Once all processes have it open its name can go: whatever becomes of them, no memory stays taken.
        self.trainer.accelerator.wait_for_everyone()
        if self.trainer.accelerator.is_main_process:
            shutil.rmtree(store.folder)
        return store

    def _opened(self, cut: PrefixCut, rows: int, folder: Path, writable: bool = False) -> PrefixStore:
        return PrefixStore(folder, cut.inlets, rows, self.trainer.memory_format, writable)

    def _model(self) -> torch.nn.Module:
        return self.trainer.accelerator.unwrap_model(self.trainer.model_wrapped, keep_torch_compile=False)

    def _key(self, cut: PrefixCut, split: str, rows: int) -> str:
        """Returns a name that is the same where, and only where, the rows would be the same."""
        digest = hashlib.sha256()
        for name, tensor in cut.model.state_dict().items():
            if not any(name.startswith(f"{above}.") for above in cut.above):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        only_read = self.trainer.only_read
        facts = {
            "inlets": [[inlet.module, inlet.call, inlet.leaf, inlet.shape, str(inlet.dtype)] for inlet in cut.inlets],
            "rows": rows,
            "pixels": self.settings.pixels[split],
            "precision": self.trainer.args.mixed_precision,
            "laid out": str(self.trainer.memory_format),
            # Others give torch's own answers, bit for bit.
            "calls": sorted(call.__name__ for call in self.trainer.stand_ins() if call in cpu_products.STAND_INS),
            "layers fused": self._fuses_layers(),
            "one token": None if only_read is None else dataclasses.astuple(only_read.read),
            "torch": torch.__version__,
        }
        digest.update(json.dumps(facts, sort_keys=True).encode())
        return f"{split}-{digest.hexdigest()[:32]}"

    def _have(self, cut: PrefixCut, split: str, rows: int, folder: Path) -> str | None:
        """Makes sure that a store is there, built by all processes together; a string says why it is not."""
        accelerator = self.trainer.accelerator
        first = accelerator.is_main_process
        lock = lock_of(folder) if first else None
        problem = None
        if lock is not None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            if first and not is_sealed(folder, cut.inlets, rows):
                shutil.rmtree(folder, ignore_errors=True)
                try:
                    make_room(folder.parent, size_of_store(cut.inlets, rows), self.settings.limit)
                    make_files(folder, cut.inlets, rows)
                except OSError as error:
                    problem = f"{folder.parent} has no room for it ({error.strerror})"
            accelerator.wait_for_everyone()
            if partial_folder(folder).is_dir():
                self._fill(cut, split, rows, partial_folder(folder))
                accelerator.wait_for_everyone()
                if first:
                    seal_store(folder, cut.inlets, rows)
            accelerator.wait_for_everyone()
        finally:
            if lock is not None:
                lock.release()
        if folder.is_dir():
            return None
        return problem or f"{folder.parent} has no room for it"

    def _fill(self, cut: PrefixCut, split: str, rows: int, folder: Path) -> None:
        args = self.trainer.args
        store = self._opened(cut, rows, folder, writable=True)
        mine = range(args.process_index, rows, args.world_size)
        lanes = lanes_on(args.device)
        batches = row_batches(self.splits[split], self.settings.views, mine, args, lanes)
        was_training = cut.model.training
        cut.model.eval()
        with fused(cut.model, self._layers_to_fuse(cut)) as entered, cut.collecting() as collect:

            def look_at(batch: tuple[torch.Tensor, Mapping[str, Any]]) -> None:
                numbers, pictures = batch
                pixels = self.pixels(pictures)
                # Each thread enters them for itself.
                with self.trainer.computing(), entered():
                    kept = collect(pixels)
                store.write(numbers, kept)

            side_by_side(look_at, batches, lanes)
        cut.model.train(was_training)

    def _fuses_layers(self) -> bool:
        """Tells whether rounding is fine enough for another order of it to be of no consequence."""
        return self.trainer.args.mixed_precision == "no"

    def _layers_to_fuse(self, cut: PrefixCut) -> Fusions:
        """Looks for them once for each cut: its splits are filled one after the other."""
        if not self._fuses_layers():
            return Fusions()
        if self._fusions is None or self._fusions[0] is not cut:
            pictures = self._some_pictures
            with self.trainer.computing():
                self._fusions = cut, find_fusions(cut, pictures)
        return self._fusions[1]

    @functools.cached_property
    def _some_pictures(self) -> torch.Tensor:
        return self.trainer.pixels_of(self.splits["validation"].pictures, _CHECKED_PICTURES)

    def _hold_on_device(self, stores: Mapping[str, PrefixStore], needed: int) -> None:
        device = self.trainer.args.device
        if device.type == "cuda" and needed <= _SHARE_OF_DEVICE * torch.cuda.mem_get_info(device)[0]:
            for store in stores.values():
                store.hold_on(device)
