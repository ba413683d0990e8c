"""Cutting a network in two: what lies below the layers that learn is computed once, the rest runs on what is kept.

A frozen module gives the same answer to the same picture every time. So it is replaced by a stub that returns nothing
of value in the right shape, the inputs of the first layers above the cut are replaced by those that were kept, and the
model's own forward runs as it is. Which inputs these are is found in one forward pass: those of modules above the cut
that nothing above the cut has touched yet. No name and no family plays a part.

Knows modules and tensors. Does not know which cuts are exact (`hf_transfer.training.prefix_search`) or where inputs
are kept (`hf_transfer.training.prefix_store`).
"""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten


@dataclass(frozen=True)
class Inlet:
    """An input that the part above the cut takes from below it."""

    module: str
    call: int
    """Which call of the module in a forward pass, from 0."""
    leaf: int
    """Which of its arguments, positional and named ones flattened in order."""
    shape: tuple[int, ...]
    """Of one picture."""
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Bytes of one picture."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class _Pass(threading.local):
    """What a thread has seen of the pass through the network that it makes."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forgets the pass before."""
        self.calls: dict[str, int] = {}
        self.found: dict[int, torch.Tensor] = {}


class _Reached(Exception):
    """All inputs have been seen; what lies above need not run."""


@dataclass(frozen=True)
class _Content:
    """What stands for a tensor that follows the batch: the shape of one picture, and where and what it is."""

    shape: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype


@dataclass
class _Answer:
    """What a frozen module returned: its structure, and constants or `_Content` in it."""

    spec: TreeSpec
    leaves: list[Any]


@dataclass
class PrefixCut:
    """A model cut below some of its modules; made by [`~hf_transfer.training.prefix_search.find_cut`]."""

    model: nn.Module
    below: tuple[str, ...]
    """Names of the outermost modules below the cut."""
    above: tuple[str, ...]
    """Names of the outermost modules above it."""
    inlets: tuple[Inlet, ...] = ()
    filling: float = 0.0
    """What stubs return; of no consequence."""
    _answers: dict[str, list[_Answer]] = field(default_factory=dict)
    _picture: tuple[int, ...] = ()
    _contents: dict[Any, torch.Tensor] = field(default_factory=dict)
    _views: dict[Any, torch.Tensor] = field(default_factory=dict)
    """Of the contents, by shape: asked for by every stub in every step."""

    def collect(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Runs what lies below the cut.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Pictures, on the model's device.

        Returns:
            `list[torch.Tensor]`: for each inlet, of shape `(batch_size, *inlet.shape)`.
        """
        with self.collecting() as collect:
            return collect(pixel_values)

    @contextmanager
    def collecting(self) -> Iterator[Callable[[torch.Tensor], list[torch.Tensor]]]:
        """Lets several threads run what lies below the cut at once.

        Yields:
            `Callable`: does what [`collect`] does.
        """
        wanted = {(inlet.module, inlet.call, inlet.leaf): number for number, inlet in enumerate(self.inlets)}
        passing = _Pass()

        def look(name: str, call: int, leaves: list[Any]) -> list[Any]:
            for leaf, value in enumerate(leaves):
                if (name, call, leaf) in wanted:
                    passing.found[wanted[name, call, leaf]] = value.detach()
            if len(passing.found) == len(wanted):
                raise _Reached
            return leaves

        def collect(pixel_values: torch.Tensor) -> list[torch.Tensor]:
            passing.begin()
            try:
                with torch.no_grad():
                    self.model(pixel_values=pixel_values)
            except _Reached:
                pass
            return [passing.found[number] for number in range(len(self.inlets))]

        with self._watched_inputs(look, {inlet.module for inlet in self.inlets}, passing):
            yield collect

    @contextmanager
    def fed_with(self, kept: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Lets the model run on kept inputs.

        Args:
            kept (`Sequence[torch.Tensor]`):
                As [`collect`] returned them; layers may write into them.

        Yields:
            `torch.Tensor`: pictures without content, to call the model with.
        """
        places = {(inlet.module, inlet.call, inlet.leaf): number for number, inlet in enumerate(self.inlets)}
        batch = len(kept[0])

        def replace(name: str, call: int, leaves: list[Any]) -> list[Any]:
            return [
                kept[places[name, call, leaf]] if (name, call, leaf) in places else value
                for leaf, value in enumerate(leaves)
            ]

        with self._stubs(batch), self._watched_inputs(replace, {name for name, _, _ in places}, _Pass()):
            yield self._dummy((batch, *self._picture), kept[0].device, torch.float32)

    def probe(self, pixel_values: torch.Tensor) -> None:
        """Finds the inlets and what the modules below return, in one pass with gradients."""
        batch = len(pixel_values)
        inlets: list[Inlet] = []

        def look(name: str, call: int, leaves: list[Any]) -> list[Any]:
            seen = []
            for leaf, value in enumerate(leaves):
                if _follows_batch(value, batch) and value.is_floating_point() and not value.requires_grad:
                    inlets.append(Inlet(name, call, leaf, tuple(value.shape[1:]), value.dtype))
                    # Whatever comes of it can be told from what comes from below; a copy, since some layers write
                    # into their input.
                    value = value.detach().requires_grad_().clone()
                seen.append(value)
            return seen

        self._answers = {}
        hooks = [
            self.model.get_submodule(name).register_forward_hook(self._noting(name, batch)) for name in self.below
        ]
        try:
            with torch.enable_grad(), self._watched_inputs(look, self.above, _Pass()):
                self.model(pixel_values=pixel_values)
        finally:
            for hook in hooks:
                hook.remove()
        self.inlets = tuple(inlets)
        self._picture = tuple(pixel_values.shape[1:])

    def _noting(self, name: str, batch: int):
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            leaves, spec = tree_flatten(output)
            self._answers.setdefault(name, []).append(_Answer(spec, [_noted(value, batch) for value in leaves]))

        return note

    @contextmanager
    def _watched_inputs(self, look, names: Collection[str], passing: _Pass) -> Iterator[None]:
        """Shows the inputs of some modules to `look`, which may replace them."""

        def watch(name: str):
            def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
                call = passing.calls.get(name, 0)
                passing.calls[name] = call + 1
                leaves, spec = tree_flatten((args, kwargs))
                return tree_unflatten(look(name, call, leaves), spec)

            return hook

        modules = [(name, self.model.get_submodule(name)) for name in names]
        hooks = [module.register_forward_pre_hook(watch(name), with_kwargs=True) for name, module in modules]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def _stubs(self, batch: int) -> Iterator[None]:
        stubbed = [(self.model.get_submodule(name), answers) for name, answers in self._answers.items()]
        own = [vars(module).get("forward") for module, _ in stubbed]
        for module, answers in stubbed:
            module.forward = self._stub(answers, batch)
        try:
            yield
        finally:
            for (module, _), forward in zip(stubbed, own, strict=True):
                del module.forward
                if forward is not None:
                    module.forward = forward

    def _stub(self, answers: list[_Answer], batch: int):
        remaining = iter(answers)

        def forward(*args: Any, **kwargs: Any) -> Any:
            answer = next(remaining)
            leaves = [
                self._dummy((batch, *leaf.shape), leaf.device, leaf.dtype) if isinstance(leaf, _Content) else leaf
                for leaf in answer.leaves
            ]
            return tree_unflatten(leaves, answer.spec)

        return forward

    def _dummy(self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Returns a tensor without content. All lie in the same memory, as large as the largest, filled only once."""
        kind = (device, dtype, self.filling)
        if (kind, shape) not in self._views:
            size = torch.Size(shape).numel()
            if kind not in self._contents or self._contents[kind].numel() < size:
                self._contents[kind] = torch.full((size,), self.filling, device=device, dtype=dtype)
                self._views.clear()
            self._views[kind, shape] = self._contents[kind][:size].view(shape)
        # `data`, since autograd would otherwise take a layer that writes into one for a change of all the others.
        return self._views[kind, shape].data


def _noted(value: Any, batch: int) -> Any:
    if _follows_batch(value, batch):
        return _Content(tuple(value.shape[1:]), value.device, value.dtype)
    return value.detach() if isinstance(value, torch.Tensor) else value


def _follows_batch(value: Any, batch: int) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == batch
