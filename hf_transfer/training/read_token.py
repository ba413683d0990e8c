"""The last block of a network computed for one token alone, where its head reads no other.

The head of a vision transformer such as ViT or DeiT reads the class token. Tokens mix in attention; in the last one
the others are asked for their keys and values, and behind it each goes its own way, so that all the rest is computed
for nobody: the query of every other token and its attention, the projection, the MLP, forwards and backwards. So there
layers are handed the token that is read and no other. Where the network adds one token to all of them, as residual
connections do, only those go wrong that nobody reads.

Knows modules and tokens. Does not know which layers these are (`hf_transfer.training.read_token_search`), strategies
or caches; whoever trains keeps the layers so throughout.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True)
class ReadToken:
    """The one token that is read, and the layers that compute it alone, named in the order in which they run."""

    position: int
    num_tokens: int
    modules: tuple[str, ...]
    """Their inputs are cut down to it."""
    spread: tuple[str, ...] = ()
    """Their inputs are cut down to it, and what they return stands in for all tokens: what follows counts them."""
    attention: str | None = None
    """In here, attention is computed for its query alone; what it returns stands in for all tokens."""


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
        cut_down = _cutting_down_to(read.position)
        for name in (*read.modules, *read.spread):
            self._hooks.append(model.get_submodule(name).register_forward_pre_hook(cut_down))
        for name in read.spread:
            self._hooks.append(model.get_submodule(name).register_forward_hook(_spreading_over(read.num_tokens)))
        if read.attention is not None:
            begin, end = _asking_for(read.position)
            module = model.get_submodule(read.attention)
            self._hooks.append(module.register_forward_pre_hook(begin))
            # Also where the forward raises, as it does when memory runs out.
            self._hooks.append(module.register_forward_hook(end, always_call=True))

    def release(self) -> None:
        """Lets the layers compute all tokens again."""
        while self._hooks:
            self._hooks.pop().remove()


class _OneQuery(TorchFunctionMode):
    """While entered, torch's attention is computed for one query, and its answer stands in for all of them."""

    def __init__(self, position: int):
        super().__init__()
        self.position = position

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention or not _asks_for_all(*args, **kwargs):
            return func(*args, **kwargs)
        query, *others = args
        one = func(query[..., self.position : self.position + 1, :], *others, **kwargs)
        return one.expand(*one.shape[:-2], query.shape[-2], -1)


def _asks_for_all(
    query: Any = None, key: Any = None, value: Any = None, attn_mask: Any = None, *more: Any, **named: Any
) -> bool:
    """Tells whether attention is that of all tokens to all tokens, without a mask."""
    if query is None or key is None or attn_mask is not None or more or named.get("is_causal"):
        return False
    return query.dim() == 4 and query.shape[-2] == key.shape[-2] > 1


def _cutting_down_to(position: int) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple) -> tuple:
        tokens = args[0]
        return args if tokens.shape[1] == 1 else (tokens[:, position : position + 1], *args[1:])

    return hook


def _spreading_over(num_tokens: int) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        return output.expand(-1, num_tokens, -1)

    return hook


def _asking_for(position: int) -> tuple[Callable[..., None], Callable[..., None]]:
    """Returns what hangs before and behind a module in which attention is computed for one query."""
    # Hooks of a copied model share it, and so may threads.
    entered = threading.local()

    def begin(module: nn.Module, args: tuple) -> None:
        if torch.compiler.is_compiling():
            return  # The compiler has no such modes; what it compiles computes all queries.
        mode = _OneQuery(position)
        mode.__enter__()
        entered.modes = [*getattr(entered, "modes", ()), mode]

    def end(module: nn.Module, args: tuple, output: Any) -> None:
        if torch.compiler.is_compiling() or not getattr(entered, "modes", ()):
            return
        *entered.modes, mode = entered.modes
        mode.__exit__(None, None, None)

    return begin, end
