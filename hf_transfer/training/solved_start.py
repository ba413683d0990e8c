"""A training that begins, and for a frozen backbone ends, with a head that was solved in one go.

Before the first step the head is solved on the features of the network as it came, and evaluated. Where the head is
all that learns, that is the whole training; where everything learns afterwards (LP-FT, Kumar et al. 2022), the solved
head is also the first checkpoint, so that it is kept if no step makes it better.

What came of it is in Trainer's log: a continued run finds it there, takes the weights of its checkpoint and solves
nothing.

Knows where in a training the features are at hand and the head can be set. Does not know how it is solved
(`hf_transfer.training.head_solver`) or whether it is to be (`hf_transfer.training.head_choice`).
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import broadcast
from torch import nn
from transformers import EvalPrediction, TrainerCallback

from hf_transfer.errors import UserError
from hf_transfer.models.linear_head import linear_head
from hf_transfer.training.head_choice import NO_LINEAR_HEAD
from hf_transfer.training.head_solver import SolvedHead, solve_head
from hf_transfer.training.judging import judged_by
from hf_transfer.training.prefix_build import CachedPrefix
from hf_transfer.training.prefix_cache import PrefixCache

_CHECKED_ROWS = 4
_FACTS = "solved_head/"


def solved_facts(log_history: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Returns strength, validation score and seconds of the solution from Trainer's log; `None` without one."""
    for entry in log_history:
        facts = {key.removeprefix(_FACTS): value for key, value in entry.items() if key.startswith(_FACTS)}
        if facts:
            return facts
    return None


class SolvedHeadCallback(TrainerCallback):
    """Solves for the head before the first step and evaluates it; ends the training where nothing else learns.

    Comes before the cache that it takes its features from: where they cannot be had, the run is planned anew, head
    first, before the cache looks at the plan.

    Args:
        trainer (`TransferTrainer`):
            The trainer, planned for a solved head.
        cache ([`PrefixCache`]):
            Makes the features.
        insist (`bool`):
            Whether it is a mistake of the user where the head cannot be solved.
    """

    def __init__(self, trainer: Any, cache: PrefixCache, insist: bool):
        self.trainer = trainer
        self.cache = cache
        self.insist = insist
        self.gave_up = False
        self._is_new = False

    @property
    def is_all(self) -> bool:
        """Whether the training ends with the solution."""
        return not self.gave_up and not self.trainer.unfreezing.unfreezing.head_solved

    # Trainer's events

    def on_train_begin(self, args, state, control, **kwargs):
        self._is_new = False
        if self.gave_up or solved_facts(state.log_history) is not None:
            return
        against = "this run began without a solved head" if state.global_step > 0 else self._start_solved()
        if against is None:
            self._is_new = True
            # That evaluation is made here, and counts.
            args.eval_on_start = False
        else:
            self._give_up(against, args, state, control)

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Evaluates the solution, once all callbacks are ready for the training."""
        if not self._is_new:
            return
        self._is_new = False
        if self.is_all:
            self.trainer.evaluate()
            control.should_training_stop = True
        elif args.eval_strategy != "no":
            metrics = self.trainer.evaluate()
            self.trainer._determine_best_metric(metrics=metrics, trial=None)
            if args.load_best_model_at_end:
                self.trainer._save_checkpoint(self.trainer.model, trial=None)
                self.trainer.callback_handler.on_save(args, state, control)

    # Inside

    def _start_solved(self) -> str | None:
        """Solves for the head in one process and sets it in all; says why not where it cannot be."""
        started = time.perf_counter()
        trainer = self.trainer
        features = self.cache.at_head()
        if isinstance(features, str):
            return features
        layer = self._layer(features)
        if layer is None:
            return NO_LINEAR_HEAD
        weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
        chosen = torch.zeros(2, device=weight.device)
        if trainer.accelerator.is_main_process:
            solved = self._solve(features, layer.out_features)
            weight.copy_(solved.weight)
            bias.copy_(solved.bias)
            chosen.copy_(torch.tensor([solved.strength, solved.score]))
        weight, bias, chosen = (broadcast(tensor) for tensor in (weight, bias, chosen))
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        if trainer.average is not None:
            # The average begins at the weights that the steps begin at.
            trainer.average.on_train_begin(trainer.args, trainer.state, trainer.control)
        self.cache.leave_head()
        seconds = time.perf_counter() - started
        facts = {"strength": float(chosen[0]), "score": float(chosen[1]), "seconds": round(seconds, 3)}
        trainer.log({f"{_FACTS}{name}": value for name, value in facts.items()})
        if trainer.args.should_save:
            print(f"head solved by L-BFGS in {seconds:.1f} s, strength {facts['strength']:g}", flush=True)
        return None

    def _give_up(self, against: str, args: Any, state: Any, control: Any) -> None:
        """Goes on without a solution, as `--head_solver sgd` does."""
        if self.insist:
            raise UserError(f"--head_solver lbfgs: {against}.", hint="--head_solver sgd does without")
        self.gave_up = True
        if args.should_save:
            print(f"the head is trained step by step: {against}", flush=True)
        unfreezing = self.trainer.unfreezing
        if unfreezing.unfreezing.head_solved:
            unfreezing.change(dataclasses.replace(unfreezing.unfreezing, head_solved=False))
            unfreezing.on_train_begin(args, state, control)

    def _layer(self, features: CachedPrefix) -> nn.Linear | None:
        """Returns the head, a single linear layer with a bias that sees the kept features themselves."""
        trainer = self.trainer
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_torch_compile=False)
        name = linear_head(model, trainer.groups[-1].parameter_names)
        layer = None if name is None else model.get_submodule(name)
        return layer if layer is not None and layer.bias is not None and self._sees(layer, features) else None

    def _sees(self, layer: nn.Linear, features: CachedPrefix) -> bool:
        """Tells whether the head's answers are the network's."""
        kept, device = features.kept("validation"), self.trainer.args.device
        if kept is None or kept.shape[1:] != (layer.in_features,):
            return False
        rows = torch.arange(min(_CHECKED_ROWS, len(kept)))
        model = self.trainer.model_wrapped
        model.eval()
        with torch.no_grad(), features.cut.fed_with(features.stores["validation"].read(rows, device)) as pictures:
            logits = model(pixel_values=pictures).logits
            # In the precision of the network's own answers.
            with self.trainer.accelerator.autocast():
                own = layer(kept[rows.to(kept.device)].to(device))
        return torch.allclose(logits.float(), own.float(), rtol=1e-3, atol=1e-4)

    def _solve(self, features: CachedPrefix, num_labels: int) -> SolvedHead:
        trainer, splits = self.trainer, self.cache.splits
        kept, held_out = (self._rows(features, split) for split in ("train", "validation"))
        held_out = held_out.float()
        views = len(kept) // len(splits["train"])
        labels = torch.from_numpy(np.tile(splits["train"].labels, views))
        answers = torch.from_numpy(splits["validation"].labels)
        metric, rises = judged_by(trainer.args.metric_for_best_model, trainer.args.greater_is_better)

        def loss(weight: torch.Tensor, bias: torch.Tensor) -> float:
            return float(F.cross_entropy(held_out @ weight.T + bias, answers))

        def score(weight: torch.Tensor, bias: torch.Tensor) -> float:
            if metric == "loss":
                return -loss(weight, bias)
            logits = held_out @ weight.T + bias
            value = trainer.compute_metrics(EvalPrediction(logits.numpy(), answers.numpy()))[metric]
            return value if rises else -value

        device = trainer.args.device
        return solve_head(kept, labels, views, num_labels, score, trainer.class_weights, loss, device)

    def _rows(self, features: CachedPrefix, split: str) -> torch.Tensor:
        rows = features.kept(split)
        assert rows is not None, "asked for before, in `_sees`"
        return rows.cpu()
