"""Thawing during a run: the callback that puts a schedule on a model, step by step.

Knows when Trainer calls and how thaws are announced. Does not know how a strategy becomes a schedule
(`hf_transfer.training.strategies`) or what freezing does to a module (`hf_transfer.training.frozen`).
"""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel, SchedulerType, Trainer, TrainerCallback

from hf_transfer.errors import UserError
from hf_transfer.models.head import find_head
from hf_transfer.models.layer_groups import LayerGroup, layer_groups
from hf_transfer.models.two_groups import backbone_and_head
from hf_transfer.training.ddp import rebuild_gradient_reduction
from hf_transfer.training.frozen import frozen_modules, open_groups, outside_norms
from hf_transfer.training.half_learning import HalfLearning
from hf_transfer.training.judging import judged_evaluations, plateaus
from hf_transfer.training.schedule import SHAPES, Schedule
from hf_transfer.training.strategies import RunLength, Unfreezing

# Strategies for which backbone and head are groups enough.
_WHOLE_BACKBONE = ("feature-extraction", "full", "scratch", "lp-ft")


def default_groups(
    model: PreTrainedModel, unfreezing: Unfreezing, head_parameter_names: Collection[str] | None = None
) -> tuple[LayerGroup, ...]:
    """Returns the layer groups that a strategy needs: backbone and head, or those of [`layer_groups`]."""
    if unfreezing.strategy in _WHOLE_BACKBONE and unfreezing.tune_norms is None:
        return backbone_and_head(model, find_head(model) if head_parameter_names is None else head_parameter_names)
    return layer_groups(model)


class ProgressiveUnfreezeCallback(TrainerCallback):
    """Freezes and thaws layer groups while a Trainer trains.

    For a Trainer of your own:

    ```python
    trainer = Trainer(model=model, args=args, ...)
    trainer.add_callback(ProgressiveUnfreezeCallback(trainer, Unfreezing(strategy="progressive", unfreeze_every=1)))
    trainer.train()
    ```

    Every parameter is in the optimizer from the first step on; frozen ones have no gradient, so it passes them over.
    Learning rates are the Trainer's own; `TransferTrainer` gives each group its own rate and warm-up. What is frozen
    follows from the step and, for thaws at a plateau, from the evaluations in the Trainer's log, so a resumed run
    needs nothing else.

    Args:
        trainer (`Trainer`):
            The trainer that the callback belongs to.
        unfreezing (`Unfreezing`):
            Which groups learn when.
        groups (`Sequence[LayerGroup]`, *optional*):
            The layer groups from stem to head; those that the strategy needs when left out.
        never_learns (`Collection[str]`, *optional*):
            Names of parameters that stay frozen whatever group they are in.
    """

    def __init__(
        self,
        trainer: Trainer,
        unfreezing: Unfreezing,
        groups: Sequence[LayerGroup] | None = None,
        never_learns: Collection[str] = (),
    ):
        self.trainer = trainer
        self.unfreezing = unfreezing
        model: Any = trainer.model
        self.groups = tuple(default_groups(model, unfreezing) if groups is None else groups)
        self.never_learns = set(never_learns)
        if unfreezing.tune_norms is not None:
            first = unfreezing.first_open(len(self.groups))[:-1]
            self.never_learns.update(outside_norms(model, [self.groups[number] for number in first]))
        self.schedule: Schedule | None = None
        self._open: tuple[int, ...] | None = None
        self._frozen: tuple[nn.Module, ...] = ()
        self._run: RunLength | None = None
        self._planned: Schedule | None = None
        self._hook: Any = None
        self.half: HalfLearning | None = None

    def plan(self, run: RunLength, shape: str) -> Schedule:
        """Makes the schedule of a run whose length is known by now."""
        self._run = run
        self._planned = self.unfreezing.schedule(len(self.groups), run, shape)
        self.schedule = self._planned
        return self.schedule

    def apply(self, step: int) -> bool:
        """Opens the groups that learn at a step and freezes the others; tells whether anything changed."""
        assert self.schedule is not None, "plan() comes first"
        numbers = self.schedule.open_groups(step)
        if numbers == self._open:
            return False
        self.open(numbers)
        return True

    def open(self, numbers: tuple[int, ...]) -> None:
        """Opens these groups and freezes the others."""
        model: Any = self.trainer.model
        open_groups(model, self.groups, numbers, self.never_learns)
        # Norms that learn normalise as they did: with the statistics that the checkpoint brought.
        whole = numbers if self.unfreezing.tune_norms is None else numbers[-1:]
        self._frozen = frozen_modules(model, self.groups, whole)
        self._open = numbers
        self._halve()

    def halve(self, half: HalfLearning | None) -> None:
        """Lets what learns compute in half precision from now on, whichever groups these are; `None` no longer."""
        if self.half is not None:
            self.half.release()
        self.half = half
        self._halve()

    def _halve(self) -> None:
        if self.half is not None and self._open is not None:
            model: Any = self.trainer.model
            self.half.follow(model, self.groups, min(self._open, default=len(self.groups)))

    def change(self, unfreezing: Unfreezing) -> None:
        """Takes another wish for the one so far; `on_train_begin` carries it out in a run that has begun."""
        self.unfreezing = unfreezing
        if self._run is None or self._planned is None:
            self.open(unfreezing.first_open(len(self.groups)))
        else:
            self.plan(self._run, self._planned.shape)

    @contextmanager
    def with_open(self, numbers: tuple[int, ...]) -> Iterator[None]:
        """Opens these groups alone for a while, between two steps."""
        before = self._open
        if before is None or before == numbers:
            yield
            return
        self.open(numbers)
        try:
            yield
        finally:
            self.open(before)
            rebuild_gradient_reduction(self.trainer.model_wrapped, self.trainer.accelerator)

    def ever_open(self) -> tuple[int, ...]:
        """Returns the numbers of the groups that may learn at any time of the run."""
        assert self.schedule is not None, "plan() comes first"
        if self.unfreezing.unfreeze_on_plateau is not None:
            backbone = len(self.groups) - 1
            return tuple(range(backbone - self.unfreezing.thawing_groups(backbone), len(self.groups)))
        return tuple(number for number, segments in enumerate(self.schedule.segments) if segments)

    def keep_frozen_still(self) -> None:
        """Puts frozen modules back into evaluation mode, which `model.train()` takes them out of."""
        for module in self._frozen:
            module.training = False

    def rates(self) -> dict[str, float]:
        """Returns the peak learning rate of each group, from the optimizer."""
        optimizer: Any = self.trainer.optimizer
        found: dict[str, float] = {}
        names = {id(p): name for name, p in self.trainer.model.named_parameters()} if self.trainer.model else {}
        owner = {name: group.name for group in self.groups for name in group.parameter_names}
        for param_group in optimizer.param_groups:
            for parameter in param_group["params"]:
                if id(parameter) in names:
                    found[owner[names[id(parameter)]]] = param_group.get("initial_lr", param_group["lr"])
        return found

    # Trainer's events

    def on_train_begin(self, args, state, control, **kwargs):
        if self.schedule is None:
            self._plan_for_a_plain_trainer(args, state, kwargs["train_dataloader"])
        self._thaw_at_plateaus(args, state)
        # Trainer may have wrapped the model while more, or fewer, parameters required gradients.
        if self.apply(state.global_step):
            rebuild_gradient_reduction(self.trainer.model_wrapped, self.trainer.accelerator)
        if SchedulerType(args.lr_scheduler_type).value in SHAPES:
            # A finished run that is made longer goes on at the rate of the longer one, not at the end of the shorter.
            self._refresh_rates(state.global_step)

    def on_step_begin(self, args, state, control, **kwargs):
        self._follow(state)

    def on_step_end(self, args, state, control, **kwargs):
        assert self.schedule is not None
        learning = self.schedule.open_groups(state.global_step)
        # What will not learn again is frozen at once, and an evaluation after this step sees it so.
        if learning and set(learning) < set(self._open or ()):
            self._follow(state)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self._thaw_at_plateaus(args, state)

    def on_train_end(self, args, state, control, **kwargs):
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    # Inside

    def _follow(self, state) -> None:
        """Opens and freezes what the schedule says for the coming step, and announces it."""
        before = self._open or ()
        if not self.apply(state.global_step):
            return
        rebuild_gradient_reduction(self.trainer.model_wrapped, self.trainer.accelerator)
        self._refresh_rates(state.global_step)
        if state.is_world_process_zero:
            print(self._announcement(state.global_step, before), flush=True)

    def _plan_for_a_plain_trainer(self, args, state, train_dataloader) -> None:
        if args.torch_compile:
            raise UserError(
                "ProgressiveUnfreezeCallback cannot keep frozen layers in evaluation mode inside a compiled model.",
                hint="use TransferTrainer, or leave --torch_compile out",
            )
        steps_per_epoch = math.ceil(len(train_dataloader) / args.gradient_accumulation_steps)
        self.plan(RunLength(state.max_steps, steps_per_epoch, args.get_warmup_steps), "constant")
        model: Any = self.trainer.model
        self._hook = model.register_forward_pre_hook(self._before_forward)

    def _before_forward(self, module: nn.Module, inputs: Any) -> None:
        if module.training:
            self.keep_frozen_still()

    def _thaw_at_plateaus(self, args, state) -> None:
        """Puts the thaws that the evaluations so far have brought into the schedule."""
        patience = self.unfreezing.unfreeze_on_plateau
        if patience is None or self._planned is None or self._run is None:
            return
        schedule = self._planned
        evaluations = judged_evaluations(state.log_history, args.metric_for_best_model, args.greater_is_better)
        steps = [step for step in plateaus(evaluations, patience) if step < schedule.total_steps]
        for group, step in zip(reversed(self.ever_open()[:-1]), steps, strict=False):
            segment = self._run.segment(step, schedule.total_steps)
            schedule = schedule.thawed(group, segment)
        self.schedule = schedule

    def _refresh_rates(self, step: int) -> None:
        """Sets the rates of a step whose schedule changed after the scheduler had set them."""
        optimizer: Any = self.trainer.optimizer
        assert self.schedule is not None
        for group in optimizer.param_groups:
            if "layer_group" in group:
                group["lr"] = group["initial_lr"] * self.schedule.factor(group["layer_group"], step)

    def _announcement(self, step: int, before: Sequence[int]) -> str:
        """Returns the line of a thaw: step, groups, parameters, peak rates."""
        now = self._open or ()
        rates = self.rates()
        parts = []
        for verb, numbers in (("thawed", set(now) - set(before)), ("froze", set(before) - set(now))):
            if numbers:
                changed = [self.groups[number] for number in sorted(numbers)]
                span = changed[0].name if len(changed) == 1 else f"{changed[0].name} to {changed[-1].name}"
                size = sum(self._size(group) for group in changed)
                peaks = sorted({rates[group.name] for group in changed})
                rate = f"{peaks[0]:g}" if len(peaks) == 1 else f"{peaks[0]:g} to {peaks[-1]:g}"
                parts.append(f"{verb} {span} ({size:,} parameters, rate {rate})")
        return f"step {step}: {', '.join(parts)}; {len(now)} of {len(self.groups)} groups learn"

    def _size(self, group: LayerGroup) -> int:
        model: Any = self.trainer.model
        learning = (name for name in group.parameter_names if name not in self.never_learns)
        return sum(model.get_parameter(name).numel() for name in learning)
