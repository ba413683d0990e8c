"""The classification loss, normalised over the whole global batch.

Knows cross-entropy for integer and soft labels, label smoothing and class weights. Does not know how many processes or
accumulation steps there are: the caller says how many images the optimizer step holds.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_images: torch.Tensor | int,
    *,
    label_smoothing: float = 0.0,
    class_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sums the cross-entropy over the images of a batch and divides it by `num_images`.

    Dividing by the images of the whole optimizer step, not of the micro-batch, makes the gradients of all
    micro-batches and processes add up to that of one large batch. Trainer cannot be left to do this: it takes a
    `**kwargs` in the model's `forward` as a promise to normalise, which about 30 of 41 image heads break
    (transformers#47688).

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`):
            The model's scores; the loss is computed in float32 whatever their type.
        labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`):
            Class indices, or one distribution over the classes for each image.
        num_images (`torch.Tensor` or `int`):
            Number of images that the sum is divided by.
        label_smoothing (`float`, *optional*, defaults to 0.0):
            Share of the target that is spread evenly over all classes (Szegedy et al. 2016, section 7).
        class_weights (`torch.Tensor` of shape `(num_labels,)`, *optional*):
            Weight of each class; `balanced_class_weights` makes them average to one over the training images, so that
            the division by the number of images stays the right one.

    Returns:
        `torch.Tensor`: a scalar.
    """
    total = F.cross_entropy(
        logits.float(), labels, weight=class_weights, reduction="sum", label_smoothing=label_smoothing
    )
    return total / num_images


def balanced_class_weights(class_counts: Sequence[int]) -> torch.Tensor:
    """Weighs each class by the inverse of its share: `num_images / (num_classes * class_count)`.

    This is scikit-learn's `class_weight="balanced"`. A class without images gets weight zero.

    Returns:
        `torch.Tensor` of shape `(num_classes,)`, averaging to one over the images.
    """
    counts = torch.tensor(class_counts, dtype=torch.float32)
    present = counts > 0
    weights = torch.zeros_like(counts)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights
