"""`TransferTrainer`: Trainer with the hooks that transfer learning needs.

Knows which Trainer hook each concern hangs on. Each concern itself lives next door: the loss in `loss`, optimizer
groups in `parameter_groups`, what learns when in `strategies` and `schedule`, thawing in `unfreezing`, strict
reloading in `weights`, pixels in `picture_trainer`, contexts of the network in `computing`, the order of the images in
`hf_transfer.data.sampling`. Trainer's loop is used as it is.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, SchedulerType
from transformers.trainer_optimizer import is_optimizer_factory

from hf_transfer.data.batch_pixels import BatchPixels
from hf_transfer.data.image_dataset import ImageClassificationDataset
from hf_transfer.data.sampling import WholeBatchSampler
from hf_transfer.data.visits import VisitedImages
from hf_transfer.models.layer_groups import LayerGroup
from hf_transfer.training.averaging import WeightAverage
from hf_transfer.training.checkpoints import SaveAfterEpochCallback
from hf_transfer.training.computing import ComputingTrainer
from hf_transfer.training.data_wait import DataWait
from hf_transfer.training.ddp import settle_unused
from hf_transfer.training.head_choice import HeadChoice
from hf_transfer.training.limits import refuse_unsupported
from hf_transfer.training.loss import classification_loss
from hf_transfer.training.parameter_groups import NO_DECAY_SUFFIX, build_parameter_groups
from hf_transfer.training.prefix_cache import PrefixCache
from hf_transfer.training.read_token import OnlyReadToken
from hf_transfer.training.schedule import SHAPES
from hf_transfer.training.solved_start import SolvedHeadCallback
from hf_transfer.training.strategies import RunLength, Unfreezing
from hf_transfer.training.unfreezing import ProgressiveUnfreezeCallback, default_groups
from hf_transfer.training.weights import reload_weights

# Optimizers such as GaLore, LOMO and Apollo choose their own parameters (`Trainer.create_optimizer`); Trainer's
# groups, one rate for all, are then the only ones to be had.
_BRING_OWN_PARAMETERS = {"params", "model", "optimizer_dict"}


class TransferTrainer(ComputingTrainer):
    """Fine-tunes an image classifier: group by group, each at a rate of its own.

    Args:
        *args, **kwargs:
            As for `transformers.Trainer`.
        strategy (`str` or `Unfreezing`, *optional*, defaults to `"full"`):
            Which layer groups learn when, by name or in detail.
        groups (`Sequence[LayerGroup]`, *optional*):
            The layer groups from stem to head; those that the strategy needs when left out.
        rates (`Mapping[str, float]`, *optional*):
            Peak learning rate of every parameter by name; from `lr_head` and `args.learning_rate` when left out.
        lr_head (`float`, *optional*):
            Learning rate of the head; `args.learning_rate` when left out.
        head_parameter_names (`Collection[str]`, *optional*):
            Names of the head's parameters; found by what depends on the number of labels when left out.
        class_weights (`torch.Tensor` of shape `(num_labels,)`, *optional*):
            Weight of each class in the training loss.
        channels_last (`bool`, *optional*, defaults to `False`):
            Whether images and kernels are laid out channels-last in memory.
        train_collator (`Callable`, *optional*):
            Collator of training batches, such as one that mixes images; `data_collator` when left out.
        vary (`BatchPixels`, *optional*):
            Varies batches on the device, where the training data set only draws.
        average (`WeightAverage`, *optional*):
            Average of the weights that is evaluated and kept in their place.
        run_identity (`Mapping[str, Any]`, *optional*):
            What must be the same for a checkpoint to be continued; kept in every checkpoint.
    """

    def __init__(
        self,
        *args: Any,
        strategy: str | Unfreezing = "full",
        groups: Sequence[LayerGroup] | None = None,
        rates: Mapping[str, float] | None = None,
        lr_head: float | None = None,
        head_parameter_names: Collection[str] | None = None,
        class_weights: torch.Tensor | None = None,
        channels_last: bool = False,
        train_collator: Callable | None = None,
        vary: BatchPixels | None = None,
        average: WeightAverage | None = None,
        run_identity: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        model: PreTrainedModel = kwargs["model"] if "model" in kwargs else args[0]
        unfreezing = Unfreezing(strategy=strategy) if isinstance(strategy, str) else strategy  # type: ignore[arg-type]
        self.groups = tuple(default_groups(model, unfreezing, head_parameter_names) if groups is None else groups)
        self.given_rates = rates
        self.lr_head = lr_head
        self.train_collator = train_collator
        self.vary = vary
        self.average = average
        self.run_identity = dict(run_identity or {})
        self.choices = {}
        self.prefix: PrefixCache | None = None
        self.head_choice: HeadChoice | None = None
        self.solved_head: SolvedHeadCallback | None = None
        self.only_read: OnlyReadToken | None = None
        self.steps_per_epoch = 1
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        nn.Module.to(model, memory_format=self.memory_format)
        never_learns = settle_unused(model, kwargs.get("args"))
        super().__init__(*args, **kwargs)
        # Here and not in the step, where it would wait for the device each time.
        self.class_weights = None if class_weights is None else class_weights.to(self.args.device)
        # The loss below is already divided by the images of the whole optimizer step.
        self.loss_is_scaled_for_ga = True
        self.unfreezing = ProgressiveUnfreezeCallback(self, unfreezing, self.groups, never_learns)
        # First of all callbacks, so that the others see a step as it is going to be.
        self.callback_handler.callbacks.insert(0, self.unfreezing)
        self.data_wait = DataWait()
        self.add_callback(self.data_wait)
        self.add_callback(SaveAfterEpochCallback(self))
        if average is not None:
            self.add_callback(average)
        self.unfreezing.open(unfreezing.first_open(len(self.groups)))
        refuse_unsupported(self)

    def _get_train_sampler(self, train_dataset=None):
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not isinstance(dataset, ImageClassificationDataset | VisitedImages):
            return super()._get_train_sampler(train_dataset)
        global_batch = self._train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return WholeBatchSampler(len(dataset), global_batch, seed)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Tells the sampler its epoch before Trainer skips the batches that a resumed run has seen.

        Trainer skips first, and in several processes accelerate 1.15 does not pass the epoch through the loader that
        skips: a resumed epoch would replay the first one. Removable when
        `tests/data/test_sampling.py::test_set_epoch_after_skipping_arrives_in_one_process_only` fails.
        """
        kwargs["train_dataloader"].set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any):
        with self.data_wait.fetching():
            return super().get_batch_samples(*args, **kwargs)

    # Loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor:
        """Counts the images of one optimizer step over all micro-batches and processes."""
        # Filled on the device: a number copied to a GPU would wait for all that the GPU has still to do.
        count = torch.full((), sum(len(batch["labels"]) for batch in batch_samples), device=device)
        return self.accelerator.reduce(count, reduction="sum") if self.args.world_size > 1 else count

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Computes the loss from logits and labels; the model never sees the labels.

        A model that is handed soft labels would set `problem_type` to multi-label and save it, and most image heads
        ignore the number of images that Trainer hands them (transformers#47688).
        """
        labels = inputs["labels"]
        if not model.training:
            logits = self._forward(model, inputs)
            loss = classification_loss(logits, labels, len(labels))
            return (loss, {"logits": logits}) if return_outputs else loss
        # `Trainer.training_step` has just called `model.train()`, on every micro-batch.
        self.unfreezing.keep_frozen_still()
        logits = self._forward(model if self.compiled is None else self.compiled, inputs)
        loss = classification_loss(
            logits,
            labels,
            len(labels) if num_items_in_batch is None else num_items_in_batch,
            label_smoothing=self.args.label_smoothing_factor,
            class_weights=self.class_weights,
        )
        # DistributedDataParallel averages the gradients of the processes; they are to be added up.
        loss = loss * self.args.world_size
        return (loss, {"logits": logits}) if return_outputs else loss

    def _forward(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        with self.computing():
            if self.prefix is not None:
                return self.prefix.forward(model, inputs)
            return model(pixel_values=inputs["pixel_values"]).logits

    def evaluation_loop(self, *args: Any, **kwargs: Any):
        """Evaluates the averaged weights where there are such."""
        with nullcontext() if self.average is None else self.average.standing_in():
            return super().evaluation_loop(*args, **kwargs)

    # Optimizer

    def set_initial_training_values(self, args, dataloader, *rest: Any, **kwargs: Any):
        """Makes the schedule as soon as the number of steps is known, before the model is wrapped."""
        values = super().set_initial_training_values(args, dataloader, *rest, **kwargs)
        self.steps_per_epoch = values[1]
        self._plan_schedule(total_steps=values[6])
        return values

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        opt_model: Any = self.model if model is None else model
        if self.optimizer is not None:
            return self.optimizer
        optimizer_class, optimizer_kwargs = self.get_optimizer_cls_and_kwargs(self.args, opt_model)
        if is_optimizer_factory(optimizer_class) or _BRING_OWN_PARAMETERS & optimizer_kwargs.keys():
            return super().create_optimizer(model)
        groups = build_parameter_groups(
            opt_model, self.groups, self.peak_rates(), self.args.weight_decay, self.unfreezing.ever_open()
        )
        self.optimizer = optimizer_class(groups, **optimizer_kwargs)
        return self.optimizer

    def peak_rates(self) -> dict[str, float]:
        """Returns the peak learning rate of every parameter by name."""
        if self.given_rates is not None:
            return dict(self.given_rates)
        usual = self.args.learning_rate
        rates = {name: usual for group in self.groups for name in group.parameter_names}
        return rates | dict.fromkeys(self.groups[-1].parameter_names, usual if self.lr_head is None else self.lr_head)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """Builds a scheduler that asks the unfreezing schedule for the rate of each group.

        Schedules of transformers that have no shape here serve strategies whose open groups never change.
        """
        target: Any = self.optimizer if optimizer is None else optimizer
        grouped = all("layer_group" in group for group in target.param_groups)
        if (
            self.lr_scheduler is not None
            or not grouped
            or SchedulerType(self.args.lr_scheduler_type).value not in SHAPES
        ):
            return super().create_scheduler(num_training_steps, optimizer)
        factors = [self._factor_of(group["layer_group"]) for group in target.param_groups]
        self.lr_scheduler = LambdaLR(target, factors)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _factor_of(self, layer_group: int) -> Callable[[int], float]:
        def factor(step: int) -> float:
            schedule = self.unfreezing.schedule
            assert schedule is not None
            return schedule.factor(layer_group, step)

        return factor

    def _plan_schedule(self, total_steps: int) -> None:
        shape = SchedulerType(self.args.lr_scheduler_type).value
        warmup = (lambda length: 0) if shape == "constant" else self.args.get_warmup_steps
        # Where transformers makes the schedule, ours only says who is open.
        run = RunLength(total_steps, self.steps_per_epoch, warmup)
        self.unfreezing.plan(run, shape if shape in SHAPES else "constant")
        self.unfreezing.apply(0)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the learning rate of every layer group, where Trainer reports that of the first parameter group."""
        if "learning_rate" in logs and self.optimizer is not None:
            for index, group in enumerate(self.optimizer.param_groups):
                name = str(group.get("name", index)).removesuffix(f"_{NO_DECAY_SUFFIX}")
                logs[f"learning_rate/{name}"] = float(group["lr"])
        super().log(logs, *args, **kwargs)

    # Weights from disk

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            reload_weights(
                self.accelerator.unwrap_model(self.model, keep_torch_compile=False), self._best_checkpoint()
            )
            if self.average is not None:
                self.average.load(Path(self._best_checkpoint()))
                self.average.replace_weights()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            target = self.model if model is None else model
            reload_weights(self.accelerator.unwrap_model(target, keep_torch_compile=False), resume_from_checkpoint)
            if self.average is not None:
                self.average.load(Path(resume_from_checkpoint))

    def _best_checkpoint(self) -> str:
        folder = self.state.best_model_checkpoint
        assert folder is not None, "Trainer calls this only with a best checkpoint"
        return folder
