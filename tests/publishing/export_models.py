"""Tiny classifiers with random weights, saved as users save them, for the tests of exports."""

from pathlib import Path

import pytest
import torch

from hf_transfer.errors import UserError
from hf_transfer.evaluation.classifier import Classifier, load_classifier
from hf_transfer.models.configuration import OTHER_INTERFACE
from hf_transfer.publishing.export import export_classifier
from hf_transfer.publishing.export_pictures import TrialPictures, made_pictures
from tests.models.families import FAMILIES, build_tiny_checkpoint
from tests.models.timm_architectures import TIMM_ARCHITECTURES, build_tiny_timm_checkpoint

ONNX = ("onnx", "onnxruntime", "onnxscript")


def need_onnx() -> None:
    """Skips a test where the extra `export` is not installed."""
    for name in ONNX:
        pytest.importorskip(name, reason='needs the extra `export`: pip install -e ".[export]"')


def tiny_classifier(folder: Path, name: str) -> Classifier:
    """Builds, saves and loads a classifier; `timm/...` is timm's, everything else a family of transformers.

    All weights are drawn anew: with those that families start with, the pictures are lost on the way through a tiny
    network, and every export would pass for right. So are batch statistics: with means of 0 and variances of 1 a
    BatchNorm that an export forgot would not be noticed.
    """
    torch.manual_seed(0)
    if name.startswith("timm/"):
        build_tiny_timm_checkpoint(folder, name.removeprefix("timm/"), num_labels=5)
    else:
        build_tiny_checkpoint(folder, name, num_labels=5)
    classifier = load_classifier(folder)
    _liven(classifier.model)
    return classifier


def _liven(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * (2 / parameter[0].numel()) ** 0.5)  # He et al. 2015: keeps the variance
            else:
                parameter.copy_(0.1 * noise + (0.0 if "bias" in name else 1.0))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))


ALL_MODELS = (
    *(name for name in FAMILIES if name not in OTHER_INTERFACE),
    *(f"timm/{name}" for name in TIMM_ARCHITECTURES),
)
"""Every family that can be built tiny and that this package loads."""


def try_family(folder: Path, name: str, export_format: str) -> str:
    """Exports a tiny model and returns `works`, or the refusal in a few words.

    Anything but a [`~hf_transfer.errors.UserError`] goes through: a crash is no answer.
    """
    classifier = tiny_classifier(folder / "model", name)
    pictures = TrialPictures(made_pictures(8), "generated", "8 made pictures")
    try:
        export_classifier(
            classifier, pictures, folder / "export", source=name, original_bytes=1, export_format=export_format
        )
    except UserError as error:
        return error.given
    return "works"
