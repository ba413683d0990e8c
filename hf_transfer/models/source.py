"""Where a checkpoint's files come from: a local folder, the Hub (pinned to one commit), or the package itself.

Knows paths, Hub ids, the Hub's cache, and which files a checkpoint consists of. Does not know what is in them; how the
Hub refuses is worded in `hf_transfer.hub_errors`.
"""

import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import CachedRepoTreeNotFoundError, HTTPError, RevisionResolutionError
from huggingface_hub.utils import HFValidationError, validate_repo_id

from hf_transfer.errors import UserError
from hf_transfer.hub_errors import hub_error

QUICKSTART = "quickstart"

SMALL_FILES = ("config.json", "preprocessor_config.json", "processor_config.json")
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
SHARDS = "model-*-of-*.safetensors"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
OTHER_FRAMEWORK_SUFFIXES = (".h5", ".msgpack", ".onnx", ".tflite")


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one checkpoint, on this disk."""

    source: str
    """What the user gave."""
    folder: Path
    revision: str | None
    """The commit on the Hub; `None` for a local folder."""
    weight_files: tuple[Path, ...]
    """In the order of their names; empty where the weights were not asked for."""

    def read_config(self) -> dict:
        """Returns `config.json` as it stands."""
        path = self.folder / "config.json"
        if not path.is_file():
            raise UserError(
                f"{self.source!r} holds no config.json, so it is no checkpoint.",
                "a checkpoint saved by transformers (`save_pretrained`) or timm (`save_for_hf`)",
            )
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"The config.json of {self.source!r} is damaged: {error}") from error
        if not isinstance(config, dict):
            raise UserError(f"The config.json of {self.source!r} is no JSON object.")
        return config


def find_files(model: str, revision: str | None = None, *, with_weights: bool = True) -> CheckpointFiles:
    """Finds a checkpoint's files, and downloads them where they are not here yet.

    Args:
        model (`str`):
            Hub id, local folder, or `quickstart`.
        revision (`str`, *optional*):
            Branch, tag or commit on the Hub.
        with_weights (`bool`, *optional*, defaults to `True`):
            Whether the weights are needed, or configuration and image processor will do.

    Returns:
        [`CheckpointFiles`]: the folder, and the commit that it is.

    Raises:
        [`~hf_transfer.errors.UserError`]: where there is no such checkpoint, or none in safetensors.
    """
    folder = local_folder(model)
    if folder is None:
        folder, commit, names = _download(model, revision, with_weights)
    else:
        if revision is not None:
            raise UserError(
                f"--model_revision {revision} was given, but {model!r} is a local folder.",
                "--model_revision with a Hub id",
                "drop --model_revision",
            )
        commit, names = None, [path.name for path in folder.iterdir()]
    weight_files = _weight_files(model, folder, names) if with_weights else ()
    return CheckpointFiles(model, folder, commit, weight_files)


def local_folder(model: str) -> Path | None:
    """Returns the folder that `model` names, or `None` where it can only be a Hub id."""
    if model == QUICKSTART:
        return Path(str(resources.files("hf_transfer.models") / QUICKSTART))
    path = Path(model).expanduser()
    if model and path.is_dir():
        return path
    if path.is_file():
        raise UserError(f"--model {model} is a file.", "a folder or a Hub id", f"--model {path.parent}")
    if not model or model.startswith(("/", ".", "~", "\\")) or model.endswith("/") or model.count("/") > 1:
        raise UserError(f"--model {model}: there is no such folder.", "a Hub id (owner/name), or a folder that exists")
    return None


def check_hub_id(model: str) -> None:
    """Refuses what can be no Hub id."""
    if re.match(r"hf[-_]hub:", model):
        raise UserError(f"--model {model} is timm's way to write a Hub id.", hint=f"--model {model.split(':', 1)[1]}")
    try:
        validate_repo_id(model)
    except HFValidationError as error:
        raise UserError(
            f"--model {model} is neither a folder nor a Hub id.", "a folder that exists, or a Hub id (owner/name)"
        ) from error


def _download(model: str, revision: str | None, with_weights: bool) -> tuple[Path, str, list[str]]:
    """Downloads a checkpoint from the Hub, everything from one commit.

    Returns:
        `tuple[Path, str, list[str]]`: the folder in the cache, the commit, and the names of all files at the root.
    """
    check_hub_id(model)
    wanted = [*SMALL_FILES, WEIGHTS, WEIGHTS_INDEX, SHARDS] if with_weights else [*SMALL_FILES]
    try:
        resolved = huggingface_hub.HfApi().resolve_revision(model, revision=revision)
        folder = Path(huggingface_hub.snapshot_download(model, revision=resolved, allow_patterns=wanted))
    except (OSError, HTTPError, RevisionResolutionError) as error:
        raise hub_error(error, model, revision) from error
    return folder, resolved.resolved, _file_names(model, resolved.resolved, folder)


def _file_names(model: str, commit: str, folder: Path) -> list[str]:
    """Returns the names of the files at the root of the commit, downloaded or not."""
    try:
        return [file.path for file in huggingface_hub.get_cached_repo_tree(model, revision=commit)]
    except CachedRepoTreeNotFoundError:  # offline, and the cache was filled by another library, file by file
        return [path.name for path in folder.iterdir()]


def _weight_files(source: str, folder: Path, names: list[str]) -> tuple[Path, ...]:
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if (folder / WEIGHTS_INDEX).is_file():
        index = json.loads((folder / WEIGHTS_INDEX).read_text(encoding="utf-8"))
        shards = tuple(folder / name for name in sorted(set(index["weight_map"].values())))
        missing = [shard.name for shard in shards if not shard.is_file()]
        if missing:
            raise UserError(f"{source!r} lacks {len(missing)} of its weight files: {', '.join(missing[:3])}.")
        return shards
    root = [name for name in names if "/" not in name]
    pickles = [name for name in root if name.endswith(PICKLE_SUFFIXES)]
    if pickles:
        raise UserError(
            f"{source!r} holds its weights only as pickle ({pickles[0]}), which can run code when it is opened.",
            f"safetensors ({WEIGHTS})",
            "convert it once: the Hub's space huggingface.co/spaces/safetensors/convert opens a pull request, then "
            "--model_revision refs/pr/NUMBER; or, if you trust the file, load it with "
            "`AutoModelForImageClassification.from_pretrained(...)` and `save_pretrained` it to a folder",
        )
    other = [name for name in root if name.endswith((*OTHER_FRAMEWORK_SUFFIXES, ".safetensors"))]
    found = f" (found {', '.join(other[:3])})" if other else ""
    raise UserError(f"{source!r} holds no weights that can be read here{found}.", f"safetensors ({WEIGHTS})")
