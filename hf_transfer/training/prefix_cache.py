"""The frozen part of a network computed once: when that pays, and how a training runs on what is kept.

A run is a sequence of phases, each with its lowest open layer group; below it nothing changes while the phase lasts,
nor in those after it that share its cut, since groups thaw from the last to the first. So what enters the open part is
kept for every picture and view, and the steps of the phase run the open part alone.

How many views a picture has in a phase follows from the settings and the schedule, never from whether the cache could
be had or pays: with it, without it, in one process or many, resumed or not, the trajectory is the same. Where a run
has several phases with frozen layers, which of them share a cut is planned by what the layers cost on this machine;
the plan is kept in the checkpoints, so that a continued run rounds as the uninterrupted one does.

Knows phases and views. Does not know what pays (`hf_transfer.training.prefix_plan`), how a network is cut
(`hf_transfer.training.prefix_cut`), what the files look like (`hf_transfer.training.prefix_store`) or what freezes
when (`hf_transfer.training.unfreezing`).
"""

import dataclasses
import math
import shutil
import time
from collections.abc import Mapping
from typing import Any

import torch
from transformers import IntervalStrategy, TrainerCallback

from hf_transfer.cache_folder import shown_size
from hf_transfer.data.drawn_pictures import collate_pixels
from hf_transfer.data.visits import VisitedImages
from hf_transfer.errors import UserError
from hf_transfer.training.prefix_build import CachedPrefix, CacheSettings, PrefixBuilder
from hf_transfer.training.prefix_plan import Costs, Looks, Phase, Stretch, frozen_phases, plan_stretches, shown
from hf_transfer.training.prefix_store import size_of_store
from hf_transfer.training.process_group import decided_by_main

