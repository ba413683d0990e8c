"""A classifier as a file for other programs: written, checked against the original, and only then put in place.

Knows the order of the steps and the files of an export. Formats, comparison, preprocessing and pictures are next door;
flags and printing are in `hf_transfer.publishing.export_command`.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from hf_transfer.data.processor_facts import processor_facts
from hf_transfer.data.transforms import build_eval_transform
from hf_transfer.environment import hardware, package_versions
from hf_transfer.errors import UserError
from hf_transfer.evaluation.classifier import Classifier
from hf_transfer.publishing import export_reader
from hf_transfer.publishing.export_check import (
    TOLERANCE,
    Comparison,
    Latency,
    check_comparison,
    compare,
    measure_latency,
)
from hf_transfer.publishing.export_formats import (
    FILE_NAMES,
    OPSET_REASON,
    LogitsOnly,
    Runner,
    capture,
    check_opset,
    check_packages,
    run_onnx,
    run_torch,
    runtime_versions,
    write_onnx,
    write_torch,
)
from hf_transfer.publishing.export_pictures import TrialPictures
from hf_transfer.publishing.export_preprocessing import sidecar
from hf_transfer.report import write_json

SIDECAR, REPORT, READER = "preprocessing.json", "export.json", "predict.py"


@dataclass(frozen=True)
class ExportReport:
    """What was written and how it compares with the original; `export.json` holds the same."""

    source: str
    """What the user gave."""
    architecture: str
    num_parameters: int
    export_format: str
    opset: int | None
    opset_reason: str | None
    files: dict[str, dict[str, Any]]
    """Name -> `bytes` and `sha256`, of all files but `export.json`."""
    pictures: str
    """In words, those that both models saw."""
    picture_kind: str
    """`images`, `dataset` or `generated`."""
    comparison: Comparison
    allowed_difference: float
    preprocessing: dict[str, Any]
    """How the steps of the sidecar agree with the processor, and the exported model behind them with the original."""
    original_bytes: int
    """Of the safetensors files."""
    exported_bytes: int
    """Of the model's own files, without sidecar and reader."""
    latency: tuple[Latency, ...]
    hardware: dict[str, Any]
    versions: dict[str, str]
    date: str
    notes: tuple[str, ...]
    schema_version: int = 1


def export_classifier(
    classifier: Classifier,
    pictures: TrialPictures,
    folder: Path,
    *,
    source: str,
    original_bytes: int,
    export_format: str = "onnx",
    opset: int | None = None,
    tolerance: float = TOLERANCE,
) -> ExportReport:
    """Writes a classifier to `folder` in another format, once it has proven to be the same model.

    Args:
        classifier ([`~hf_transfer.evaluation.classifier.Classifier`]):
            The model.
        pictures ([`TrialPictures`]):
            What it is compared on.
        folder (`Path`):
            Gets the model's file, `preprocessing.json`, `predict.py` and, last, `export.json`. Files of these names
            are replaced.
        source (`str`):
            What the user calls the model.
        original_bytes (`int`):
            Size of its weight files.
        export_format (`str`, *optional*, defaults to `"onnx"`):
            `onnx` or `torch`.
        opset (`int`, *optional*):
            Of ONNX.
        tolerance (`float`, *optional*):
            Largest difference of a logit, as a share of the largest logit.

    Raises:
        [`~hf_transfer.errors.UserError`]: where the model cannot be exported or the result is another model; `folder`
        is then as it was.
    """
    check_packages(export_format)
    chosen = check_opset(export_format, opset)
    processor_facts(classifier.image_processor)  # refuses tensors whose size depends on the picture
    transform = build_eval_transform(classifier.image_processor)
    pixel_values = torch.stack([transform(image) for image in pictures.images])
    original = _Original(classifier)
    with _staging(folder) as staging:
        path = staging / FILE_NAMES[export_format]
        exported = _write(classifier, pixel_values, path, export_format, chosen)
        comparison = compare(original, exported, pixel_values, tolerance)
        check_comparison(comparison, export_format)
        exported_bytes = sum(file.stat().st_size for file in staging.iterdir())
        description = sidecar(
            classifier.image_processor,
            classifier.label_names,
            path.name,
            _shape(pixel_values),
            pictures.images,
        )
        write_json(description, staging / SIDECAR)
        shutil.copyfile(export_reader.__file__, staging / READER)
        report = ExportReport(
            source=source,
            architecture=type(classifier.model).__name__,
            num_parameters=sum(parameter.numel() for parameter in classifier.model.parameters()),
            export_format=export_format,
            opset=chosen,
            opset_reason=None if chosen is None else OPSET_REASON if opset is None else "as you asked",
            files={file.name: _file_facts(file) for file in sorted(staging.iterdir())},
            pictures=pictures.told,
            picture_kind=pictures.kind,
            comparison=comparison,
            allowed_difference=comparison.allowed_difference,
            preprocessing=_preprocessing_facts(description, original, exported, pictures, pixel_values),
            original_bytes=original_bytes,
            exported_bytes=exported_bytes,
            latency=measure_latency(original, exported, pixel_values),
            hardware=hardware(1),
            versions=package_versions() | runtime_versions(export_format),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            notes=pictures.notes,
        )
        write_json(report, staging / REPORT)
        del exported  # onnxruntime and torch hold the file open, which on some systems cannot be moved then
        _put_in_place(staging, folder)
    return report


