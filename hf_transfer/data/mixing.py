"""From single pictures to a batch, mixed or not.

Knows collation, mixup and CutMix. Does not know how strong they are chosen (`hf_transfer.data.transforms`).
"""

from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from hf_transfer.data.drawn_pictures import collate_pixels


def collate_images(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Stacks pictures into `pixel_values` of shape `(batch_size, channels, height, width)` and `labels`.

    Pictures that the device is going to vary are laid beside each other as `pictures`.
    """
    labels = torch.tensor([item["labels"] for item in items], dtype=torch.int64)
    return collate_pixels([item["pixel_values"] for item in items]) | {"labels": labels}


class MixingCollator:
    """Stacks pictures and mixes them with mixup or CutMix; labels become distributions over the classes.

    Which of the two, with which partners and how much, depends on the seed and the visits of the batch alone. Partners
    come from the same micro-batch, as in torchvision and timm, so that with mixing, other than without, the trajectory
    depends on how a global batch is cut into micro-batches.

    Pictures that the device is going to vary cannot be mixed before: their batch gets a `mixing_seed` instead, for
    [`~MixingCollator.mix`].

    Args:
        num_classes (`int`):
            Number of labels.
        mixup_alpha (`float`):
            Parameter of mixup's Beta distribution (Zhang et al. 2018, arXiv:1710.09412); 0 turns it off.
        cutmix_alpha (`float`):
            The same for CutMix (Yun et al. 2019, arXiv:1905.04899).
        seed (`int`):
            Seed of the random numbers.
    """

    def __init__(self, num_classes: int, mixup_alpha: float, cutmix_alpha: float, seed: int):
        self.seed = seed
        kinds = []
        if mixup_alpha > 0:
            kinds.append(v2.MixUp(alpha=mixup_alpha, num_classes=num_classes))
        if cutmix_alpha > 0:
            kinds.append(v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes))
        self.kinds = v2.RandomChoice(kinds)

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collate_images(items)
        visits = [item["visit"] for item in items]
        seed = int(np.random.SeedSequence([self.seed, *visits]).generate_state(1, np.uint64)[0])
        if "pixel_values" not in batch:
            return batch | {"mixing_seed": seed}
        images, labels = self.mix(batch["pixel_values"], batch["labels"], seed)
        return {"pixel_values": images, "labels": labels}

    def mix(self, images: torch.Tensor, labels: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixes a batch, on whatever device it lies, by random numbers of the CPU."""
        with torch.random.fork_rng(devices=[]):
            # `torch.manual_seed` would seed the devices too, dropout among what they draw.
            torch.default_generator.manual_seed(seed)
            return self.kinds(images, labels)