PLAN = "prefix_plan"
"""Name of the plan among a run's choices."""


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
        self._phases_of: tuple[Any, list[Phase]] | None = None
        self._stretch: Stretch | None = None
        self._views: int | None = None
        self._cached: CachedPrefix | None = None
        self._at_head: CachedPrefix | None = None
        self._was_cached = False

    # Trainer's events

    def on_train_begin(self, args, state, control, **kwargs):
        self._enter(self._phase_at(state.global_step))

    def on_step_begin(self, args, state, control, **kwargs):
        phase = self._phase_at(state.global_step)
        if phase != self._phase:
            self._enter(phase)

    def on_step_end(self, args, state, control, **kwargs):
        """Computes what has just been frozen: an evaluation after this step looks at the same pictures."""
        phase = self._phase_at(state.global_step)
        if self._phase is not None and phase.lowest_open > self._phase.lowest_open:
            self._enter(phase)

    def on_train_end(self, args, state, control, **kwargs):
        """Lets go of everything: the weights below the cut may be replaced from here on."""
        self._let_go(self._cached)
        self._cached = None
        for visited in self.splits.values():
            visited.show(pixels=True, views=None)

    # Before the first step

    @property
    def in_use(self) -> bool:
        """Whether steps of this phase run on what is kept."""
        return self._cached is not None

    def at_head(self) -> CachedPrefix | str:
        """Returns what enters the head, of every picture and view; a string says why it cannot be had.

        The files are those of a run whose head alone learns.
        """
        started = time.perf_counter()
        head = len(self.trainer.groups) - 1
        with self.trainer.unfreezing.with_open((head,)):
            found = self._builder.open_or_build(head)
        if not isinstance(found, str):
            self._at_head = found
            self._note(0, found, time.perf_counter() - started)
        return found

    def leave_head(self) -> None:
        """Lets go of what enters the head, unless the first phase runs on it."""
        if self._phase_at(0).lowest_open != len(self.trainer.groups) - 1:
            self._let_go(self._at_head)
            self._at_head = None

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
        shown = [self.splits[split].shown(row, self._views)["pixel_values"] for row in rows.tolist()]
        return self._builder.pixels(collate_pixels(shown))

    # Phases

    def _phases(self) -> list[Phase]:
        """Returns all phases of the run, as far as its thaws are known."""
        schedule, num_groups = self.trainer.unfreezing.schedule, len(self.trainer.groups)
        # Asked for at every step; a schedule is never changed, only replaced.
        if self._phases_of is None or self._phases_of[0] is not schedule:
            edges = [0, *schedule.changes(), schedule.total_steps]
            phases = [
                Phase(start, end, min(schedule.open_groups(start), default=num_groups))
                for start, end in zip(edges, edges[1:], strict=False)
            ]
            self._phases_of = (schedule, phases)
        return self._phases_of[1]

    def _tunes_norms(self, phase: Phase) -> bool:
        """Tells whether normalisation layers learn in a phase that freezes them at its end."""
        return self.trainer.unfreezing.unfreezing.tune_norms is not None and phase != self._phases()[-1]

    def _phases_to_cut(self) -> list[Phase]:
        return [phase for phase in self._phases() if not self._tunes_norms(phase)]

    def _phase_at(self, step: int) -> Phase:
        phases = self._phases()
        return next((phase for phase in phases if step < phase.end), phases[-1])

    def _enter(self, phase: Phase) -> None:
        before, self._phase = self._cached, phase
        self._cached, self._at_head = self._at_head, None
        if self._cached is not None:
            self._views = self.settings.views
            self._was_cached = True
            self._show()
            return
        against = self._reason_against(phase)
        self._views = None if against else self.settings.views
        if against is None:
            self._was_cached = True
            stretch = self._stretch_of(phase)
            if stretch.boundary is None:
                against = "computing them once would take longer"
            elif before is not None and stretch == self._stretch:
                self._cached = before
                self._say("cache: as before", self.facts[-1] | {"from_step": phase.start, "seconds": 0.0})
            else:
                against = self._open(phase, stretch)
        if against is not None:
            if self.settings.mode == "on" and phase.lowest_open > 0 and not self._tunes_norms(phase):
                raise UserError(f"--cache on: {against}.", hint="--cache auto runs without a cache where it has to")
            facts = {"from_step": phase.start, "cached": False, "reason": against} | self._views_facts(self._views)
            self._say(f"no cache: {against}", facts)
        self._show()

    def _open(self, phase: Phase, stretch: Stretch) -> str | None:
        """Opens or builds what a stretch runs on; a string says why it cannot be had."""
        assert stretch.boundary is not None
        started = time.perf_counter()
        found = self._builder.open_or_build(stretch.boundary)
        if isinstance(found, str):
            return found
        self._cached, self._stretch = found, stretch
        self._note(phase.start, found, time.perf_counter() - started)
        return None

    def _show(self) -> None:
        self.splits["train"].show(pixels=self._cached is None, views=self._views)
        self.splits["validation"].show(pixels=self._cached is None, views=None)

    def _let_go(self, cached: CachedPrefix | None) -> None:
        if cached is not None and not self.settings.keep and self.trainer.args.should_save:
            for store in cached.stores.values():
                shutil.rmtree(store.folder, ignore_errors=True)

    def _reason_against(self, phase: Phase) -> str | None:
        """Says why a phase has no limit of views and no cache, from the settings and the schedule alone."""
        num_groups = len(self.trainer.groups)
        if self._tunes_norms(phase):
            return "normalisation layers learn"
        if phase.lowest_open == 0:
            return "every layer learns"
        if phase.lowest_open >= num_groups:
            return "no layer learns"
        frozen = frozen_phases(self._phases_to_cut(), num_groups)
        epochs = (frozen[-1].end - frozen[0].start) / self.trainer.steps_per_epoch
        if self.settings.mode == "auto" and epochs <= self.settings.views:
            return f"{epochs:.3g} epoch(s) with layers frozen see none of {self.settings.views} views again"
        return None

    # The plan

    def _stretch_of(self, phase: Phase) -> Stretch:
        """Returns the stretch of the plan that a phase belongs to; plans what has not been planned yet."""
        planned = [Stretch(**stretch) for stretch in self.trainer.choices.get(PLAN, ())]
        found = [stretch for stretch in planned if stretch.serves(phase)]
        if not found:
            # A thaw at a plateau changes what was to come.
            before = [stretch.until(phase.start) for stretch in planned if stretch.start < phase.start]
            found = self._plan_from(phase.start)
            self.trainer.choices[PLAN] = [dataclasses.asdict(stretch) for stretch in (*before, *found)]
        return found[0]

    def _plan_from(self, step: int) -> list[Stretch]:
        """Plans the phases with frozen groups from a step on; the main process measures for all."""
        frozen = frozen_phases(self._phases_to_cut(), len(self.trainer.groups))
        phases = [phase for phase in frozen if phase.start >= step]
        several = len({phase.lowest_open for phase in phases}) > 1

        def decide() -> list[Stretch]:
            # With a single boundary every look costs the same, whatever it is.
            costs = self._builder.measured_costs() if several else Costs(1.0, (0.0,) * len(self.trainer.groups))
            plan = plan_stretches(phases, self._looks(), costs, everywhere=self.settings.mode == "on")
            if several and self.trainer.args.should_save:
                print(shown(plan, [group.name for group in self.trainer.groups]), flush=True)
            return plan

        return decided_by_main(self.trainer.accelerator.is_main_process, decide)

    def _looks(self) -> Looks:
        args, steps_per_epoch = self.trainer.args, self.trainer.steps_per_epoch
        between = {
            IntervalStrategy.NO: math.inf,
            IntervalStrategy.EPOCH: steps_per_epoch,
            IntervalStrategy.STEPS: args.eval_steps,
        }
        train, validation = (len(self.splits[name]) for name in ("train", "validation"))
        return Looks(train, validation, steps_per_epoch, between[args.eval_strategy], self.settings.views)

    def _note(self, step: int, cached: CachedPrefix, seconds: float) -> None:
        modules = sorted({inlet.module for inlet in cached.cut.inlets})
        kept = sum(size_of_store(cached.cut.inlets, store.rows) for store in cached.stores.values())
        train, validation = (len(self.splits[name]) for name in ("train", "validation"))
        first = "" if self.splits["train"].first_view is None else ", the first not varied,"
        self._say(
            f"cache: what enters {', '.join(modules)}, of {train} pictures in {self.settings.views} view(s){first} "
            f"and {validation} for validation, {shown_size(kept)}, ready in {seconds:.1f} s",
            {
                "from_step": step,
                "cached": True,
                "enters": modules,
                "bytes": kept,
                "seconds": round(seconds, 3),
            }
            | self._views_facts(self.settings.views),
        )

    def _views_facts(self, views: int | None) -> dict[str, Any]:
        """Returns how many views a picture has, `None` for a new one in each epoch, and what the first one shows."""
        return {"views": views, "first_varied": views is None or self.splits["train"].first_view is None}

    def _say(self, line: str, facts: dict[str, Any]) -> None:
        self.facts.append(facts)
        if self.trainer.args.should_save:
            print(line, flush=True)
