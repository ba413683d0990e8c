"""Transfer learning for image classifiers on the Hugging Face stack.

Public names are imported when they are first used, so that `hf-transfer --help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_HOMES = {
    "FinetuneConfig": "hf_transfer.config",
    "LayerGroup": "hf_transfer.models.layer_groups",
    "ProgressiveUnfreezeCallback": "hf_transfer.training.unfreezing",
    "RunReport": "hf_transfer.report",
    "TransferTrainer": "hf_transfer.training.trainer",
    "Unfreezing": "hf_transfer.training.strategies",
    "UserError": "hf_transfer.errors",
    "finetune": "hf_transfer.pipeline",
    "layer_groups": "hf_transfer.models.layer_groups",
    "load_checkpoint": "hf_transfer.models.checkpoint",
    "load_image_data": "hf_transfer.data.loading",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 (the names are the keys above)

if TYPE_CHECKING:
    from hf_transfer.config import FinetuneConfig as FinetuneConfig
    from hf_transfer.data.loading import load_image_data as load_image_data
    from hf_transfer.errors import UserError as UserError
    from hf_transfer.models.checkpoint import load_checkpoint as load_checkpoint
    from hf_transfer.models.layer_groups import LayerGroup as LayerGroup
    from hf_transfer.models.layer_groups import layer_groups as layer_groups
    from hf_transfer.pipeline import finetune as finetune
    from hf_transfer.report import RunReport as RunReport
    from hf_transfer.training.strategies import Unfreezing as Unfreezing
    from hf_transfer.training.trainer import TransferTrainer as TransferTrainer
    from hf_transfer.training.unfreezing import ProgressiveUnfreezeCallback as ProgressiveUnfreezeCallback


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
