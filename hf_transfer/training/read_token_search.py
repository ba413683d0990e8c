"""Which layers of a network compute tokens that its head does not read.

They are found by gradients, not by names: that of the logits at a layer's input is zero, to the bit, at all tokens but
one. Then they are tried, together or fewer of them, until the logits stay the same in evaluation and in training. A
head that averages the tokens, as in BEiT, or that reads several of them, as in DINOv2, has none.

Knows how a layer is found and judged. Does not know how it is cut down (`hf_transfer.training.read_token`).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from hf_transfer.full_precision import full_precision
from hf_transfer.training.read_token import OnlyReadToken, ReadToken
from hf_transfer.training.trial_pass import REFUSALS, agree, left_as_found, trial_logits

_PICTURES = 2
"""Of the passes that look for such layers: enough to tell the batch from the tokens."""
_LAST_LAYERS = 32
"""That are looked at: no more than a block has, or two; before the last block tokens mix again."""


def attach_read_token(trainer: Any, validation: Any) -> None:
    """Lets a trainer compute the token that is read alone, where there is such, and says so in a line.

    Args:
        trainer (`TransferTrainer`):
            The trainer, before its training.
        validation (`ImageClassificationDataset`):
            Its validation pictures.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return  # They move layers, or cut them to pieces, only when the training begins.
    with trainer.computing():
        read = find_read_token(trainer.model, trainer.pixels_of(validation, _PICTURES))
    if read is None:
        return
    trainer.only_read = OnlyReadToken(trainer.model, read)
    if trainer.args.should_save:
        first = [*read.spread, *filter(None, [read.attention]), *read.modules][0]
        others = f"from {first} on the others are computed where it attends to them, and nowhere else"
        print(f"The head reads 1 of {read.num_tokens} tokens: {others}.", flush=True)


def find_read_token(model: nn.Module, pixel_values: torch.Tensor) -> ReadToken | None:
    """Looks for layers that compute tokens which nobody reads.

    Args:
        model (`nn.Module`):
            The model; it is left as it was.
        pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            Two pictures or more, on the model's device.

    Returns:
        [`ReadToken`] or `None`: where there are none, or where the network does not take their inputs cut down.
    """
    if len(pixel_values) < _PICTURES:
        return None
    # Products of other shapes are rounded another way, which in TF32 is more than logits may be apart.
    with left_as_found(model), full_precision():
        model.eval()
        search = _Search(model, pixel_values)
        # A network may have no gradient where one is asked for.
        try:
            places = search.places_read()
        except REFUSALS:
            return None
        return next((search.without_idle(way) for way in search.ways(places) if search.is_exact(way)), None)


