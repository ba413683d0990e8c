"""In which order the layers of a network run, seen in one forward pass.

The pass runs on torch's meta device, without memory or arithmetic, and every operation in it is noted: which
parameters meet the picture's data at which operation, which operations happen inside which module, and after which
ones a single result is all that the rest of the network needs. Names play no part.

Knows nothing of layer groups (`hf_transfer.models.layer_groups`).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from hf_transfer.errors import UserError

_USUAL_SIDE = 224


@dataclass(frozen=True)
class Execution:
    """What one forward pass showed. Operations are numbered from 0; only those on the picture's data count."""

    first_use: dict[str, int]
    """By parameter name, the operation at which it first meets the data; parameters never used are missing."""
    contributing: frozenset[str]
    """Names of the parameters that the scores depend on; a pooler may be used without anybody reading its result."""
    spans: dict[str, tuple[int, int]]
    """By module name, its first and last operation, with those of the modules in it; `(n, n - 1)` for a module that
    was called before operation `n` and did nothing, as a dropout in evaluation mode."""
    cuts: frozenset[int]
    """Operations after which nothing but their own result is needed any more."""
    sizes: dict[str, int]
    """By module name, height times width of the feature map that it returned last; sequences of tokens have none, nor
    have several maps of different sizes."""
    num_operations: int


def trace_execution(model: nn.Module) -> Execution:
    """Runs one picture through a classifier and notes the order of what happens.

    Args:
        model (`nn.Module`):
            A transformers or timm classifier, on any device; it is left as it was.

    Returns:
        [`Execution`]

    Raises:
        [`~hf_transfer.errors.UserError`]: where no forward pass can be made.
    """
    try:
        return _trace(model, torch.device("meta"))
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        devices = {parameter.device.type for parameter in model.parameters()}
        # Some networks look at values, which the meta device does not have; those run with their own weights.
        if "meta" not in devices:
            return _trace(model, next(model.parameters()).device)
        raise UserError(
            f"{type(model).__name__} cannot be traced without its weights: {str(error).strip().splitlines()[0]}",
            "a checkpoint with its weights",
        ) from error


def input_shape(model: nn.Module) -> tuple[int, int, int]:
    """Returns channels, height and width of the pictures that a classifier takes."""
    timm_settings = getattr(getattr(model, "timm_model", model), "pretrained_cfg", None)
    if isinstance(timm_settings, dict) and "input_size" in timm_settings:
        patches = getattr(getattr(model, "timm_model", model), "patch_embed", None)
        side = getattr(patches, "img_size", None)
        if side is not None:
            return (timm_settings["input_size"][0], *side)
        return tuple(timm_settings["input_size"])
    config: Any = getattr(model, "config", None)
    config = getattr(config, "vision_config", None) or config
    size = getattr(config, "image_size", None) or _USUAL_SIDE
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return (getattr(config, "num_channels", None) or 3, height, width)


def _trace(model: nn.Module, device: torch.device) -> Execution:
    shown, parameters = stand_ins(model, device)
    recorder = _Recorder(parameters)
    pixels = torch.zeros(1, *input_shape(model), device=device)
    recorder.data[id(pixels)] = -1
    recorder.kept.append(pixels)
    inputs: tuple = () if isinstance(model, PreTrainedModel) else (pixels,)
    named = {"pixel_values": pixels} if isinstance(model, PreTrainedModel) else {}
    with _in_evaluation_mode(model), _watched(model, recorder), torch.no_grad(), recorder:
        output = torch.func.functional_call(model, shown, inputs, named, tie_weights=False)
    return recorder.execution(model, tree_leaves(getattr(output, "logits", output)))


def stand_ins(model: nn.Module, device: torch.device) -> tuple[dict[str, torch.Tensor], dict[int, str]]:
    """Returns tensors to run with in place of the model's own, and which of them stands for which parameter.

    Tied parameters share a stand-in. A module that hangs in two places is named once: `functional_call` would keep the
    stand-in as the original of the second place (torch 2.15).
    """
    made: dict[int, torch.Tensor] = {}
    shown: dict[str, torch.Tensor] = {}
    for module_name, module in model.named_modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if id(tensor) not in made:
                made[id(tensor)] = (
                    torch.empty_like(tensor, device=device) if device.type == "meta" else tensor.detach()
                )
            shown[f"{module_name}.{name}" if module_name else name] = made[id(tensor)]
    return shown, {id(made[id(parameter)]): name for name, parameter in model.named_parameters()}


