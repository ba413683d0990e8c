"""The command `hf-transfer export`: its flags, where the files go, and what is printed.

Knows the command line. What is written and checked is in `hf_transfer.publishing.export`, which is imported after the
command line has been read, so that `--help` and mistakes answer at once.
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_transfer.command_parser import CommandParser
from hf_transfer.errors import UserError

if TYPE_CHECKING:
    from hf_transfer.publishing.export import ExportReport

_OUTPUTS = ("model.onnx", "model.pt2", "export.json")


def export_parser() -> CommandParser:
    """Returns the parser of `hf-transfer export`."""
    parser = CommandParser(
        prog="hf-transfer export",
        description="Write a classifier for other programs, with its preprocessing as data, checked against the "
        "original on pictures. A file that is not the same model is not written.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="Folder of a run, folder of a model, or Hub id.")
    add("--format", choices=("onnx", "torch"), default="onnx", help="ONNX, or torch.export's .pt2. Default: onnx.")
    add("--output", metavar="DIR", help="Folder to write to. Default: RUN/export_FORMAT, or NAME_FORMAT here.")
    add("--overwrite", action="store_true", help="Replace an export that is in that folder already.")
    add("--opset", type=int, help="Of ONNX. Default: 20.")
    add("--dataset", help="Check on the test pictures of this data set. Default: the run's own, if it is a run.")
    add("--images", nargs="+", metavar="PATHS", help="Check on these pictures: files, folders, patterns.")
    add("--num_images", type=int, default=64, help="Check on at most so many, spread evenly. Default: 64.")
    add("--tolerance", type=float, help="Largest difference of a logit, as a share of the largest. Default: 0.001.")
    add("--json", action="store_true", help="Print export.json and nothing else.")
    add("--debug", action="store_true", help="Show the traceback of an error.")
    return parser


def export_command(argv: Sequence[str]) -> int:
    """Exports a model.

    Args:
        argv (`Sequence[str]`):
            What follows `hf-transfer export`.

    Returns:
        `int`: 0.

    Raises:
        [`~hf_transfer.errors.UserError`]: for every mistake that the user can mend.
    """
    options = export_parser().parse(argv)
    _check_numbers(options)
    from hf_transfer.evaluation.saved_run import resolve_model

    model, run = resolve_model(options.model)
    folder = _output_folder(options, model)

    from hf_transfer.evaluation.classifier import load_classifier
    from hf_transfer.models.source import find_files
    from hf_transfer.publishing.export import export_classifier
    from hf_transfer.publishing.export_check import TOLERANCE
    from hf_transfer.publishing.export_formats import check_opset, check_packages
    from hf_transfer.publishing.export_pictures import find_trial_pictures
    from hf_transfer.report import to_plain

    check_packages(options.format)
    check_opset(options.format, options.opset)
    classifier = load_classifier(model)
    report = export_classifier(
        classifier,
        find_trial_pictures(options, run),
        folder,
        source=options.model,
        original_bytes=sum(file.stat().st_size for file in find_files(model).weight_files),
        export_format=options.format,
        opset=options.opset,
        tolerance=TOLERANCE if options.tolerance is None else options.tolerance,
    )
    if options.json:
        print(json.dumps(to_plain(report), indent=2, ensure_ascii=False))
    else:
        print(f"{format_report(report)}\nWritten to {folder}: {', '.join((*report.files, 'export.json'))}")
    return 0


def format_report(report: "ExportReport") -> str:
    """Returns what was measured, in a few lines."""
    from hf_transfer.publishing.export_check import medians_line

    comparison, pixels = report.comparison, report.preprocessing
    opset = f", opset {report.opset}" if report.opset else ""
    lines = [
        f"{report.architecture} as {report.export_format}{opset}, batches of any size",
        f"  checked on  {report.pictures}",
        f"  logits      differ by up to {comparison.max_abs_difference:.2g} "
        f"(allowed: {comparison.allowed_difference:.2g})",
        f"  labels      the same for {comparison.same_predictions} of {comparison.num_pictures}",
        f"  pixels      {'exact' if pixels['exact'] else 'not exact'}: {pixels['reason']}",
        f"  size        {report.exported_bytes / 1e6:.1f} MB against {report.original_bytes / 1e6:.1f} MB",
        f"  CPU time    {medians_line(report.latency)}, {report.hardware['threads']} thread(s)",
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


def _check_numbers(options: Namespace) -> None:
    if options.num_images < 1:
        raise UserError(f"--num_images {options.num_images}", "1 or more")
    if options.tolerance is not None and not 0 < options.tolerance < 1:
        raise UserError(f"--tolerance {options.tolerance}", "more than 0, less than 1", "--tolerance 0.001")
    if options.dataset and options.images:
        raise UserError("--dataset and --images exclude each other.", "one of them")


def _output_folder(options: Namespace, model: str) -> Path:
    """Returns the folder to write to, and refuses one that is taken."""
    folder = Path(options.output).expanduser() if options.output else _default_folder(options, model)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file.", "a folder", f"--output {folder}_export")
    taken = [name for name in _OUTPUTS if (folder / name).exists()]
    if taken and not options.overwrite:
        raise UserError(
            f"{folder} holds an export already ({', '.join(taken)}).",
            hint="another --output, or --overwrite to replace it",
        )
    return folder


def _default_folder(options: Namespace, model: str) -> Path:
    given, found = Path(options.model).expanduser(), Path(model).expanduser()
    if found.is_dir() and found.resolve().name == "model":
        return found.resolve().parent / f"export_{options.format}"
    return Path(f"{given.resolve().name if given.is_dir() else given.name}_{options.format}")
