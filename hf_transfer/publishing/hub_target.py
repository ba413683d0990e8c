"""The repository that a push goes to: made, looked at, and changed by one commit.

Knows the order of the Hub's calls and that every attempt begins with a look: whether the commit of the attempt before
has landed after all, whether somebody else has committed since. All files go in one commit on top of what was seen
(`parent_commit`), so a branch holds all of them or none. Does not know what the files are.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id

from hf_transfer import __version__
from hf_transfer.errors import UserError
from hf_transfer.publishing.publish_folder import CARD, PublishedFile, is_left_over, is_weights
from hf_transfer.publishing.push_access import check_namespace
from hf_transfer.publishing.push_patience import (
    FAILURES,
    TRIES,
    impatient_client,
    is_too_late,
    patiently,
    pause,
    trouble_of,
    worded,
)
from hf_transfer.publishing.push_request import PushRequest

MAIN = "main"
_OPEN_PULLS = 20


@dataclass(frozen=True)
class Published:
    """The commit that holds all files."""

    commit: str
    url: str
    already_there: bool
    """Whether it was there before this push."""
    pull_request: str | None = None
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Look:
    """What a branch holds, and what is missing to make it hold everything."""

    head: str
    add: tuple[PublishedFile, ...]
    remove: tuple[str, ...]
    """What an earlier push put there and this one has no more."""
    others: tuple[str, ...]
    """What somebody else put there; it stays."""

    @property
    def is_complete(self) -> bool:
        return not self.add and not self.remove


class HubTarget:
    """One repository as the target of one push."""

    def __init__(self, request: PushRequest, repo_id: str):
        self.api = HfApi(token=request.token)
        self.request = request
        self.repo_id = repo_id
        self.branch = request.branch or MAIN

    def prepare(self) -> bool:
        """Makes the repository where it is missing, and makes sure that it may be written to.

        Returns:
            `bool`: whether it is private.

        Raises:
            UserError: without write access, or where it is public and nobody said that this is meant.
        """
        if not self._may_write():
            check_namespace(self.api, self.repo_id)
            private = self.request.private is not False
            patiently(
                "making the repository", lambda: self.api.create_repo(self.repo_id, private=private, exist_ok=True)
            )
            # A token that only reads passes `create_repo(exist_ok=True)` where the repository exists.
            patiently("asking for write access", lambda: self.api.auth_check(self.repo_id, write=True))
        info = patiently("looking at the repository", lambda: self.api.model_info(self.repo_id))
        if not info.private and self.request.private is not False:
            raise UserError(
                f"The repository {self.repo_id} is public: everybody would see the model.",
                "a private repository, unless you say otherwise",
                "--public if that is meant, or another --repo-id",
            )
        if self.branch != MAIN:
            patiently(
                f"making the branch {self.branch}",
                lambda: self.api.create_branch(self.repo_id, branch=self.branch, exist_ok=True),
            )
        return bool(info.private)

    def publish(self, files: Sequence[PublishedFile]) -> Published:
        """Makes one commit that adds what is missing, unless everything is there.

        Raises:
            UserError: where that is not possible; the branch is as it was, or holds everything.
        """
        start = time.monotonic()
        for number in range(1, TRIES + 1):
            found = self._find(files)
            if isinstance(found, Published):
                return found
            try:
                with impatient_client():
                    return self._commit(found)
            except FAILURES as error:
                trouble = trouble_of(error)
                # Whatever the answer said: perhaps the commit stands, and only its answer was lost.
                landed = self._find(files)
                if isinstance(landed, Published):
                    return replace(landed, already_there=False, removed=found.remove)
                if not trouble.passing or number == TRIES or is_too_late(start):
                    raise worded("committing the files", trouble, number) from error
                pause("committing the files", trouble, number)
        raise AssertionError("the last try either returns or raises")

    def tag(self, name: str, commit: str) -> None:
        """Gives the commit a tag.

        Raises:
            UserError: where another commit has this tag.
        """
        patiently("tagging", lambda: self.api.create_tag(self.repo_id, tag=name, revision=commit, exist_ok=True))
        tags = patiently("looking at the tags", lambda: self.api.list_repo_refs(self.repo_id)).tags
        holders = [tag.target_commit for tag in tags if tag.name == name]
        if holders != [commit]:
            raise UserError(
                f"The tag {name} names another commit of {self.repo_id}.", "a tag of its own", "another --tag"
            )

    def collect(self, collection: str, private: bool) -> str:
        """Adds the repository to a collection, which is made where only a title was given.

        Returns:
            `str`: its slug.
        """
        slug = collection
        if "/" not in collection:
            owner = self.repo_id.split("/")[0]
            slug = patiently(
                "making the collection",
                lambda: self.api.create_collection(collection, namespace=owner, private=private, exists_ok=True),
            ).slug
        patiently(
            "adding to the collection",
            lambda: self.api.add_collection_item(slug, self.repo_id, "model", exists_ok=True),
        )
        return slug

    def _may_write(self) -> bool:
        """Returns whether the repository exists; raises where it does and may not be written to."""

        def ask() -> bool:
            try:
                self.api.auth_check(self.repo_id, write=True)
            except RepositoryNotFoundError as error:
                if error.response.status_code == 404:
                    return False
                raise
            return True

        return patiently("asking for write access", ask)

    def _find(self, files: Sequence[PublishedFile]) -> "_Look | Published":
        look = self._look(self.branch, files)
        if look.is_complete:
            return Published(look.head, self._url(look.head), True)
        self._refuse_other_weights(look)
        if self.request.create_pr:
            return self._find_pull(files) or look
        return look

    def _find_pull(self, files: Sequence[PublishedFile]) -> Published | None:
        """Returns an open pull request that holds everything already."""
        pulls = patiently(
            "looking at pull requests",
            lambda: list(
                self.api.get_repo_discussions(self.repo_id, discussion_type="pull_request", discussion_status="open")
            ),
        )
        for pull in pulls[:_OPEN_PULLS]:
            look = self._look(pull.git_reference, files)
            if look.is_complete:
                return Published(look.head, self._url(look.head), True, pull.url)
        return None

    def _look(self, revision: str | None, files: Sequence[PublishedFile]) -> _Look:
        def ask() -> tuple[str, dict[str, str]]:
            head = self.api.model_info(self.repo_id, revision=revision).sha or ""
            tree = self.api.list_repo_tree(self.repo_id, revision=head, recursive=True)
            # Large files by the SHA-256 of their content, all others by git's name for it.
            files = [item for item in tree if isinstance(item, RepoFile)]
            return head, {item.path: item.lfs.sha256 if item.lfs else item.blob_id for item in files}

        try:
            head, there = patiently("looking at the repository", ask)
        except UserError as error:
            if isinstance(error.__cause__, RevisionNotFoundError):
                raise UserError(f"{self.repo_id} has no branch {revision!r}.", hint="another --branch") from error
            raise
        add = tuple(file for file in files if there.get(file.name) not in (file.sha256, file.git_oid))
        others = there.keys() - {file.name for file in files}
        left = {name for name in others if "run.json" in there and is_left_over(name)}
        return _Look(head, add, tuple(sorted(left)), tuple(sorted(others - left)))

    def _refuse_other_weights(self, look: _Look) -> None:
        """Refuses to put weights beside those of somebody else: users would load now one and now the other."""
        foreign = [name for name in look.others if is_weights(name)]
        if foreign:
            raise UserError(
                f"{self.repo_id} holds weights that this run did not make: {', '.join(foreign[:3])}.",
                "a repository for this model alone",
                "another --repo-id or --branch, or delete these files on the Hub first",
            )

    def _commit(self, look: _Look) -> Published:
        # The card last: its metadata are checked before anything is uploaded, wherever it stands.
        ordered = sorted(look.add, key=lambda file: (file.name == CARD, file.name))
        adding = [CommitOperationAdd(file.name, file.path) for file in ordered]
        deleting = [CommitOperationDelete(name) for name in look.remove]
        made = self.api.create_commit(
            self.repo_id,
            [*adding, *deleting],
            commit_message=f"Fine-tuned model, by hf_transfer {__version__}",
            revision=self.branch,
            parent_commit=look.head,
            create_pr=self.request.create_pr,
        )
        return Published(made.oid, self._url(made.oid), False, made.pr_url, look.remove)

    def _url(self, commit: str) -> str:
        return f"{constants.ENDPOINT}/{self.repo_id}/commit/{commit}"


def full_repo_id(repo_id: str, token: str | None) -> str:
    """Returns `owner/name`; a name alone is under the token's own user.

    Raises:
        UserError: for what is no Hub id.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(
            f"--repo-id {repo_id!r} is no Hub id.",
            "owner/name, of letters, digits, `-`, `_` and `.`",
            "--repo-id my-name/my-model",
        ) from error
    if "/" in repo_id:
        return repo_id
    owner = patiently("asking who you are", lambda: HfApi(token=token).whoami())["name"]
    return f"{owner}/{repo_id}"
