"""The order in which training pictures are visited.

Knows permutations, epochs and global batches. Does not know processes: accelerate deals the batches out.
"""

import math
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class WholeBatchSampler(Sampler[int]):
    """Visits every picture once an epoch, in an order of its own, and only in whole global batches.

    The last global batch is filled up from the beginning of the same permutation, so that an optimizer step is made of
    the same pictures whatever the number of processes and accumulation steps: accelerate would fill it up for several
    processes and not for one.

    It yields visit numbers, `epoch * num_images + index`: a dataset can derive the picture and, with the epoch in it,
    random numbers that do not depend on workers, processes or resumption.

    Args:
        num_images (`int`):
            Number of pictures.
        global_batch_size (`int`):
            Pictures of one optimizer step: per-device batch x processes x accumulation steps.
        seed (`int`):
            Seed of the permutations.
    """

    def __init__(self, num_images: int, global_batch_size: int, seed: int):
        self.num_images = num_images
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the permutation; accelerate and Trainer call this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.num_images / self.global_batch_size) * self.global_batch_size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.num_images, generator=generator).tolist()
        offset = self.epoch * self.num_images
        for position in range(len(self)):
            yield offset + order[position % self.num_images]
