"""The scales and shifts of a network's normalisation layers: few weights, through which all of its features can adapt.

Networks whose other weights are random reach far with these alone (Frankle, Schwab and Morcos 2021, arXiv:2003.00152).

Knows which modules normalise. Does not know when their weights learn, or at which rate.
"""

from torch import nn


def norm_parameters(model: nn.Module) -> tuple[str, ...]:
    """Returns the names of the weights that normalisation layers hold, in the order of the model.

    A module normalises if its class, or one that it descends from, says so in its name, as those of torch,
    transformers and timm do. Names of attributes say less. Matrices are left out, whatever holds them.

    Args:
        model (`nn.Module`):
            A network.

    Returns:
        `tuple[str, ...]`: empty for a network without normalisation, or whose layers have no weights.
    """
    return tuple(
        f"{place}.{name}" if place else name
        for place, module in model.named_modules()
        if _normalises(module)
        for name, weight in module.named_parameters(recurse=False)
        if sum(size > 1 for size in weight.shape) <= 1
    )


def _normalises(module: nn.Module) -> bool:
    return any("norm" in kind.__name__.lower() for kind in type(module).__mro__)
