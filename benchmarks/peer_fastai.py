"""A peer: fastai, `fit_one_cycle` on a frozen body and `fine_tune` for all weights.

The network is transformers', so that every contender starts from the same weights; `Learner` with a splitter for body
and head is what `vision_learner` builds. Its `freeze` lets normalisation layers learn (`train_bn`, on by default and
here), BatchNorm and LayerNorm alike, so that a frozen body is not wholly frozen and gradients pass through all of it.
`defaults` are fastai's own: batches of 64, `aug_transforms`, its own rate. `sensible` has batches of 32, random
resized crops and flips on the processor's resampling. fastai has no bfloat16 on CPUs: it runs in float32. Its weights
at the end are the ones tested, as is its custom. `wholly-frozen` is `sensible` with `train_bn` off: no weight of the
body learns, while BatchNorm's statistics still follow the pictures, as they do with plain Trainer.
"""

import time
from typing import Any

import fastai.callback.progress  # noqa: F401 (gives Learner `no_bar`)
import fastai.callback.schedule  # noqa: F401 (gives Learner `fit_one_cycle` and `fine_tune`)
from fastai.callback.core import Callback
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.torch_core import params, set_seed
from fastai.vision.augment import Flip, RandomResizedCrop, Resize, aug_transforms
from fastai.vision.data import ImageDataLoaders
from peer_files import Files, read_files
from peer_job import (
    DEFAULTS,
    GENTLE,
    SENSIBLE_BATCH,
    WHOLLY_FROZEN,
    Clock,
    Job,
    Logits,
    Pixels,
    finish,
    load_network,
    read_job,
    read_pixels,
)
from torch import nn

RATE = 2e-3
"""`fine_tune`'s own base rate."""


class EpochClock(Callback):
    """Seconds of each epoch."""

    def __init__(self):
        self.seconds = Clock()
        self._start = 0.0

    def before_train(self):
        self._start = time.perf_counter()

    def after_train(self):
        self.seconds.train_seconds.append(time.perf_counter() - self._start)

    def before_validate(self):
        self._start = time.perf_counter()

    def after_validate(self):
        self.seconds.validation_seconds.append(time.perf_counter() - self._start)


def body_and_head(model: Logits) -> list[Any]:
    """Splits the parameters as `vision_learner` does."""
    body = model.network.base_model
    inside = {id(parameter) for parameter in body.parameters()}
    return [params(body), [parameter for parameter in model.parameters() if id(parameter) not in inside]]


def loaders(files: Files, pixels: Pixels, setting: str) -> ImageDataLoaders:
    """Builds the batches of training and validation pictures."""
    scale = Normalize.from_stats(pixels.mean, pixels.std)
    if setting == DEFAULTS:
        item, batch, size = Resize(pixels.crop), [*aug_transforms(), scale], 64
    else:
        crops = RandomResizedCrop(pixels.crop, min_scale=GENTLE["scale"][0], ratio=GENTLE["ratio"])
        item, batch, size = crops, [Flip(), scale], SENSIBLE_BATCH
    return ImageDataLoaders.from_folder(
        files.folder, train="train", valid="validation", item_tfms=item, batch_tfms=batch, bs=size, device="cpu"
    )


def fit(learner: Learner, job: Job) -> None:
    """Trains as fastai does it; `fine_tune` begins with one frozen epoch, which is one of the epochs."""
    if job.task == "frozen":
        learner.freeze()
        learner.fit_one_cycle(job.epochs, *([] if job.setting == DEFAULTS else [RATE]))
    elif job.epochs == 1:
        learner.unfreeze()
        learner.fit_one_cycle(1, RATE)
    else:
        learner.fine_tune(job.epochs - 1)


def build_learner(job: Job, files: Files) -> Learner:
    """Puts pictures and network into a `Learner`."""
    data = loaders(files, read_pixels(job.checkpoint), job.setting)
    model: nn.Module = Logits(load_network(job.checkpoint, len(files.label_names)))
    how: dict[str, Any] = {"train_bn": False} if job.setting == WHOLLY_FROZEN else {}
    return Learner(data, model, CrossEntropyLossFlat(), splitter=body_and_head, metrics=accuracy, **how)


def run(job: Job) -> None:
    """Trains, and predicts the test pictures."""
    set_seed(job.seed)
    files = read_files(job.data)
    learner, epochs = build_learner(job, files), EpochClock()
    with learner.no_bar(), learner.added_cbs(epochs):
        fit(learner, job)
    with learner.no_bar():
        test = learner.dls.test_dl([path for path, _ in files.rows["test"]])
        predictions, _ = learner.get_preds(dl=test)
    finish(job, predictions.numpy(), epochs.seconds, bf16=False)


if __name__ == "__main__":
    run(read_job())