class _Original:
    """The classifier as it stands, as a function."""

    def __init__(self, classifier: Classifier):
        self.module = LogitsOnly(classifier.model.eval())

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.module(pixel_values)


def _write(
    classifier: Classifier, pixel_values: torch.Tensor, path: Path, export_format: str, opset: int | None
) -> Runner:
    example = pixel_values[:1].repeat(2, 1, 1, 1)
    program = capture(classifier.model, example, plain=opset is not None)
    if opset is not None:
        write_onnx(program, classifier.model, path, opset)
        return run_onnx(path)
    write_torch(program, path)
    return run_torch(path)


def _preprocessing_facts(
    description: dict[str, Any],
    original: Runner,
    exported: Runner,
    pictures: TrialPictures,
    pixel_values: torch.Tensor,
) -> dict[str, Any]:
    """Compares the original behind its own processor with the exported file behind the steps of the sidecar."""
    fidelity = description["fidelity"]
    facts: dict[str, Any] = {"exact": fidelity.exact, "max_grey_levels": fidelity.max_grey_levels}
    facts["reason"] = fidelity.reason
    if description["steps"] is None:
        return facts
    steps = [export_reader.pixel_values(image, description["steps"]) for image in pictures.images]
    replayed = torch.stack([torch.from_numpy(values) for values in steps])
    with torch.inference_mode():
        wanted = torch.cat([original(batch) for batch in pixel_values.split(8)])
        found = torch.cat([exported(batch.contiguous()) for batch in replayed.split(8)])
    facts["max_abs_difference_of_logits"] = float((found - wanted).abs().max())
    facts["same_predictions"] = int((found.argmax(1) == wanted.argmax(1)).sum())
    return facts


def _shape(pixel_values: torch.Tensor) -> tuple[int, int, int]:
    channels, height, width = pixel_values.shape[1:]
    return channels, height, width


def _file_facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A folder beside the final one, on the same disk, that is gone afterwards whatever happens."""
    parent = folder.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise UserError(
            f"--output {folder} cannot be written to: {error}", hint="--output in a folder of your own"
        ) from error
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put_in_place(staging: Path, folder: Path) -> None:
    """Moves the files over; `export.json`, which vouches for the others, is taken away first and comes back last."""
    folder.mkdir(exist_ok=True)
    (folder / REPORT).unlink(missing_ok=True)
    umask = os.umask(0)
    os.umask(umask)
    for file in sorted(staging.iterdir(), key=lambda path: path.name == REPORT):
        file.chmod(0o666 & ~umask)
        file.replace(folder / file.name)
