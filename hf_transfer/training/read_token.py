"""The last block of a network computed for one token alone, where its head reads no other.

The head of a vision transformer such as ViT or DeiT reads the class token. Tokens mix in attention; behind the last
one each goes its own way, and all but that one are computed for nobody: the projection of the attention and the MLP,
nearly two thirds of a block's products, forwards and backwards. So there the inputs of layers are cut down to the
token that is read. Residual connections add it to all tokens then, which only makes wrong what nobody reads.

Which layers these are is found by gradients, not by names: the logits' gradient at their input is zero, to the bit, at
all tokens but one. Each is then tried, and kept where the logits stay the same. A head that averages the tokens, as in
BEiT, or that reads several of them, as in DINOv2, has none.

Knows modules and tokens. Does not know strategies or caches; whoever trains keeps the layers cut down throughout.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from hf_transfer.training.trial_pass import REFUSALS, agree, left_as_found, trial_logits

_PICTURES = 2
"""Of the passes that look for such layers: enough to tell the batch from the tokens."""
_LAST_LAYERS = 32
"""That are looked at: no more than a block has, or two; before the last block tokens mix again."""


@dataclass(frozen=True)
class ReadToken:
    """The one token that is read, and the layers that are to compute it alone."""

    position: int
    num_tokens: int
    modules: tuple[str, ...]
    """Names of the layers whose inputs are cut down to it, in the order in which they run."""


class OnlyReadToken:
    """Keeps layers cut down to the token that is read, until [`release`] is called.

    Args:
        model (`nn.Module`):
            The model that it was found in.
        read ([`ReadToken`]):
            The token and the layers.
    """

    def __init__(self, model: nn.Module, read: ReadToken):
        self.read = read
        self._hooks: list[RemovableHandle] = []
        for name in read.modules:
            self._hooks.append(model.get_submodule(name).register_forward_pre_hook(_cut_down_to(read.position)))

    def release(self) -> None:
        """Lets the layers compute all tokens again."""
        while self._hooks:
            self._hooks.pop().remove()


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
    with trainer.products():
        read = find_read_token(trainer.model, trainer.pixels_of(validation, _PICTURES))
    if read is None:
        return
    trainer.only_read = OnlyReadToken(trainer.model, read)
    if trainer.args.should_save:
        print(f"1 of {read.num_tokens} tokens is read: {', '.join(read.modules)} compute no other.", flush=True)


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
    with left_as_found(model):
        model.eval()
        whole = trial_logits(model, pixel_values)
        places = _places_read(model, pixel_values)
        if not places:
            return None
        position, num_tokens = list(places.values())[-1]
        names = [name for name, place in places.items() if place == (position, num_tokens)]
        taking = _taking_one(model, names, position, pixel_values, whole)
        read = ReadToken(position, num_tokens, taking)
        return read if taking and _is_exact_in_training(model, read, pixel_values) else None


def _places_read(model: nn.Module, pixel_values: torch.Tensor) -> dict[str, tuple[int, int]]:
    """Returns the layers of which one token is read, in evaluation and in training: which one, and of how many."""
    names = _last_layers(model, pixel_values)
    evaluated = _reading_one(model, names, pixel_values)
    if not evaluated:
        return {}
    _train_without_dropout(model)
    trained = _reading_one(model, names, pixel_values)
    model.eval()
    return {name: place for name, place in evaluated.items() if trained.get(name) == place}


def _train_without_dropout(model: nn.Module) -> None:
    """Brings a model into training but for its dropout, which would draw other numbers for other shapes."""
    for module in model.modules():
        module.training = "drop" not in type(module).__name__.lower()


def _last_layers(model: nn.Module, pixel_values: torch.Tensor) -> list[str]:
    """Returns the last layers that are given tokens, and only once, in the order in which they run."""
    calls: list[str] = []

    def noting(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple) -> None:
            if _are_tokens(args, len(pixel_values)):
                calls.append(name)

        return hook

    layers = [(name, module) for name, module in model.named_modules() if next(module.children(), None) is None]
    with _hooked((module, noting(name)) for name, module in layers):
        trial_logits(model, pixel_values)
    return [name for name in calls[-_LAST_LAYERS:] if calls.count(name) == 1]


def _reading_one(model: nn.Module, names: Sequence[str], pixel_values: torch.Tensor) -> dict[str, tuple[int, int]]:
    """Returns layers at whose input the gradient of the logits is that of one token: which one, and of how many."""
    probes: dict[str, torch.Tensor] = {}

    def probing(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple) -> tuple:
            # Added, so that its gradient is of what goes through this layer alone, and not past it.
            probes[name] = torch.zeros_like(args[0], requires_grad=True)
            return (args[0] + probes[name], *args[1:])

        return hook

    with torch.enable_grad(), _hooked((model.get_submodule(name), probing(name)) for name in names):
        logits = model(pixel_values=pixel_values).logits.float()
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


def _taking_one(
    model: nn.Module, names: Sequence[str], position: int, pixel_values: torch.Tensor, whole: torch.Tensor
) -> tuple[str, ...]:
    """Returns those of the layers whose inputs can be cut down; what runs behind them gets one token anyway."""
    taking: tuple[str, ...] = ()
    sizes: dict[str, int] = {}

    def noting(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple) -> None:
            sizes[name] = args[0].shape[1]

        return hook

    with _hooked((model.get_submodule(name), noting(name)) for name in names):
        for name in names:
            if sizes.get(name) == 1:
                continue
            before = dict(sizes)
            part = _logits_of_one(model, ReadToken(position, 0, (*taking, name)), pixel_values)
            if part is not None and agree(part, whole):
                taking = (*taking, name)
            else:
                sizes = before
    return taking


def _is_exact_in_training(model: nn.Module, read: ReadToken, pixel_values: torch.Tensor) -> bool:
    _train_without_dropout(model)
    part = _logits_of_one(model, read, pixel_values)
    return part is not None and agree(part, trial_logits(model, pixel_values))


def _logits_of_one(model: nn.Module, read: ReadToken, pixel_values: torch.Tensor) -> torch.Tensor | None:
    """Returns the logits with layers cut down; `None` if the network refuses."""
    only = OnlyReadToken(model, read)
    try:
        return trial_logits(model, pixel_values)
    except REFUSALS:
        return None
    finally:
        only.release()


@contextmanager
def _hooked(hooks: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Lets hooks see the inputs of modules."""
    handles = [module.register_forward_pre_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _are_tokens(args: tuple, batch: int) -> bool:
    """Tells whether a layer is given the tokens of each picture, of shape `(batch_size, num_tokens, width)`."""
    if not args or not isinstance(args[0], torch.Tensor) or not args[0].is_floating_point():
        return False
    return args[0].dim() == 3 and args[0].shape[0] == batch and args[0].shape[1] > 1


def _cut_down_to(position: int) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple) -> tuple:
        tokens = args[0]
        return args if tokens.shape[1] == 1 else (tokens[:, position : position + 1], *args[1:])

    return hook
