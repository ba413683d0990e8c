"""`TransferTrainer`: Trainer with the hooks that transfer learning needs.

Knows which Trainer hook each concern hangs on. Each concern itself lives next door: the loss in `loss`, optimizer
groups in `parameter_groups`, what is frozen in `strategies`, strict reloading in `weights`, the order of the images in
`hf_transfer.data.sampling`. Trainer's loop is used as it is.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer_optimizer import is_optimizer_factory

from hf_transfer.data.image_dataset import ImageClassificationDataset
from hf_transfer.data.sampling import WholeBatchSampler
from hf_transfer.models.head import find_head, find_head_dropout
from hf_transfer.training.loss import classification_loss
from hf_transfer.training.parameter_groups import build_parameter_groups
from hf_transfer.training.strategies import freeze_for_strategy, frozen_modules
from hf_transfer.training.weights import reload_weights

# Optimizers such as GaLore, LOMO and Apollo choose their own parameters (`Trainer.create_optimizer`); Trainer's
# groups, one rate for all, are then the only ones to be had.
_BRING_OWN_PARAMETERS = {"params", "model", "optimizer_dict"}


class TransferTrainer(Trainer):
    """Fine-tunes an image classifier: frozen or not, at one rate for the backbone and another for the head.

    Args:
        *args, **kwargs:
            As for `transformers.Trainer`.
        strategy (`str`, *optional*, defaults to `"full"`):
            `feature-extraction`, `full` or `scratch`.
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
    """

    def __init__(
        self,
        *args: Any,
        strategy: str = "full",
        lr_head: float | None = None,
        head_parameter_names: Collection[str] | None = None,
        class_weights: torch.Tensor | None = None,
        channels_last: bool = False,
        train_collator: Callable | None = None,
        **kwargs: Any,
    ):
        model: PreTrainedModel = kwargs["model"] if "model" in kwargs else args[0]
        self.head_parameter_names = tuple(find_head(model) if head_parameter_names is None else head_parameter_names)
        self.strategy = strategy
        self.lr_head = lr_head
        self.class_weights = class_weights
        self.train_collator = train_collator
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        freeze_for_strategy(model, strategy, self.head_parameter_names)
        nn.Module.to(model, memory_format=self.memory_format)
        super().__init__(*args, **kwargs)
        # The loss below is already divided by the images of the whole optimizer step.
        self.loss_is_scaled_for_ga = True
        self._frozen_modules = frozen_modules(model, find_head_dropout(model, self.head_parameter_names))

    # Data

    def _get_train_sampler(self, train_dataset=None):
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not isinstance(dataset, ImageClassificationDataset):
            return super()._get_train_sampler(train_dataset)
        global_batch = self._train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return WholeBatchSampler(len(dataset), global_batch, seed)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Tells the sampler its epoch before Trainer skips the batches that a resumed run has seen.

        Trainer skips first, and in several processes accelerate 1.15 does not pass the epoch through the loader that
        skips, so that a resumed epoch would replay the first one. Removable when
        `tests/data/test_sampling.py::test_set_epoch_after_skipping_arrives_in_one_process_only` fails.
        """
        kwargs["train_dataloader"].set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)

    def get_train_dataloader(self):
        """Builds the training loader with `train_collator`; Trainer knows one collator for training and evaluation."""
        evaluation_collator = self.data_collator
        self.data_collator = self.train_collator or evaluation_collator
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = evaluation_collator

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        inputs["pixel_values"] = inputs["pixel_values"].contiguous(memory_format=self.memory_format)
        return inputs

    # Loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor:
        """Counts the images of one optimizer step over all micro-batches and processes."""
        count = torch.tensor(sum(len(batch["labels"]) for batch in batch_samples), device=device)
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
        for module in self._frozen_modules:
            module.training = False
        logits = self._forward(model, inputs)
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        loss = classification_loss(
            logits,
            labels,
            len(labels) if num_items_in_batch is None else num_items_in_batch,
            label_smoothing=self.args.label_smoothing_factor,
            class_weights=weights,
        )
        # DistributedDataParallel averages the gradients of the processes; they are to be added up.
        loss = loss * self.args.world_size
        return (loss, {"logits": logits}) if return_outputs else loss

    @staticmethod
    def _forward(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(pixel_values=inputs["pixel_values"]).logits

    # Optimizer

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        opt_model: Any = self.model if model is None else model
        if self.optimizer is not None:
            return self.optimizer
        optimizer_class, optimizer_kwargs = self.get_optimizer_cls_and_kwargs(self.args, opt_model)
        if is_optimizer_factory(optimizer_class) or _BRING_OWN_PARAMETERS & optimizer_kwargs.keys():
            return super().create_optimizer(model)
        groups = build_parameter_groups(
            opt_model,
            self.head_parameter_names,
            learning_rate=self.args.learning_rate,
            lr_head=self.args.learning_rate if self.lr_head is None else self.lr_head,
            weight_decay=self.args.weight_decay,
        )
        self.optimizer = optimizer_class(groups, **optimizer_kwargs)
        return self.optimizer

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the learning rate of every parameter group, where Trainer reports that of the first."""
        if "learning_rate" in logs and self.optimizer is not None:
            for index, group in enumerate(self.optimizer.param_groups):
                logs[f"learning_rate/{group.get('name', index)}"] = float(group["lr"])
        super().log(logs, *args, **kwargs)

    # Weights from disk

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            reload_weights(
                self.accelerator.unwrap_model(self.model, keep_torch_compile=False), self._best_checkpoint()
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            target = self.model if model is None else model
            reload_weights(self.accelerator.unwrap_model(target, keep_torch_compile=False), resume_from_checkpoint)

    def _best_checkpoint(self) -> str:
        folder = self.state.best_model_checkpoint
        assert folder is not None, "Trainer calls this only with a best checkpoint"
        return folder
