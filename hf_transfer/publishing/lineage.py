"""Lineage: what a model was made from and what came out, as hashes that anybody can compute again.

Knows which facts of a finished run belong in `run.json` under `lineage`. Does not compare them with anything
(`hf_transfer.publishing.verification`), and vouches for nobody: whoever changes the files, `run.json` among them, can
compute new hashes.

The shape of `lineage`:
    base_model: `id` (of the Hub; else `None`), `commit`, `weights_sha256` (`None` for fresh weights)
    model_files: SHA-256 of every file of the saved model, by its name
    files: SHA-256 of figures, by name; what is derived from `run.json` itself is compared with it instead
    data: `fingerprint`, `manifest` (name of the file), `manifest_sha256`, and under `splits` for each split `pictures`
        and the `sha256` of its lines of the manifest
    code: `version`, `commit` and `dirty` of this package
Versions of other packages are in `run.json` under `versions`.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hf_transfer.atomic import write_atomically
from hf_transfer.data.image_data import SPLIT_NAMES, ImageData
from hf_transfer.data.manifest import manifest_lines, manifest_rows, split_hashes
from hf_transfer.environment import code_version
from hf_transfer.report import RunReport


def collect_lineage(report: RunReport, data: ImageData, folder: Path) -> dict[str, Any]:
    """Writes the manifest, hashes what the run left, and returns the lineage.

    Args:
        report (`RunReport`):
            The report as far as it goes.
        data (`ImageData`):
            The pictures of the run.
        folder (`Path`):
            The run's folder, with the model and the figures in it.
    """
    manifest = folder / report.outputs["manifest"]
    write_atomically(manifest, lambda temporary: _write_manifest(data, temporary))
    hashes = split_hashes(manifest_rows(data))
    model = folder / report.outputs["model"]
    figures = [name for name in report.outputs.values() if name.endswith(".png")]
    revision = report.checkpoint["revision"]
    return {
        "base_model": {
            "id": report.checkpoint["source"] if revision else None,
            "commit": revision,
            "weights_sha256": report.checkpoint["weights_sha256"],
        },
        "model_files": file_hashes(model, (path for path in model.rglob("*") if path.is_file())),
        "files": file_hashes(folder, (folder / name for name in figures)),
        "data": {
            "fingerprint": data.fingerprint,
            "manifest": manifest.name,
            "manifest_sha256": sha256_of(manifest),
            "splits": {split: {"pictures": len(data.split(split)), "sha256": hashes[split]} for split in SPLIT_NAMES},
        },
        "code": code_version(),
    }


def _write_manifest(data: ImageData, path: Path) -> None:
    with path.open("w", encoding="ascii") as file:
        file.writelines(manifest_lines(manifest_rows(data)))


def file_hashes(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Returns the SHA-256 of files by their names below `folder`, sorted."""
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(paths)}


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