class _Search:
    """Passes of some pictures through a model that is ready for evaluation."""

    def __init__(self, model: nn.Module, pixel_values: torch.Tensor):
        self.model = model
        self.pixel_values = pixel_values
        self.layers: list[str] = []
        """The last ones that are given tokens, and only once, in the order in which they run."""
        self.attention: str | None = None
        """The last module in which torch's attention is computed, and only once."""
        self.before_attention: set[str] = set()
        """Those of the layers that run before it."""
        self.sizes: dict[str, int] = {}
        """Tokens that layers were given in the last trial, before they were cut down."""
        self.whole = self._look_through()

    def places_read(self) -> dict[str, tuple[int, int]]:
        """Returns layers at whose input the gradient of the logits is that of one token: which one, of how many."""
        probes: dict[str, torch.Tensor] = {}

        def probing(name: str) -> Callable[..., Any]:
            def hook(module: nn.Module, args: tuple) -> tuple:
                # Added, so that its gradient is of what goes through this layer alone, and not past it.
                probes[name] = torch.zeros_like(args[0], requires_grad=True)
                return (args[0] + probes[name], *args[1:])

            return hook

        with torch.enable_grad(), _hooked((self.model.get_submodule(name), probing(name)) for name in self.layers):
            logits = self.model(pixel_values=self.pixel_values).logits.float()
        if not probes:
            return {}
        # Any weights will do that do not cancel out.
        weights = torch.linspace(1.0, 2.0, logits.shape[-1], device=logits.device)
        gradients = torch.autograd.grad((logits * weights).sum(), list(probes.values()), allow_unused=True)
        reading = {}
        for name, gradient in zip(probes, gradients, strict=True):
            places = [] if gradient is None else gradient.ne(0).any(dim=2).any(dim=0).nonzero().flatten().tolist()
            if len(places) == 1:
                reading[name] = (places[0], gradient.shape[1])
        return reading

    def ways(self, places: Mapping[str, tuple[int, int]]) -> Iterator[ReadToken]:
        """Lists what may be cut down, most of it first."""
        if not places:
            return
        position, num_tokens = list(places.values())[-1]
        names = tuple(name for name, place in places.items() if place == (position, num_tokens))
        before = tuple(name for name in names if name in self.before_attention)
        behind = tuple(name for name in names if name not in before)
        if self.attention is not None and behind:
            yield ReadToken(position, num_tokens, behind, before, self.attention)
            # Dropout of attention draws other numbers for one query, so that logits in training cannot be compared.
            yield ReadToken(position, num_tokens, behind, before)
        for start in range(len(names)):
            yield ReadToken(position, num_tokens, names[start:])

    def is_exact(self, read: ReadToken) -> bool:
        """Tells whether logits are those of the whole network, in evaluation and in training."""
        if not self._agrees(read, self.whole):
            return False
        with left_as_found(self.model):
            _train_without_dropout(self.model)
            return self._agrees(read, trial_logits(self.model, self.pixel_values))

    def without_idle(self, read: ReadToken) -> ReadToken:
        """Leaves out the layers that are given one token anyway, behind others that were cut down."""
        return dataclasses.replace(read, modules=tuple(name for name in read.modules if self.sizes[name] > 1))

    def _agrees(self, read: ReadToken, whole: torch.Tensor) -> bool:
        def noting(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple) -> None:
                self.sizes[name] = args[0].shape[1]

            return hook

        with _hooked((self.model.get_submodule(name), noting(name)) for name in read.modules):
            only = OnlyReadToken(self.model, read)
            try:
                return agree(trial_logits(self.model, self.pixel_values), whole)
            except REFUSALS:
                return False
            finally:
                only.release()

    def _look_through(self) -> torch.Tensor:
        """Notes which layers are given tokens and where attention is computed; returns the logits."""
        calls: list[str] = []
        within: list[str] = []
        attended: list[tuple[str, int]] = []

        def entering(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple) -> None:
                within.append(name)
                if next(module.children(), None) is None and self._are_tokens(args):
                    calls.append(name)

            return hook

        def leaving(module: nn.Module, args: tuple, output: Any) -> None:
            within.pop()

        modules = list(self.model.named_modules())
        leave = [module.register_forward_hook(leaving) for _, module in modules]
        try:
            with (
                _hooked((module, entering(name)) for name, module in modules),
                _Attending(lambda: attended.append((within[-1], len(calls)))),
            ):
                logits = trial_logits(self.model, self.pixel_values)
        finally:
            for handle in leave:
                handle.remove()
        self.layers = [name for name in calls[-_LAST_LAYERS:] if calls.count(name) == 1]
        if attended and [name for name, _ in attended].count(attended[-1][0]) == 1:
            self.attention, number = attended[-1]
            self.before_attention = set(calls[:number])
        return logits

    def _are_tokens(self, args: tuple) -> bool:
        """Tells whether a layer is given the tokens of each picture, of shape `(batch_size, num_tokens, width)`."""
        if not args or not isinstance(args[0], torch.Tensor) or not args[0].is_floating_point():
            return False
        return args[0].dim() == 3 and args[0].shape[0] == len(self.pixel_values) and args[0].shape[1] > 1


class _Attending(TorchFunctionMode):
    """While entered, notes each time that torch's attention is computed."""

    def __init__(self, note: Callable[[], None]):
        super().__init__()
        self.note = note

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            self.note()
        return func(*args, **(kwargs or {}))


def _train_without_dropout(model: nn.Module) -> None:
    """Brings a model into training but for its dropout, which would draw other numbers for other shapes."""
    for module in model.modules():
        module.training = "drop" not in type(module).__name__.lower()


@contextmanager
def _hooked(hooks: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Lets hooks see the inputs of modules."""
    handles = [module.register_forward_pre_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
