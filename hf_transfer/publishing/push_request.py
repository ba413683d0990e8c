"""What a push was asked to do, what it remembers in `push.json`, and the command that takes it up again.

Knows the options of a push and their state in the run's folder. Does not talk to the Hub, and never writes a token.
"""

import json
import shlex
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hf_transfer.errors import UserError
from hf_transfer.report import write_json

STATE = "push.json"
_REMEMBERED = ("repo_id", "private", "create_pr", "branch", "tag", "collection", "widget_images")


@dataclass(frozen=True, kw_only=True)
class PushRequest:
    """One push as the user described it."""

    run: Path
    repo_id: str
    """`owner/name`, or a name alone under the token's own user."""
    private: bool | None = None
    """Whether a new repository is private; `None` makes it private, and asks before an existing public one is used."""
    create_pr: bool = False
    branch: str | None = None
    tag: str | None = None
    collection: str | None = None
    """Title or slug (`owner/name-id`)."""
    widget_images: bool = True
    token: str | None = field(default=None, repr=False)
    """In place of the one that the machine is logged in with; never kept."""

    @property
    def command(self) -> str:
        """The command that does the same, or what is left of it."""
        words = ["hf-transfer", "push", str(self.run), "--repo-id", self.repo_id]
        words += {True: ["--private"], False: ["--public"], None: []}[self.private]
        words += ["--create_pr"] if self.create_pr else []
        for flag, value in (("--branch", self.branch), ("--tag", self.tag), ("--collection", self.collection)):
            words += [flag, value] if value else []
        words += [] if self.widget_images else ["--no_widget_images"]
        return shlex.join(words)


@dataclass
class PushState:
    """How far a push has come, as `push.json` holds it."""

    request: dict[str, Any] = field(default_factory=dict)
    status: str = "begun"
    """`begun`, `published` (the commit stands), `proven` (it was downloaded and compared), `done`, or `failed`."""
    commit: str | None = None
    commit_url: str | None = None
    private: bool | None = None
    """Whether the repository is private, as the Hub says."""
    pull_request: str | None = None
    already_there: bool = False
    """Whether the Hub held everything before."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every published file, by its name on the Hub."""
    removed: tuple[str, ...] = ()
    """Files of an earlier push that this one has no more."""
    proof: dict[str, Any] | None = None
    tag: str | None = None
    collection: str | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None
    """Why the last attempt ended, in our own words."""
    finish: str | None = None
    """The command that does what is left."""

    def write(self, run: Path) -> None:
        """Writes `push.json`; a reader finds either the old one or the whole new one."""
        write_json(asdict(self), run / STATE)

    def new_attempt(self, request: PushRequest) -> "PushState":
        """Returns the state at the beginning of another attempt at the same request; of a new one if it differs."""
        asked = {name: getattr(request, name) for name in _REMEMBERED}
        if asked != self.request:
            return PushState(request=asked)
        return replace(self, status="begun", error=None, finish=None, notes=())


def read_state(run: Path) -> PushState:
    """Reads what an earlier push left; an empty state where there was none.

    Raises:
        UserError: where `push.json` is damaged.
    """
    path = run / STATE
    if not path.is_file():
        return PushState()
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return PushState(**{**facts, "removed": tuple(facts["removed"]), "notes": tuple(facts["notes"])})
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__}", hint=f"delete {path}, and push again") from error


def resolve_request(run: Path, given: dict[str, Any], token: str | None = None) -> PushRequest:
    """Joins what was given with what an earlier push of this run was asked for.

    Args:
        run (`Path`):
            The run's folder.
        given (`dict[str, Any]`):
            Options by name; those that are `None` were not given.
        token (`str`, *optional*):
            In place of the one that the machine is logged in with.

    Raises:
        UserError: without a repository, or with options that exclude each other.
    """
    remembered = read_state(run).request
    if given.get("repo_id") not in (None, remembered.get("repo_id")):
        remembered = {}  # another repository is another push: nothing but what was given counts
    values: dict[str, Any] = {name: given.get(name) for name in _REMEMBERED}
    values |= {name: remembered.get(name) for name, value in values.items() if value is None}
    if not values["repo_id"]:
        raise UserError(
            f"Where {run} is to be pushed was not said.", "a Hub id", f"hf-transfer push {run} --repo-id OWNER/NAME"
        )
    if values["create_pr"] and values["branch"] and given.get("create_pr") and given.get("branch"):
        raise UserError("--create_pr and --branch were both given.", "a pull request to main, or a branch")
    values["create_pr"] = bool(values["create_pr"])
    values["widget_images"] = values["widget_images"] is not False
    return PushRequest(run=run, token=token, **values)
