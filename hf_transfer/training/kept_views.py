"""How many augmented views of each training picture a run keeps where the user does not say.

Of validation accuracy with a frozen network, a single view loses up to 0.018 against two; four and eight gain 0.011 at
most, for twice and four times the passes (`benchmarks/results/views.md`, torch 2.14.1, 2026-11-26). Where the last
quarter of the blocks learns in twenty epochs (`partial`), two views cost a mobilenet, which learns at the rates of
networks with BatchNorm, 0.020 of test accuracy against a new view in each epoch, and a ViT nothing
(`benchmarks/results/peers.md` at fe704b1, 2026-11-29). With four the mobilenet is level with a new one in each
(`peers.md`, ten seeds), a smaller one as well (`views_of_runs.md`). `progressive` lost no more than seeds differ by,
and may have few epochs with layers frozen. Where norms learn first (`--tune_norms`), one view cost a mobilenet 0.022
of validation accuracy; a ViT lost nothing by it on one split, and 0.015 of test accuracy on all pictures in five folds
(`norms_first.md`, `peer_folds.md`, 2026-11-30).

Knows strategies, lengths and networks. Does not know how views are drawn (`hf_transfer.data.visits`) or kept.
"""

from transformers import PreTrainedModel, TrainingArguments

from hf_transfer.config import FinetuneConfig
from hf_transfer.data.transforms import AugmentationSettings, varies
from hf_transfer.errors import UserError
from hf_transfer.models.batch_norm import has_batch_norm
from hf_transfer.training.arguments import planned_visits
from hf_transfer.training.checkpoints import checkpoint_to_continue, recorded_value

VIEWS = "--cache_views"
"""What checkpoints keep the choice under: a run that is made longer keeps the views that it began with."""
DEFAULT_VIEWS = 2
VIEWS_WITH_BATCH_NORM = 4
"""With `partial`, in runs that see each of them twice or more often."""


def choose_views(
    config: FinetuneConfig,
    args: TrainingArguments,
    model: PreTrainedModel,
    augmentation: AugmentationSettings,
    num_images: int,
) -> int:
    """Returns how many views of each training picture are kept.

    Args:
        config (`FinetuneConfig`):
            What the user asked for.
        args (`TrainingArguments`):
            How long the run is, and what it continues.
        model (`PreTrainedModel`):
            The network.
        augmentation (`AugmentationSettings`):
            How pictures are varied.
        num_images (`int`):
            Training pictures.

    Raises:
        UserError: for less than one view, and if there is no checkpoint to continue.
    """
    if config.cache_views is not None and config.cache_views < 1:
        raise UserError(f"{VIEWS} {config.cache_views}", "1 or more", f"{VIEWS} {DEFAULT_VIEWS}")
    if not varies(augmentation):
        return 1  # All views are the same.
    if config.cache_views is not None:
        return config.cache_views
    if config.strategy != "partial" or not has_batch_norm(model):
        return DEFAULT_VIEWS
    recorded = recorded_value(checkpoint_to_continue(args).folder, VIEWS)
    if recorded is not None:
        return int(recorded)
    long_enough = planned_visits(args, num_images) >= 2 * VIEWS_WITH_BATCH_NORM
    return VIEWS_WITH_BATCH_NORM if long_enough else DEFAULT_VIEWS
