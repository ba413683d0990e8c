"""An exponential moving average of the weights, which is evaluated and kept in place of the weights themselves.

Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging"; for deep networks Morales-Brotons,
Vogels and Hendrikx 2024, "Exponential moving average of weights in deep learning". In a young run the average forgets
faster, `min(decay, (1 + step) / (10 + step))`, as TensorFlow's `ExponentialMovingAverage` does with `num_updates`;
fine-tuning is short, and the new head would otherwise stay close to its random start.

Knows the average and how it stands in for the weights. Buffers, such as BatchNorm's statistics, are averages already
and are used as they are (so does `torch.optim.swa_utils.AveragedModel`). Does not know when Trainer evaluates or saves
(`TransferTrainer`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback

from hf_transfer.errors import UserError

AVERAGE_FILE = "averaged_weights.safetensors"


def decay_at(step: int, decay: float) -> float:
    """Returns how much of the average is kept at an optimizer step, counted from 1."""
    return min(decay, (1 + step) / (10 + step))


class WeightAverage(TrainerCallback):
    """Averages the weights after every optimizer step.

    Args:
        model (`nn.Module`):
            The model, unwrapped; its parameters are averaged in float32, whatever their own type.
        decay (`float`):
            Between 0 and 1; about the last `1 / (1 - decay)` steps count.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise UserError(f"--ema {decay:g}", "a number between 0 and 1", "--ema 0.999, or leave it out")
        self.decay = decay
        self._parameters = dict(model.named_parameters())
        self._average = {name: p.detach().float().clone() for name, p in self._parameters.items()}
        self._in_use = True

    @torch.no_grad()
    def on_train_begin(self, args, state, control, **kwargs):
        """Begins at the weights as they are, or goes on with the average of a checkpoint; on the model's device."""
        for name, parameter in self._parameters.items():
            begin = parameter.detach().float().clone() if state.global_step == 0 else self._average[name]
            self._average[name] = begin.to(parameter.device)

    @torch.no_grad()
    def on_step_end(self, args, state, control, **kwargs):
        averages = list(self._average.values())
        weights = [parameter.detach().float() for parameter in self._parameters.values()]
        torch._foreach_lerp_(averages, weights, 1 - decay_at(state.global_step, self.decay))

    def on_train_end(self, args, state, control, **kwargs):
        self.replace_weights()

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Lets the model have the averaged weights for a while, until they have replaced its own for good."""
        if not self._in_use:
            yield
            return
        own = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._fill(self._average)
        try:
            yield
        finally:
            self._fill(own)

    def replace_weights(self) -> None:
        """Ends the averaging: the model keeps the averaged weights."""
        if self._in_use:
            self._fill(self._average)
        self._in_use = False

    def save(self, folder: Path) -> None:
        """Writes the average into a checkpoint."""
        save_file({name: average.contiguous() for name, average in self._average.items()}, folder / AVERAGE_FILE)

    def load(self, folder: Path) -> None:
        """Takes up the average of a checkpoint.

        Raises:
            UserError: if the checkpoint holds none.
        """
        if not (folder / AVERAGE_FILE).is_file():
            raise UserError(
                f"{folder} holds no average of the weights ({AVERAGE_FILE} is missing).",
                hint="leave --ema out, or another --output_dir for a new run",
            )
        saved = load_file(folder / AVERAGE_FILE)
        for name, average in self._average.items():
            average.copy_(saved[name])

    @torch.no_grad()
    def _fill(self, weights: dict[str, torch.Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])
