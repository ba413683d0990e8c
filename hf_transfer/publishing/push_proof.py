"""The proof of a push: the commit is downloaded afresh, compared, loaded without this package and asked.

Knows what has to be the same: the hash of every file, the labels, and the scores on pictures, with those of the model
in the run's folder. Does not know how the commit came about.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import snapshot_download
from PIL import Image

from hf_transfer.publishing.lone_process import lone_environment
from hf_transfer.publishing.publish_folder import PublishedFile
from hf_transfer.publishing.push_patience import PushFailure, patiently

TOLERANCE = 1e-5
"""Of logits: the same bytes on the same machine, summed in perhaps another order."""
_SECONDS = 900
_RELOAD = Path(__file__).with_name("reload_alone.py")


@dataclass(frozen=True)
class Proof:
    """What was downloaded, compared and found to be the same."""

    commit: str
    files: int
    pictures: int
    picture_source: str
    """Where the pictures came from."""
    largest_difference: float
    """Of any logit."""
    predicted: tuple[str, ...]
    """The label of each picture, by the downloaded model."""
    transformers: str


def prove(
    repo_id: str,
    commit: str,
    files: Sequence[PublishedFile],
    model: Path,
    pictures: Sequence[Path],
    picture_source: str,
    token: str | None,
) -> dict[str, Any]:
    """Downloads a commit into a cache of its own and compares it with what was meant to be published.

    Args:
        repo_id (`str`):
            The repository.
        commit (`str`):
            What to download.
        files (`Sequence[PublishedFile]`):
            What it has to hold.
        model (`Path`):
            The model's folder on this disk.
        pictures (`Sequence[Path]`):
            What both models are shown; pictures of noise where there are none.
        picture_source (`str`):
            In words, where they come from.
        token (`str`, *optional*):
            In place of the one that the machine is logged in with.

    Returns:
        `dict[str, Any]`: the fields of [`Proof`].

    Raises:
        PushFailure: if anything differs, or the download fails.
    """
    with tempfile.TemporaryDirectory(prefix="hf-transfer-proof-") as name:
        cache = Path(name) / "cache"
        folder = patiently(
            "downloading the commit",
            lambda: Path(
                snapshot_download(
                    repo_id,
                    revision=commit,
                    cache_dir=cache,
                    token=token,
                    allow_patterns=[_literally(file.name) for file in files],
                )
            ),
        )
        _compare_files(repo_id, folder, files)
        shown = list(pictures) or _noise(Path(name))
        answer = _ask_both(
            {
                "published": {"pretrained_model_name_or_path": repo_id, "revision": commit, "cache_dir": str(cache)},
                "local": {"pretrained_model_name_or_path": str(model.absolute())},
            },
            shown,
            Path(name),
        )
        source = picture_source if pictures else "noise, since no test picture may leave this machine or be found"
        return asdict(_compare_answers(repo_id, commit, len(files), source, answer))


def _literally(name: str) -> str:
    """Returns the pattern that matches this name alone."""
    return name.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")


def _compare_files(repo_id: str, folder: Path, files: Sequence[PublishedFile]) -> None:
    for file in files:
        path = folder / file.name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256:
            raise PushFailure(
                f"{file.name} of {repo_id}, downloaded afresh, is not what was pushed.",
                hint="delete it on the Hub, and push again",
            )


def _noise(folder: Path) -> list[Path]:
    """Writes pictures that nobody minds, for models whose test pictures are not at hand."""
    generator = np.random.default_rng(0)
    paths = []
    for number in range(3):
        paths.append(folder / f"noise-{number}.png")
        Image.fromarray(generator.integers(0, 256, (240, 320, 3), dtype=np.uint8)).save(paths[-1])
    return paths


def _ask_both(models: dict[str, dict[str, str]], pictures: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Loads both models in a new process that knows nothing of this package and reaches no network."""
    task = folder / "task.json"
    task.write_text(json.dumps({"models": models, "pictures": [str(path) for path in pictures]}), encoding="utf-8")
    command = [sys.executable, "-P", str(_RELOAD), str(task)]
    try:
        result = subprocess.run(
            command,
            env=lone_environment(str(folder)),
            cwd=folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PushFailure(f"Loading the published model took more than {_SECONDS} seconds.") from error
    if result.returncode != 0:
        last = result.stderr.strip().splitlines()[-1:] or ["no message"]
        raise PushFailure(
            f"The published model could not be loaded by transformers alone: {last[0][:300]}",
            hint="the run's own folder is as it was; look at the model with `hf-transfer predict`",
        )
    return json.loads(task.read_text(encoding="utf-8"))


def _compare_answers(repo_id: str, commit: str, files: int, source: str, answer: dict[str, Any]) -> Proof:
    published, local = answer["answers"]["published"], answer["answers"]["local"]
    ours, theirs = np.array(local["logits"]), np.array(published["logits"])
    difference = float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else float("inf")
    if published["labels"] != local["labels"] or not difference <= TOLERANCE:
        raise PushFailure(
            f"{repo_id} at {commit[:8]}, downloaded afresh, does not answer as the model in the run's folder does.",
            hint="do not use what is published; push again, and report this with push.json",
        )
    return Proof(
        commit=commit,
        files=files,
        pictures=len(ours),
        picture_source=source,
        largest_difference=difference,
        predicted=tuple(published["labels"][index] for index in theirs.argmax(axis=1)),
        transformers=answer["transformers"],
    )
