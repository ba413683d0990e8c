"""The frozen part of a network computed once: when that pays, and how a training runs on what is kept.

A run is a sequence of phases, each with its lowest open layer group; below it nothing changes while the phase lasts,
nor has anything changed before it, since groups thaw from the last to the first. So what enters the open part is kept
for every picture and view, and the steps of the phase run the open part alone.

How many views a picture has in a phase follows from the settings and the schedule, never from whether the cache could
be had: with it, without it, in one process or many, resumed or not, the trajectory is the same.

Knows phases, views and costs. Does not know how a network is cut (`hf_transfer.training.prefix_cut`), what the files
look like (`hf_transfer.training.prefix_store`) or what freezes when (`hf_transfer.training.unfreezing`).
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback

from hf_transfer.cache_folder import shown_size
from hf_transfer.data.visits import VisitedImages
from hf_transfer.errors import UserError
from hf_transfer.training.prefix_build import CachedPrefix, CacheSettings, PrefixBuilder
from hf_transfer.training.prefix_store import size_of_store


@dataclass(frozen=True)
class Phase:
    """A stretch of steps with the same open groups."""

    start: int
    end: int
    lowest_open: int


class PrefixCache(TrainerCallback):
    """Runs a training on kept inputs of its open layers, phase by phase.

    Args:
        trainer (`TransferTrainer`):
            The trainer; its data sets are `VisitedImages`.
        settings ([`CacheSettings`]):
            What the user wants.
        splits (`Mapping[str, VisitedImages]`):
            `train` and `validation`.
    """

    def __init__(self, trainer: Any, settings: CacheSettings, splits: Mapping[str, VisitedImages]):
        self.trainer = trainer
        self.settings = settings
        self.splits = splits
        self._builder = PrefixBuilder(trainer, settings, splits)
        self.facts: list[dict[str, Any]] = []
        self._phase: Phase | None = None
        self._views: int | None = None
        self._cached: CachedPrefix | None = None
        self._was_cached = False

    # Trainer's events

    def on_train_begin(self, args, state, control, **kwargs):
        self._enter(self._phase_at(state.global_step))

    def on_step_begin(self, args, state, control, **kwargs):
        phase = self._phase_at(state.global_step)
        if phase != self._phase:
            self._enter(phase)

    def on_train_end(self, args, state, control, **kwargs):
        """Lets go of everything: the weights below the cut may be replaced from here on."""
        if self._cached is not None and not self.settings.keep and args.should_save:
            for store in self._cached.stores.values():
                shutil.rmtree(store.folder, ignore_errors=True)
        self._cached = None
        for visited in self.splits.values():
            visited.show(pixels=True, views=None)

    # What is kept

    @property
    def in_use(self) -> bool:
        """Whether steps of this phase run on what is kept."""
        return self._cached is not None

    @property
    def views(self) -> int:
        """How many views of each training picture are kept in this phase."""
        return self._views or 1

    def kept(self, split: str) -> torch.Tensor | None:
        """Returns the rows of a split, of shape `(num_rows, ...)`; `None` unless a single input is kept of each."""
        if self._cached is None or len(self._cached.stores[split].tensors) != 1:
            return None
        return self._cached.stores[split].tensors[0]

    # Batches

    def forward(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns the logits of a batch, from kept inputs where there are such."""
        split = next((name for name in self.splits if f"{name}_visits" in inputs), None)
        if split is None:
            return model(pixel_values=inputs["pixel_values"]).logits
        rows = self._rows(split, inputs[f"{split}_visits"])
        if self._cached is None:
            return model(pixel_values=self._pixels(split, rows, inputs)).logits
        device = self.trainer.args.device
        kept = [self._builder.laid_out(values) for values in self._cached.stores[split].read(rows, device)]
        with self._cached.cut.fed_with(kept) as pictures:
            return model(pixel_values=pictures).logits

    def _rows(self, split: str, visits: torch.Tensor) -> torch.Tensor:
        if split == "train" and self._views is None:
            return visits
        return visits % (len(self.splits[split]) * (self._views or 1 if split == "train" else 1))

    def _pixels(self, split: str, rows: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns the pixels of these rows: the batch's, or new ones where it was made before a phase began."""
        given = inputs.get("pixel_values")
        if given is not None and (not self._was_cached or torch.equal(inputs["rows"], rows)):
            return given
        pictures = self.splits[split].pictures
        pixels = torch.stack([pictures[row]["pixel_values"] for row in rows.tolist()])
        return self._builder.laid_out(pixels.to(self.trainer.args.device))

    # Phases

    def _phase_at(self, step: int) -> Phase:
        schedule = self.trainer.unfreezing.schedule
        edges = [0, *schedule.changes(), schedule.total_steps]
        start = max(edge for edge in edges if edge <= step)
        end = min((edge for edge in edges if edge > step), default=schedule.total_steps)
        opened = schedule.open_groups(min(start, schedule.total_steps - 1))
        return Phase(start, end, min(opened, default=len(self.trainer.groups)))

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._cached = None
        against = self._reason_against(phase)
        self._views = None if against else self.settings.views
        if against is None:
            self._was_cached = True
            started = time.perf_counter()
            found = self._builder.open_or_build(phase.lowest_open)
            if isinstance(found, str):
                against = found
            else:
                self._cached = found
                self._note(phase, found, time.perf_counter() - started)
        if against is not None:
            if self.settings.mode == "on" and phase.lowest_open > 0:
                raise UserError(f"--cache on: {against}.", hint="--cache auto runs without a cache where it has to")
            self._say(f"no cache: {against}", {"from_step": phase.start, "cached": False, "reason": against})
        self.splits["train"].show(pixels=self._cached is None, views=self._views)
        self.splits["validation"].show(pixels=self._cached is None, views=None)

    def _reason_against(self, phase: Phase) -> str | None:
        """Says why a phase is not to be cached, from the settings and the schedule alone."""
        if phase.lowest_open == 0:
            return "every layer learns"
        if phase.lowest_open >= len(self.trainer.groups):
            return "no layer learns"
        epochs = (phase.end - phase.start) / self.trainer.steps_per_epoch
        if self.settings.mode == "auto" and epochs <= self.settings.views:
            return f"{epochs:.3g} epoch(s) with these layers frozen see none of {self.settings.views} views again"
        return None

    def _note(self, phase: Phase, cached: CachedPrefix, seconds: float) -> None:
        modules = sorted({inlet.module for inlet in cached.cut.inlets})
        kept = sum(size_of_store(cached.cut.inlets, store.rows) for store in cached.stores.values())
        train, validation = (len(self.splits[name]) for name in ("train", "validation"))
        self._say(
            f"cache: what enters {', '.join(modules)}, of {train} pictures in {self.settings.views} view(s) and "
            f"{validation} for validation, {shown_size(kept)}, ready in {seconds:.1f} s",
            {
                "from_step": phase.start,
                "cached": True,
                "enters": modules,
                "views": self.settings.views,
                "bytes": kept,
                "seconds": round(seconds, 3),
            },
        )

    def _say(self, line: str, facts: dict[str, Any]) -> None:
        self.facts.append(facts)
        if self.trainer.args.should_save:
            print(line, flush=True)
