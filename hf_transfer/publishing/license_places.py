"""Where a work's card and licence files are fetched from: the Hub at one commit, its cache, or this disk.

Knows the Hub's calls and how each can fail. Does not know what the files say
(`hf_transfer.publishing.license_sources`). A work that cannot be read is returned as such, with the reason: only what
the user has surely mistyped is an error.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import CardData, HfApi, hf_hub_download, is_offline_mode, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from hf_transfer.data.archives import is_archive, unpack
from hf_transfer.errors import UserError
from hf_transfer.hub_errors import hub_error
from hf_transfer.publishing.license_sources import (
    CARD,
    CONFIG,
    LARGEST_TEXT,
    Work,
    describe,
    is_license_file,
    is_notice_file,
    timm_statements,
)

_SECONDS = 10.0
# ValueError is what a page that is no JSON becomes, such as that of a proxy.
_UNREACHABLE = (HfHubHTTPError, HTTPError, OSError, ValueError, RevisionResolutionError)
_SURELY_ABSENT = (RepositoryNotFoundError, RevisionNotFoundError)


def read_hub_work(repo_id: str, revision: str | None, role: str) -> Work:
    """Reads what a repository of the Hub says about its licence, everything from one commit.

    Without a network, or where the Hub does not answer, what the cache holds is read. A gated repository is read as
    far as the Hub shows it: its metadata.

    Args:
        repo_id (`str`):
            The Hub id.
        revision (`str`, *optional*):
            Branch, tag or commit.
        role (`str`):
            `model`, `base model` or `dataset`.

    Returns:
        `Work`: with `problem` set where something could not be read.

    Raises:
        UserError: where the user's own model or data set, or its revision, does not exist.
    """
    kind = "dataset" if role == "dataset" else "model"
    if is_offline_mode():
        return _from_cache(repo_id, revision, role, "HF_HUB_OFFLINE forbids the network")
    try:
        # Resolving writes down which commit the revision is, so that the cache can answer without a network later.
        commit = HfApi().resolve_revision(repo_id, repo_type=kind, revision=revision).resolved
        ask = HfApi().dataset_info if role == "dataset" else HfApi().model_info
        info: Any = ask(repo_id, revision=commit, timeout=_SECONDS, files_metadata=True)
    except _UNREACHABLE as error:
        if not isinstance(error, _SURELY_ABSENT):
            return _from_cache(repo_id, revision, role, f"the Hub did not answer ({type(error).__name__})")
        if role == "base model":
            return Work(repo_id, role, revision, problem="the Hub shows no such repository")
        raise hub_error(error, repo_id, revision, is_dataset=role == "dataset") from error
    folder, missed = _fetch(repo_id, kind, commit, _wanted(info.siblings or ()))
    card = info.card_data.to_dict() if isinstance(info.card_data, CardData) else None
    problem = f"could not be downloaded: {', '.join(missed)}" if missed else None
    return describe(repo_id, role, folder, revision=commit, card=card, problem=problem)


def local_folder_of(work: str, role: str) -> Path | None:
    """Returns the folder on this disk that a work's files are in; `None` for a Hub id."""
    from hf_transfer.models.source import local_folder

    if role != "dataset":
        return local_folder(work)
    path = Path(work).expanduser()
    if path.is_file() and is_archive(path):
        path = unpack(path)
    if not path.is_dir():
        return None
    while not (path / CARD).is_file() and not any(is_license_file(child.name) for child in path.iterdir()):
        # Archives often hold one folder that holds everything.
        children = [child for child in path.iterdir() if not child.name.startswith(".")]
        if len(children) != 1 or not children[0].is_dir():
            return path
        path = children[0]
    return path


def fetch_file(work: str, role: str, revision: str | None, name: str) -> Path:
    """Returns a file of a work on this disk, downloaded where it is not here yet.

    Raises:
        UserError: where it cannot be had.
    """
    folder = local_folder_of(work, role)
    if folder is not None:
        return folder / name
    kind = "dataset" if role == "dataset" else "model"
    try:
        return Path(hf_hub_download(work, name, repo_type=kind, revision=revision))
    except _UNREACHABLE as error:
        raise hub_error(error, work, revision, is_dataset=role == "dataset") from error


def _wanted(siblings: Iterable[Any]) -> list[str]:
    """Returns the names of the small files at the root that say something about the licence."""
    return [
        file.rfilename
        for file in siblings
        if (file.size or 0) <= LARGEST_TEXT
        and (file.rfilename in (CARD, CONFIG) or is_license_file(file.rfilename) or is_notice_file(file.rfilename))
    ]


def _fetch(repo_id: str, kind: str, commit: str, names: Iterable[str]) -> tuple[Path | None, list[str]]:
    folder, missed = None, []
    for name in names:
        if kind == "dataset" and name == CONFIG:
            continue
        try:
            folder = Path(hf_hub_download(repo_id, name, repo_type=kind, revision=commit)).parent
        except GatedRepoError:
            missed.append(f"{name} (gated)")
        except _UNREACHABLE as error:
            missed.append(f"{name} ({type(error).__name__})")
    return folder, missed


def _from_cache(repo_id: str, revision: str | None, role: str, reason: str) -> Work:
    kind = "dataset" if role == "dataset" else "model"
    try:
        commit = HfApi().resolve_revision(repo_id, repo_type=kind, revision=revision, local_files_only=True).resolved
        folder = Path(
            snapshot_download(
                repo_id, repo_type=kind, revision=commit, local_files_only=True, allow_patterns=[CARD, CONFIG]
            )
        )
    except (*_UNREACHABLE, UserError):
        problem = f"{reason}, and nothing of it is in the cache"
        statements = () if role == "dataset" else tuple(timm_statements(repo_id))
        return Work(repo_id, role, revision, statements, problem=problem)
    return describe(repo_id, role, folder, revision=commit, problem=f"{reason}: only what is in the cache was read")
