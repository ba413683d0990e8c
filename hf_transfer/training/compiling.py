"""`--torch_compile auto`: whether compiling the network pays within a training, found out before its first step.

A few steps are timed as they are; where even the best speed-up that was reported could not make up for an average
compilation, that is the end of it. Otherwise the network is compiled for a trial on the same batch. What the trial
took is spent by then, whatever follows, so the network stays compiled where its steps have become faster.

The timed steps go forward and backward and update nothing; random numbers, gradients, BatchNorm's statistics and the
modes of modules are put back, so that the trajectory is that of a training without any trial. A training that goes on
from a checkpoint does as it did at its beginning.

Knows costs and how they are measured. Does not know when frozen layers are cut off
(`hf_transfer.training.prefix_cache`); where they are, that saves more, and nothing is compiled.
"""

import dataclasses
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import DynamoBackend, gather_object
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from transformers import TrainerCallback

from hf_transfer.config import FinetuneConfig
from hf_transfer.training.arguments import wants_compile_trial
from hf_transfer.training.loss import classification_loss
from hf_transfer.training.process_group import of_main_process

BEST_CASE_SAVING = 1 - 1 / 1.95
"""Share of a step that compiling saves at best: image classifiers are reported to become 1.1 to 1.95 times as fast."""
EXPECTED_COMPILE_SECONDS = 60.0
"""Reports speak of seconds to minutes."""
LEAST_SAVING = 0.05
"""Share of a step; less is within what a few steps differ by."""
TIMED_STEPS = 3
"""Their fastest counts: whatever else a machine does makes steps slower, never faster."""

CHOICE = "compilation"
"""Name of the decision among a run's choices."""


@dataclass(frozen=True)
class Compilation:
    """Whether the network of a training is compiled, and the numbers that say why; `None` where not measured."""

    compiled: bool
    reason: str
    planned_steps: int | None = None
    eager_step_seconds: float | None = None
    compiled_step_seconds: float | None = None
    compile_seconds: float | None = None
    break_even_steps: int | None = None
    """Steps after which compiling has saved what it took; `None` where it saves nothing."""

    def line(self) -> str:
        """Says it in a line."""
        return f"{'compiled' if self.compiled else 'not compiled'}: {self.reason}"


def judge_trial(planned_steps: int, step_seconds: float) -> Compilation | None:
    """Says no where no speed-up could pay for a compilation; `None` where a trial may show one.

    Args:
        planned_steps (`int`):
            Optimizer steps to come.
        step_seconds (`float`):
            What one of them takes, its forward and backward passes.
    """
    saved = planned_steps * step_seconds * BEST_CASE_SAVING
    if saved > EXPECTED_COMPILE_SECONDS:
        return None
    reason = (
        f"{planned_steps} steps of {step_seconds:.3g} s would save {saved:.3g} s at best, and compiling takes about "
        f"{EXPECTED_COMPILE_SECONDS:g} s"
    )
    return Compilation(False, reason, planned_steps, step_seconds)


def judge(
    planned_steps: int, eager_step_seconds: float, compiled_step_seconds: float, compile_seconds: float
) -> Compilation:
    """Decides after a trial, whose compilation is there to be used.

    Args:
        planned_steps (`int`):
            Optimizer steps to come.
        eager_step_seconds (`float`):
            What one of them takes as the network is.
        compiled_step_seconds (`float`):
            What one takes of the compiled network.
        compile_seconds (`float`):
            What compiling took.
    """
    saved = eager_step_seconds - compiled_step_seconds
    pays = saved > LEAST_SAVING * eager_step_seconds
    reason = f"a step takes {compiled_step_seconds:.3g} s compiled, {eager_step_seconds:.3g} s as it is"
    break_even = math.ceil(compile_seconds / saved) if pays else None
    if break_even is not None:
        reason += f"; the {compile_seconds:.3g} s of compiling are made up for after {break_even} steps"
        reason += f" of {planned_steps}" if break_even <= planned_steps else f", but are spent; {planned_steps} follow"
    return Compilation(
        pays, reason, planned_steps, eager_step_seconds, compiled_step_seconds, compile_seconds, break_even
    )


def compiled_by_accelerate(trainer: Any) -> bool:
    """Tells whether accelerate compiles the network, for `--torch_compile true` or a `--dynamo_backend` of its own."""
    return trainer.accelerator.state.dynamo_plugin.backend != DynamoBackend.NO


def reason_against(trainer: Any) -> str | None:
    """Says why a training is not to be compiled, whatever it would save; `None` where it may be."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return "it was never tried with FSDP and DeepSpeed"
    unfreezing = trainer.unfreezing.unfreezing
    if unfreezing.changes():
        return f"{unfreezing.changing()}, and would compile again each time"
    if trainer.args.device.type not in ("cpu", "cuda"):
        return f"it was never tried on {trainer.args.device.type}"
    if trainer.prefix is not None and trainer.prefix.in_use:
        return "what the frozen layers compute is kept, which saves more, and a compiled network cannot be cut"
    return None


def attach_compile_trial(trainer: Any, config: FinetuneConfig) -> None:
    """Lets a trainer try out compiling where the user said `auto`; after its cache, which comes first."""
    if wants_compile_trial(config):
        wish = {name: config.training.get(f"torch_compile_{name}") for name in ("backend", "mode")}
        trainer.compiling = CompileTrial(trainer, **wish)
        trainer.add_callback(trainer.compiling)


class CompileTrial(TrainerCallback):
    """Decides before the first step whether training steps run on the compiled network; evaluations never do.

    Args:
        trainer (`TransferTrainer`):
            The trainer, whose `compiled` network is set.
        backend (`str`, *optional*):
            That of `torch.compile`; inductor when left out.
        mode (`str`, *optional*):
            That of `torch.compile`.
    """

    def __init__(self, trainer: Any, backend: str | None = None, mode: str | None = None):
        self.trainer = trainer
        self.backend = backend or "inductor"
        self.mode = mode
        self.decision: Compilation | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.compiled = None
        # Of several machines, that of the main process need not be the only one with a checkpoint.
        recorded = of_main_process(self.trainer.choices.get(CHOICE))
        if compiled_by_accelerate(self.trainer):
            self.decision = Compilation(True, "the launcher's --dynamo_backend asks for it")
        else:
            self.decision = self._decide(state.max_steps - state.global_step, recorded)
            if self.decision.compiled and self.trainer.compiled is None:
                self.trainer.compiled = self._compile()
        self.trainer.choices[CHOICE] = dataclasses.asdict(self.decision)
        args.torch_compile = self.decision.compiled
        if args.should_save:
            begun = ", as at the beginning of this run" if self.trainer.choices[CHOICE] == recorded else ""
            print(self.decision.line() + begun, flush=True)

    def take_up(self) -> None:
        """Takes up the decision of a finished training, which has no step left to decide about."""
        recorded = self.trainer.choices.get(CHOICE)
        self.decision = None if recorded is None else Compilation(**recorded)

    # Inside

    def _decide(self, planned_steps: int, recorded: dict[str, Any] | None) -> Compilation:
        against = reason_against(self.trainer)
        if against is not None:
            return Compilation(False, against)
        if recorded is not None:
            return Compilation(**recorded)
        if planned_steps <= 0:
            return Compilation(False, "no step is left", planned_steps)
        with untouched(self.trainer.model, self.trainer.args.device):
            return self._measure(planned_steps)

    def _measure(self, planned_steps: int) -> Compilation:
        batch = self._batch()
        eager = self.trainer.model_wrapped
        for count in (1, TIMED_STEPS):  # The first is the slowest: where that one is too quick, all are.
            step_seconds = of_main_process(min(self._step_seconds(eager, batch) for _ in range(count)))
            no = judge_trial(planned_steps, step_seconds)
            if no is not None:
                return no
        compiled = self._compile()
        problem, first, others = None, 0.0, [0.0]
        try:
            first = self._step_seconds(compiled, batch)
            others = [self._step_seconds(compiled, batch) for _ in range(TIMED_STEPS)]
        except (TorchDynamoException, RuntimeError) as error:
            if should_reduce_batch_size(error):
                raise
            problem = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        problems = [found for found in gather_object([problem]) if found is not None]
        if problems:
            reason = f"it could not be compiled ({problems[0]})"
            return Compilation(False, reason, planned_steps, step_seconds)
        first, compiled_seconds = of_main_process((first, min(others)))
        decision = judge(planned_steps, step_seconds, compiled_seconds, max(0.0, first - compiled_seconds))
        self.trainer.compiled = compiled if decision.compiled else None
        return decision

    def _compile(self) -> Any:
        """Returns the network as accelerate would compile it: with everything around it, DDP too."""
        return torch.compile(self.trainer.model_wrapped, backend=self.backend, mode=self.mode)

    def _batch(self) -> dict[str, torch.Tensor]:
        """Returns a micro-batch as training has it, of one picture: what it shows does not change what it takes."""
        args = self.trainer.args
        # Of validation: training pictures may come without pixels, to be varied on the device.
        picture = self.trainer.eval_dataset[0]["pixel_values"]
        pixels = torch.stack([picture] * args.per_device_train_batch_size)
        labels = torch.zeros(len(pixels), dtype=torch.int64)
        return self.trainer._prepare_inputs({"pixel_values": pixels, "labels": labels})

    def _step_seconds(self, network: Any, batch: dict[str, torch.Tensor]) -> float:
        """Measures the passes of one optimizer step, from those of one micro-batch.

        Processes do not talk to each other in it: DDP would take note of the order in which gradients come.
        """
        trainer = self.trainer
        trainer.model_wrapped.train()
        trainer.unfreezing.keep_frozen_still()
        trainer.model.zero_grad(set_to_none=True)
        _wait_for(trainer.args.device)
        started = time.perf_counter()
        with trainer.accelerator.no_sync(trainer.model_wrapped), trainer.in_precision():
            logits = network(pixel_values=batch["pixel_values"]).logits
            classification_loss(logits, batch["labels"], len(batch["labels"])).backward()
        _wait_for(trainer.args.device)
        return (time.perf_counter() - started) * trainer.args.gradient_accumulation_steps


@contextmanager
def untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts back what passes through a model change: random numbers, gradients, buffers, modes of modules."""
    modes = {module: module.training for module in model.modules()}
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in modes
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        for module, name, buffer, before in buffers:
            buffer.copy_(before)
            module._buffers[name] = buffer
        for module, mode in modes.items():
            module.training = mode


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
