"""L2-SP: a pull towards the pretrained weights, in place of one towards zero.

Li, Grandvalet and Davoine 2018, "Explicit inductive bias for transfer learning with convolutional networks", equation
3. Here it is decoupled from the gradient, as AdamW's weight decay is (Loshchilov and Hutter 2019): added to the loss,
Adam would rescale it with every weight's own statistics, and clipping would cut it. It acts once for each optimizer
step, so that accumulation and the number of processes do not matter.

Does not know which weights are the pretrained ones: it is given them.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from hf_transfer.errors import UserError


class L2SPCallback(TrainerCallback):
    """Pulls every weight that learns back by `learning rate x strength x (weight - start)` before each step.

    Args:
        model (`nn.Module`):
            The model as it came from the checkpoint; its weights are copied.
        head_parameter_names (`Collection[str]`):
            Left alone: the head is new and has nowhere to go back to, and keeps its weight decay.
        strength (`float`):
            The alpha of the paper.
    """

    def __init__(self, model: nn.Module, head_parameter_names: Collection[str], strength: float):
        self.strength = strength
        self._start: dict[int, torch.Tensor] = {
            id(parameter): parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if name not in head_parameter_names
        }

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        pulled = [g for g in _groups(optimizer) if any(id(parameter) in self._start for parameter in g["params"])]
        if not pulled:
            raise UserError(
                "--l2_sp: none of the weights that learn came from the checkpoint; FSDP and DeepSpeed replace them.",
                hint="one process or a multi-GPU (DDP) configuration, or leave --l2_sp out",
            )
        for group in pulled:
            group["weight_decay"] = 0.0  # the pull takes its place; a group is all backbone or all head
            # The copies were made before the model moved to its device; each step would bring them there again.
            self._start |= {
                id(weight): self._start[id(weight)].to(weight.device)
                for weight in group["params"]
                if id(weight) in self._start
            }

    @torch.no_grad()
    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        for group in _groups(optimizer):
            for parameter in group["params"]:
                start = self._start.get(id(parameter))
                if start is None or parameter.grad is None:
                    continue
                parameter.lerp_(start, group["lr"] * self.strength)


def _groups(optimizer: Any) -> list[dict[str, Any]]:
    return optimizer.param_groups
