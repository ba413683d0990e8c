"""What an export is worth: sizes and CPU times of ONNX and torch.export beside the original, and which families work.

Usage:
    HF_TRANSFER_ASSETS=path/to/assets python benchmarks/export.py

Exports real checkpoints with both formats through `hf_transfer.publishing.export`, checks each on test photos of
clothing10, compares opsets in turns within one run, tries every family of `tests/models/families.py` and of timm with
tiny random weights, and writes `benchmarks/results/export.md`.
"""

import os
import statistics
import sys
import tarfile
import tempfile
import time
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path

import torch
from written_table import table_head, table_row, write_lines

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hf_transfer.environment import hardware, package_versions  # noqa: E402
from hf_transfer.evaluation.classifier import load_classifier  # noqa: E402
from hf_transfer.models.configuration import OTHER_INTERFACE  # noqa: E402
from hf_transfer.publishing.export import ExportReport, export_classifier  # noqa: E402
from hf_transfer.publishing.export_formats import (  # noqa: E402
    ONNX_PACKAGES,
    LogitsOnly,
    capture,
    run_onnx,
    runtime_versions,
    write_onnx,
)
from hf_transfer.publishing.export_pictures import find_trial_pictures  # noqa: E402
from tests.publishing.export_models import ALL_MODELS, try_family  # noqa: E402

TABLE = ROOT / "benchmarks" / "results" / "export.md"
REPORT_COLUMNS = (
    "checkpoint",
    "format",
    "MB",
    "largest difference of a logit",
    "same labels",
    "same labels from the sidecar",
    "batch 1, ms",
    "batch 8, ms",
)
CHECKPOINTS = ("vit_tiny_patch16_224", "mobilenet_v2_1.0_224", "timm_vit_tiny_patch16_224")
FORMATS = ("onnx", "torch")
OPSETS = (18, 20, 23)
NUM_IMAGES = 100
TURNS = 15


def export_all(assets: Path, pictures: Path, scratch: Path) -> list[tuple[str, ExportReport]]:
    """Exports the checkpoints in both formats."""
    options = Namespace(model="", dataset=None, images=[f"{pictures}/test/*/*.jpg"], num_images=NUM_IMAGES)
    trial = find_trial_pictures(options, None)
    reports = []
    for name in CHECKPOINTS:
        source = assets / "checkpoints" / name
        for export_format in FORMATS:
            report = export_classifier(
                load_classifier(source),
                trial,
                scratch / f"{name}_{export_format}",
                source=name,
                original_bytes=(source / "model.safetensors").stat().st_size,
                export_format=export_format,
            )
            reports.append((name, report))
    return reports


def report_row(name: str, report: ExportReport) -> str:
    """Returns a line of the table."""
    comparison, times = report.comparison, {item.batch_size: item for item in report.latency}
    cells = [
        name,
        report.export_format,
        f"{report.original_bytes / 1e6:.1f} -> {report.exported_bytes / 1e6:.1f}",
        f"{comparison.max_abs_difference:.1e} of {comparison.largest_logit:.1f}",
        f"{comparison.same_predictions} of {comparison.num_pictures}",
        f"{report.preprocessing['same_predictions']} of {comparison.num_pictures}",
        *(
            f"{times[size].original_ms:.1f} -> {times[size].exported_ms:.1f} ({times[size].speedup:.2f}x)"
            for size in times
        ),
    ]
    return table_row(*cells)


def opset_rows(assets: Path, scratch: Path) -> list[str]:
    """Times one checkpoint in several opsets, and with fused attention, all in turns."""
    rows = []
    for name in CHECKPOINTS:
        model = load_classifier(assets / "checkpoints" / name).model
        pixels = torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        runners = {"torch": LogitsOnly(model)}
        for plain in (True, False):
            for opset in OPSETS:
                path = scratch / f"{name}_{opset}_{plain}.onnx"
                write_onnx(capture(model, pixels[:2], plain=plain), model, path, opset)
                runners[f"{opset}{'' if plain else ' fused'}"] = run_onnx(path)
        for size in (1, 8):
            times: dict[str, list[float]] = {key: [] for key in runners}
            with torch.inference_mode():
                for _ in range(TURNS + 1):
                    for key, runner in runners.items():
                        start = time.perf_counter()
                        runner(pixels[:size])
                        times[key].append(1000 * (time.perf_counter() - start))
            # The first turn warms up.
            cells = [f"{statistics.median(values[1:]):.1f}" for values in times.values()]
            rows.append(table_row(name, str(size), *cells))
    return rows


def family_rows(scratch: Path) -> list[str]:
    """Tries both formats on every family."""
    rows = []
    for name in ALL_MODELS:
        answers = [try_family(scratch / f"{name}_{export_format}", name, export_format) for export_format in FORMATS]
        rows.append(table_row(name, *answers))
    return rows


def main() -> None:
    assets = Path(os.environ["HF_TRANSFER_ASSETS"])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with tarfile.open(assets / "datasets" / "clothing10.tar") as archive:
            archive.extractall(folder, filter="data")
        reports = export_all(assets, folder / "clothing10" / "data", folder)
        opsets = opset_rows(assets, folder)
        families = family_rows(folder)
    versions, machine = package_versions() | runtime_versions("onnx"), hardware(1)
    columns = ["torch", *(f"{opset}" for opset in OPSETS), *(f"{opset} fused" for opset in OPSETS)]
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "timm", *ONNX_PACKAGES))
    lines = [
        "# Exports beside the originals",
        "",
        f"Real checkpoints on {NUM_IMAGES} test photos of clothing10. Original -> exported; times are medians in ms "
        "of the original (transformers in eager mode) and the exported file in turns, by size of batch. `Same labels "
        "from the sidecar`: those that the exported file gives to pixels made from `preprocessing.json` with Pillow "
        "and numpy, against the original behind its own processor.",
        "",
        *table_head(*REPORT_COLUMNS),
        *(report_row(name, report) for name, report in reports),
        "",
        "## Opsets",
        "",
        f"Medians in ms of {TURNS} turns, all columns in turns within one run. `fused`: captured with torch's fused "
        "attention, which the exporter takes apart by itself, instead of as matrix products and a softmax.",
        "",
        *table_head("checkpoint", "batch", *columns),
        *opsets,
        "",
        "## Families",
        "",
        "Tiny networks with random weights, one of every image-classification family of transformers and some of "
        "timm's, exported and compared with batches of 1, 3 and 8.",
        "",
        *table_head("family", "onnx", "torch"),
        *families,
        "",
        f"Families that this package refuses to load are left out: {', '.join(sorted(OTHER_INTERFACE))}.",
        "",
        f"Command: `python benchmarks/export.py`. Hardware: {machine['processor']}, {machine['threads']} thread(s), "
        f"shared with other work. {packages}. Date: {datetime.now(UTC):%Y-%m-%d}.",
    ]
    write_lines(TABLE, lines)
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
