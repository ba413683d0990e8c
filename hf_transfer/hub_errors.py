"""One clear message for each way in which the Hub withholds a checkpoint or a data set.

Knows the exceptions of huggingface_hub and what the user can do about each. Does not know which files were asked for.
A message never repeats the server's words or headers: they may hold a token.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from huggingface_hub import constants, get_token, is_offline_mode
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_transfer.errors import UserError


@dataclass(frozen=True)
class Wanted:
    """What was asked for, and the words for it."""

    repo_id: str
    revision: str | None
    noun: str
    flag: str

    @property
    def page(self) -> str:
        """The address of its page."""
        return f"{constants.ENDPOINT}/{'datasets/' if self.noun == 'data set' else ''}{self.repo_id}"


def hub_error(error: Exception, repo_id: str, revision: str | None, *, is_dataset: bool = False) -> UserError:
    """Words a failed access to the Hub.

    Args:
        error (`Exception`):
            What huggingface_hub raised; its causes are looked at too.
        repo_id (`str`):
            The repository asked for.
        revision (`str`, *optional*):
            The branch, tag or commit asked for.
        is_dataset (`bool`, *optional*, defaults to `False`):
            Whether it is a data set rather than a model.

    Returns:
        [`~hf_transfer.errors.UserError`]: to be raised by the caller.
    """
    wanted = Wanted(repo_id, revision, *(("data set", "--dataset") if is_dataset else ("model", "--model")))
    for cause in _with_causes(error):
        if isinstance(cause, GatedRepoError):
            return _gated(wanted)
        if isinstance(cause, DisabledRepoError):
            return UserError(
                f"The Hub has disabled {repo_id!r}.", hint=f"see {wanted.page}, or choose another {wanted.noun}"
            )
        if isinstance(cause, RevisionNotFoundError):
            return UserError(
                f"{repo_id!r} has no revision {revision!r}.",
                f"a branch, tag or commit that is listed at {wanted.page}/commits",
                f"correct {wanted.flag}_revision, or drop it to get the default branch",
            )
        if isinstance(cause, RepositoryNotFoundError):
            return _not_found(wanted, cause)
        if isinstance(cause, HfHubHTTPError):
            return _refused(wanted, cause.response.status_code)
        if isinstance(cause, OfflineModeIsEnabled):
            return _offline(wanted)
    if is_offline_mode():
        return _offline(wanted)
    return UserError(
        f"The Hub cannot be reached for {repo_id!r} ({type(error).__name__}), and it is not complete in "
        "the local cache.",
        hint=f"check the network, then run the same command again; or give {wanted.flag} a local folder",
    )


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _gated(wanted: Wanted) -> UserError:
    if get_token() is None:
        return UserError(
            f"{wanted.repo_id!r} is gated, and you are not logged in.",
            "an account that has accepted its terms",
            f"`hf auth login`, then accept the terms at {wanted.page}",
        )
    return UserError(
        f"{wanted.repo_id!r} is gated, and your account is not (yet) on its list.",
        "an account that has accepted its terms",
        f"accept the terms at {wanted.page}, wait until access is granted, then run the same command again",
    )


def _not_found(wanted: Wanted, error: HfHubHTTPError) -> UserError:
    if get_token() is None:
        return UserError(
            f"The Hub shows no {wanted.noun} {wanted.repo_id!r}: it does not exist, or it is private and you are not "
            "logged in.",
            "a Hub id (owner/name) that you can open in the browser, or a local folder",
            f"check the spelling; for a private {wanted.noun} `hf auth login`",
        )
    if error.response.status_code == 401:
        return UserError(
            f"The Hub did not accept your token when asked for {wanted.repo_id!r}.",
            f"a valid token, or none for a public {wanted.noun}",
            "`hf auth login` with a new token, or `hf auth logout`; and look whether HF_TOKEN is set",
        )
    return UserError(
        f"The Hub shows no {wanted.noun} {wanted.repo_id!r}: it does not exist, or it is private and your token may "
        "not read it.",
        "a Hub id (owner/name) that you can open in the browser, or a local folder",
        f"check the spelling; for a private {wanted.noun} `hf auth login` with a token that may read it",
    )


def _refused(wanted: Wanted, status: int) -> UserError:
    if status == 401:
        return UserError(
            f"The Hub did not accept your token when asked for {wanted.repo_id!r}.",
            f"a valid token, or none for a public {wanted.noun}",
            "`hf auth login` with a new token, or `hf auth logout`; and look whether HF_TOKEN is set",
        )
    if status == 403:
        return UserError(
            f"Your token may not read {wanted.repo_id!r}.",
            "a token with read access to it",
            "`hf auth login` with a token that has the right (huggingface.co/settings/tokens)",
        )
    if status == 429:
        return UserError(
            f"The Hub limits how often it may be asked (429), and refused {wanted.repo_id!r} for now.",
            hint="wait a few minutes and run the same command again; `hf auth login` raises the limit",
        )
    return UserError(
        f"The Hub answered with error {status} when asked for {wanted.repo_id!r}.",
        hint=f"wait a few minutes and run the same command again, or give {wanted.flag} a local folder",
    )


def _offline(wanted: Wanted) -> UserError:
    at = f" --revision {wanted.revision}" if wanted.revision else ""
    of_revision = f" at {wanted.revision!r}" if wanted.revision else ""
    kind = " --repo-type dataset" if wanted.noun == "data set" else ""
    return UserError(
        f"{wanted.repo_id!r}{of_revision} is not complete in the local cache, and HF_HUB_OFFLINE forbids the network.",
        "offline, only what was downloaded before",
        f"with a network: `hf download {wanted.repo_id}{kind}{at}`; or unset HF_HUB_OFFLINE; or give {wanted.flag} a "
        "local folder",
    )
