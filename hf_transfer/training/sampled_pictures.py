"""A few training pictures as evaluation sees them, looked at before a run to settle what depends on its pictures.

Knows which pictures these are and what the head sees of them. Does not know what is settled by it.
"""

from functools import cached_property

import torch

from hf_transfer.data.image_data import ImageData
from hf_transfer.data.image_dataset import ImageClassificationDataset
from hf_transfer.data.transforms import build_eval_transform
from hf_transfer.models.checkpoint import Checkpoint
from hf_transfer.models.head_inputs import head_inputs

_SAMPLE = 32
_BATCH = 8


class SampledPictures:
    """What is opened and computed once, when somebody first asks.

    Args:
        data (`ImageData`):
            Whose training split is looked at.
        checkpoint (`Checkpoint`):
            The model, with its weights as they are loaded, and its processor.
    """

    def __init__(self, data: ImageData, checkpoint: Checkpoint):
        self.checkpoint = checkpoint
        self.train = data.train

    def __len__(self) -> int:
        return min(_SAMPLE, len(self.train))

    @cached_property
    def batches(self) -> list[torch.Tensor]:
        """Pixels, taken evenly from the split, since classes may lie one after the other."""
        transform = build_eval_transform(self.checkpoint.image_processor)
        pictures = ImageClassificationDataset(self.train, transform, seed=None)
        step = max(1, len(pictures) // _SAMPLE)
        pixels = [pictures[visit]["pixel_values"] for visit in range(0, len(pictures), step)[:_SAMPLE]]
        return list(torch.stack(pixels).split(_BATCH))

    @cached_property
    def head_inputs(self) -> list[torch.Tensor]:
        """What the head sees of them in float32, on the CPU."""
        return head_inputs(self.checkpoint.model, self.checkpoint.head_parameter_names, self.batches)
