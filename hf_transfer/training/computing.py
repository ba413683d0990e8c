"""How the network of a training computes: in which precision, and by which calls.

Knows the contexts in which it runs. Does not know how a precision is chosen (`hf_transfer.training.precision`), which
calls are slow (`hf_transfer.quicker_calls`) or what is computed (`hf_transfer.training.trainer`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from hf_transfer.quicker_calls import StandIn, stand_ins_on, standing_in
from hf_transfer.training.arguments import recomputes_activations
from hf_transfer.training.half_learning import HalfLearning
from hf_transfer.training.picture_trainer import PictureTrainer


class ComputingTrainer(PictureTrainer):
    """Runs its network in the contexts that belong to it."""

    unfreezing: Any
    """The callback that opens and freezes layer groups."""

    @property
    def half_learning(self) -> HalfLearning | None:
        """Where what learns alone computes in half precision, what keeps everything else out of it."""
        return self.unfreezing.half

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The context in which the network computes, in steps, in evaluations and for the cache alike."""
        with self.in_precision(), standing_in(self.stand_ins()):
            yield

    def in_precision(self) -> AbstractContextManager[Any]:
        """Returns the context of the precision alone; that of the arguments is accelerate's to see to."""
        return nullcontext() if self.half_learning is None else self.half_learning.computing()

    def learn_in(self, half: HalfLearning) -> None:
        """Lets layers that learn compute in half precision, from now on to the end of the training."""
        self.unfreezing.halve(half)

    def leave_half_learning(self) -> None:
        """Lets the network compute in the precision of the arguments again."""
        self.unfreezing.halve(None)

    def stand_ins(self) -> Mapping[Callable, StandIn]:
        """Returns what stands in for calls of torch.

        Nothing for compiled networks, which bring their own kernels, nor where the backward pass computes activations
        once more: no function mode holds there (torch 2.14), and torch refuses activations that were made otherwise.
        """
        compiled = self.compiled is not None or self.args.torch_compile
        return {} if compiled or recomputes_activations(self.args) else stand_ins_on(self.args.device)
