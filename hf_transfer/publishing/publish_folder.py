"""Exactly the files that are published, and nothing else.

Knows which files of a run's folder belong on the Hub, under which names, and what they must not hold. Figures, card
and licence texts go as they are; `run.json` goes without folders of this computer. Checkpoints, optimizer states,
pickles and whatever else lies about never do. Does not talk to the Hub.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hf_transfer.errors import UserError
from hf_transfer.publishing.card import CARD
from hf_transfer.publishing.license_files import FOLDER as LICENSES
from hf_transfer.publishing.license_files import LICENSE, NOTICE, write_license_files
from hf_transfer.publishing.license_verdict import LicenseVerdict
from hf_transfer.publishing.local_places import TOKEN, without_local_places
from hf_transfer.report import write_json

FIGURES = "figures"
WIDGET = "widget"
_MODEL_FILES = re.compile(
    r"config\.json|preprocessor_config\.json|processor_config\.json|"
    r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
)
_RUN_FILES = (CARD, "run.json", "metrics.json", "history.csv", LICENSE, NOTICE)
_FIGURE = (".png", ".svg")
_TEXT = (".md", ".json", ".csv", ".txt", ".svg", "")


@dataclass(frozen=True)
class PublishedFile:
    """One file as it goes to the Hub."""

    name: str
    """Its name there."""
    path: Path
    size: int
    sha256: str
    git_oid: str


def collect_files(
    run: Path, report: Mapping[str, Any], verdict: LicenseVerdict | None, scratch: Path, widget: Iterable[Path] = ()
) -> tuple[PublishedFile, ...]:
    """Collects what is published of a run.

    Args:
        run (`Path`):
            The folder of a finished run.
        report (`Mapping`):
            Its `run.json`.
        verdict (`LicenseVerdict`, *optional*):
            Whose licence texts go along.
        scratch (`Path`):
            An empty folder for files that are made for this.
        widget (`Iterable[Path]`, *optional*):
            Test pictures that go along.

    Returns:
        `tuple[PublishedFile, ...]`: by name.

    Raises:
        UserError: where the model's folder holds something that is never published, or a file holds a token.
    """
    found = _model_files(run / "model")
    for name in (*_RUN_FILES, *_figures(run, report), *_below(run, LICENSES)):
        if (run / name).is_file():
            found[name] = run / name
    write_json(without_local_places(report, run), scratch / "run.json")
    found["run.json"] = scratch / "run.json"
    found |= _license_texts(verdict, scratch, found)
    found |= {f"{WIDGET}/{path.name}": path for path in widget}
    _check_links(run, found)
    for name, path in found.items():
        _check_text(name, path)
    return tuple(describe(name, found[name]) for name in sorted(found))


def is_left_over(name: str) -> bool:
    """Tells whether a file that this push does not have was surely put there by an earlier one.

    A card, a licence or a picture at the top may as well have been written on the Hub, by hand.
    """
    in_our_folders = "/" in name and name.split("/")[0] in (LICENSES, FIGURES, WIDGET)
    return in_our_folders or bool(_MODEL_FILES.fullmatch(name))


def is_weights(name: str) -> bool:
    """Tells whether a file at the top of a repository would be taken for the model's weights."""
    endings = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".index.json")
    return "/" not in name and name.endswith(endings)


def _model_files(folder: Path) -> dict[str, Path]:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) if folder.is_dir() else []
    foreign = [name for name in names if not _MODEL_FILES.fullmatch(name)]
    if foreign:
        raise UserError(
            f"{folder} holds what is never published: {', '.join(foreign[:5])}{' and more' if foreign[5:] else ''}.",
            "config.json, preprocessor_config.json and weights as model*.safetensors",
            "move it elsewhere, and push again",
        )
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise UserError(f"{folder} holds no saved model.", hint="the folder of a finished run")
    return {name: folder / name for name in names}


def _figures(run: Path, report: Mapping[str, Any]) -> list[str]:
    named = [str(name) for name in (report.get("outputs") or {}).values() if str(name).endswith(_FIGURE)]
    return [*named, *(name for name in _below(run, FIGURES) if name.endswith(_FIGURE))]


def _below(run: Path, folder: str) -> list[str]:
    return sorted(path.relative_to(run).as_posix() for path in (run / folder).rglob("*") if path.is_file())


def _license_texts(verdict: LicenseVerdict | None, scratch: Path, found: Mapping[str, Path]) -> dict[str, Path]:
    """Writes the texts that the verdict asks for, where the run's folder does not hold all of them already."""
    wanted = verdict.outgoing.files if verdict is not None and verdict.outgoing is not None else ()
    if verdict is None or not wanted or set(wanted) <= found.keys():
        return {}
    folder = scratch / "texts"
    folder.mkdir()
    return {name: folder / name for name in write_license_files(verdict, folder)}


def _check_links(run: Path, found: Mapping[str, Path]) -> None:
    """Refuses a card that shows a picture which does not go along."""
    if CARD not in found:
        return
    text = found[CARD].read_text(encoding="utf-8")
    shown = [link.split("#")[0] for link in re.findall(r"!\[[^\]]*\]\(<?([^)\s>]+)", text)]
    missing = [link for link in shown if "://" not in link and not link.startswith("data:") and link not in found]
    if missing:
        raise UserError(
            f"The card {run / CARD} shows {missing[0]!r}, which is not among the files that are published.",
            hint="render the card anew, or take the picture out of it",
        )


def _check_text(name: str, path: Path) -> None:
    if PurePosixPath(name).suffix not in _TEXT or path.stat().st_size > 50_000_000:
        return
    if TOKEN.search(path.read_text(encoding="utf-8", errors="replace")):
        raise UserError(f"{name} holds what looks like a Hub token, so nothing is published.", hint=f"mend {path}")


def describe(name: str, path: Path) -> PublishedFile:
    """Returns a file with its size and hashes."""
    size = path.stat().st_size
    sha256, git = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            git.update(block)
    return PublishedFile(name, path, size, sha256.hexdigest(), git.hexdigest())
