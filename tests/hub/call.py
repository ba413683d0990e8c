"""One call to the test Hub: its token and body, the rights that it has, and its answer.

Knows who may read and write what. Does not know any call (`tests/hub/reading.py`, `tests/hub/writing.py`).
"""

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from tests.hub.repository import PullRequest, Repository

if TYPE_CHECKING:
    from tests.hub.server import HubServer

Answer = tuple[int, bytes, dict[str, str]]
"""Status, content and headers."""


class Refused(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, code: str | None = None, message: str = "", commit: str | None = None, **fields: object
    ):
        self.status = status
        self.fields = fields
        self.headers = {"X-Error-Message": message}
        if code:
            self.headers["X-Error-Code"] = code
        if commit:
            self.headers["X-Repo-Commit"] = commit

    @property
    def answer(self) -> Answer:
        """The answer, with what the error says as JSON too."""
        fields = {"error": self.headers["X-Error-Message"], **self.fields}
        return self.status, json.dumps(fields).encode(), {"Content-Type": "application/json", **self.headers}


class Call(BaseHTTPRequestHandler):
    """What all calls share."""

    protocol_version = "HTTP/1.1"
    body: bytes
    token: str | None
    answer: Answer

    @property
    def hub(self) -> "HubServer":
        return self.server.hub  # type: ignore[attr-defined]

    @property
    def user(self) -> str | None:
        """Whose token it is."""
        return self.hub.users.get(self.token or "")

    def query(self, name: str) -> str:
        """Returns a value from behind the question mark; an empty one where there is none."""
        return parse_qs(urlsplit(self.path).query).get(name, [""])[0]

    def send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        """Settles the answer; it is written when the call is over, so that a fault can still take its place."""
        self.answer = (status, content, dict(headers))

    def send_json(self, value: object, status: int = 200) -> None:
        """Settles an answer in JSON."""
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def repository(self, kind: str, repo_id: str, *, for_content: bool = False) -> Repository:
        """Returns a repository that the user may read."""
        repository = self.hub.repositories.get((kind, repo_id))
        if repository is None or (repository.private and not self._may_read(repository)):
            raise Refused(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if for_content and repository.gated and not self._may_read(repository):
            raise Refused(403 if self.user else 401, "GatedRepo", f"Access to {repo_id} is restricted")
        return repository

    def writable(self, kind: str, repo_id: str) -> Repository:
        """Returns a repository that the user, with this token, may write to."""
        repository = self.repository(kind, repo_id)
        if self.user not in repository.writers and not self.is_member(repository.owner):
            raise Refused(403, message="You are not allowed to write to this repository")
        self.check_token_writes(repository.owner)
        return repository

    def check_token_writes(self, owner: str) -> None:
        """Refuses a token that may only read."""
        role = self.hub.role(self.token or "")
        scoped = self.hub.scopes.get(self.token or "", {})
        if role == "write" or (role == "fineGrained" and "repo.write" in scoped.get(owner, ())):
            return
        raise Refused(403, message="This token may only read")

    def is_member(self, owner: str) -> bool:
        """Tells whether the user is this owner, or of this organisation."""
        return self.user is not None and (self.user == owner or owner in self.hub.orgs.get(self.user, ()))

    def commit_of(self, repository: Repository, revision: str) -> str:
        """Returns the commit that a revision names."""
        commit = repository.resolve(revision)
        if commit is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def pull_request(self, repository: Repository, number: str) -> PullRequest:
        """Returns a pull request."""
        found = [pull for pull in repository.pull_requests if str(pull.number) == number]
        if not found:
            raise Refused(404, message="Discussion not found")
        return found[0]

    def _may_read(self, repository: Repository) -> bool:
        return self.user in repository.readers | repository.writers or self.is_member(repository.owner)