class _Recorder(TorchDispatchMode):
    """Notes every operation that has the picture's data among its inputs."""

    def __init__(self, parameters: dict[int, str]):
        super().__init__()
        self.count = 0
        self.data: dict[int, int] = {}
        self.from_parameters: dict[int, frozenset[str]] = {key: frozenset([name]) for key, name in parameters.items()}
        self.first_use: dict[str, int] = {}
        self.steps: list[tuple[set[int], frozenset[str]]] = []
        """For each operation, the operations whose results it reads and the parameters it uses."""
        self.last_use: dict[int, int] = {}
        self.spans: dict[str, tuple[int, int]] = {}
        self.sizes: dict[str, int] = {}
        self.kept: list[torch.Tensor] = []
        """Every tensor seen, so that no two of them share an id."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        inputs = [value for value in tree_leaves((args, kwargs or {})) if isinstance(value, torch.Tensor)]
        outputs = [value for value in tree_leaves(results) if isinstance(value, torch.Tensor)]
        self.kept += [*inputs, *outputs]
        names = frozenset().union(*(self.from_parameters.get(id(value), frozenset()) for value in inputs))
        sources = {self.data[id(value)] for value in inputs if id(value) in self.data}
        if sources:
            self.last_use |= dict.fromkeys(sources, self.count)
            for name in names:
                self.first_use.setdefault(name, self.count)
            self.data |= {id(value): self.count for value in outputs}
            self.steps.append((sources, names))
            self.count += 1
        elif names:
            self.from_parameters |= {id(value): names for value in outputs}
        return results

    def execution(self, model: nn.Module, scores: list[torch.Tensor]) -> Execution:
        """Returns what was noted; modules that are never called, such as lists, span what lies in them."""
        spans = dict(self.spans)
        for name, _ in reversed(list(model.named_modules())):
            inner = [spans[child] for child in spans if child.startswith(f"{name}." if name else "")]
            if name not in spans and inner:
                spans[name] = (min(first for first, _ in inner), max(last for _, last in inner))
        return Execution(self.first_use, self._contributing(scores), spans, self._cuts(), self.sizes, self.count)

    def _contributing(self, scores: list[torch.Tensor]) -> frozenset[str]:
        """Walks back from the scores and collects the parameters on the way."""
        waiting = {self.data[id(score)] for score in scores if id(score) in self.data}
        seen = set(waiting)
        names: set[str] = set()
        while waiting:
            sources, used = self.steps[waiting.pop()]
            names |= used
            waiting |= {source for source in sources if source >= 0 and source not in seen}
            seen |= sources
        return frozenset(names)

    def _cuts(self) -> frozenset[int]:
        cuts, needed_until = set(), self.last_use.get(-1, -1)
        for operation in range(self.count):
            if needed_until <= operation < self.last_use.get(operation, -1):
                cuts.add(operation)
            needed_until = max(needed_until, self.last_use.get(operation, -1))
        return frozenset(cuts)


@dataclass
class _Calls:
    """The modules that are running."""

    starts: list[int] = field(default_factory=list)


@contextlib.contextmanager
def _watched(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Notes the operations inside every module that is called."""
    calls = _Calls()
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(_on_call(calls, recorder)))
        handles.append(module.register_forward_hook(_on_return(name, calls, recorder), always_call=False))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _on_call(calls: _Calls, recorder: _Recorder):
    def hook(module: nn.Module, inputs: Any) -> None:
        calls.starts.append(recorder.count)

    return hook


def _on_return(name: str, calls: _Calls, recorder: _Recorder):
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        start, end = calls.starts.pop(), recorder.count - 1
        known = recorder.spans.get(name)
        did_nothing = end < start
        if known is None or known[1] < known[0]:
            recorder.spans[name] = (start, end)
        elif not did_nothing:
            recorder.spans[name] = (min(start, known[0]), max(end, known[1]))
        tensors = [value for value in tree_leaves(output) if isinstance(value, torch.Tensor)]
        sizes = {tensor.shape[2] * tensor.shape[3] for tensor in tensors if tensor.ndim == 4}
        if len(sizes) == 1:
            recorder.sizes[name] = sizes.pop()

    return hook


@contextlib.contextmanager
def _in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
