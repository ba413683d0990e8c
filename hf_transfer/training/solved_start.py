"""A training that begins, and for a frozen backbone ends, with a head that was solved in one go.

Knows where in a training the features are at hand and the head can be set. Does not know how it is solved
(`hf_transfer.training.head_solver`).
"""

import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import broadcast
from torch import nn
from transformers import EvalPrediction, TrainerCallback

from hf_transfer.errors import UserError
from hf_transfer.training.head_solver import solve_head

_CHECKED_ROWS = 4


class SolvedHeadCallback(TrainerCallback):
    """Solves for the head before the first step, evaluates it, and ends the training.

    Comes after the `PrefixCache`, whose features it needs.

    Args:
        trainer (`TransferTrainer`):
            The trainer, with a cache.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self.facts: dict[str, float] | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        started = time.perf_counter()
        layer = self._layer()
        weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
        chosen = torch.zeros(2, device=weight.device)
        if self.trainer.accelerator.is_main_process:
            solved = self._solve()
            weight.copy_(solved.weight)
            bias.copy_(solved.bias)
            chosen.copy_(torch.tensor([solved.strength, solved.score]))
        weight, bias, chosen = (broadcast(tensor) for tensor in (weight, bias, chosen))
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        seconds = time.perf_counter() - started
        self.facts = {"strength": float(chosen[0]), "score": float(chosen[1]), "seconds": round(seconds, 3)}
        if args.should_save:
            print(f"head solved by L-BFGS in {seconds:.1f} s, strength {self.facts['strength']:g}", flush=True)
        self.trainer.evaluate()
        control.should_training_stop = True

    def _layer(self) -> nn.Linear:
        """Returns the head, a single linear layer with a bias that sees the kept features themselves."""
        trainer = self.trainer
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_torch_compile=False)
        owners = {name.rpartition(".")[0] for name in trainer.groups[-1].parameter_names}
        layer = model.get_submodule(owners.pop()) if len(owners) == 1 else None
        features = trainer.prefix.kept("validation") if isinstance(layer, nn.Linear) else None
        if not isinstance(layer, nn.Linear) or layer.bias is None or features is None or not self._sees(layer):
            raise UserError(
                "--head_solver lbfgs: the head of this network is not a single linear layer on its features.",
                hint="--head_solver sgd",
            )
        return layer

    def _sees(self, layer: nn.Linear) -> bool:
        """Tells whether the head's answers are the network's."""
        prefix = self.trainer.prefix
        rows = torch.arange(min(_CHECKED_ROWS, len(prefix.splits["validation"])))
        features = prefix.kept("validation")[rows]
        if features.shape[1:] != (layer.in_features,):
            return False
        model = self.trainer.model_wrapped
        model.eval()
        with torch.no_grad():
            logits = prefix.forward(model, {"validation_visits": rows.to(self.trainer.args.device)})
            own = layer(features.to(layer.weight.device, layer.weight.dtype))
        return torch.allclose(logits.float(), own.float(), rtol=1e-3, atol=1e-4)

    def _solve(self) -> Any:
        trainer, prefix = self.trainer, self.trainer.prefix
        held_out = prefix.kept("validation").float()
        answers = torch.from_numpy(prefix.splits["validation"].labels)
        features = prefix.kept("train").float()
        labels = torch.from_numpy(np.tile(prefix.splits["train"].labels, prefix.views))
        metric = (trainer.args.metric_for_best_model or "loss").removeprefix("eval_")
        rises = trainer.args.greater_is_better is not False and metric != "loss"

        def score(weight: torch.Tensor, bias: torch.Tensor) -> float:
            logits = held_out @ weight.T + bias
            if metric == "loss":
                return -float(F.cross_entropy(logits, answers))
            value = trainer.compute_metrics(EvalPrediction(logits.numpy(), answers.numpy()))[metric]
            return value if rises else -value

        return solve_head(features, labels, prefix.views, int(labels.max()) + 1, score, trainer.class_weights)
