"""A small read-only Hub over real HTTP, for tests that drive the real clients.

Knows the Hub's protocol as huggingface_hub, transformers, timm and datasets speak it: repositories with commits,
branches and tags; private and gated ones; tokens; large files behind a redirect; and answers that fail on request.
Knows nothing about writing yet: a new kind of request is one more line in `_ROUTES` and one method.

`HF_ENDPOINT` is frozen when huggingface_hub is imported, so `tests/conftest.py` binds the port first.
"""

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.hub_repository import LARGE_FILES, Repository, card_metadata, git_oid, tree_entry

LAST_MODIFIED = "2026-01-01T00:00:00.000Z"


class HubServer:
    """The server, and what tests set up in it."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.users: dict[str, str] = {}
        """Token -> user."""
        self.failures: list[tuple[str, int]] = []
        """(piece of a path, status) of requests that fail."""
        self.requests: list[tuple[str, str, str | None]] = []
        """(method, path, token) of every request, in order."""
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        # Large files lie on another origin, as on the Hub: clients must not send the token there.
        self.storage_url = f"http://localhost:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def add_model(self, repo_id: str, files: Mapping[str, bytes] | Path, **access: object) -> Repository:
        """Adds a model repository with one commit on `main`; `access` as in [`Repository`]."""
        return self._add("models", repo_id, files, access)

    def add_dataset(self, repo_id: str, files: Mapping[str, bytes] | Path, **access: object) -> Repository:
        """Adds a data set repository with one commit on `main`; `access` as in [`Repository`]."""
        return self._add("datasets", repo_id, files, access)

    def _add(self, kind: str, repo_id: str, files: Mapping[str, bytes] | Path, access: dict) -> Repository:
        repository = Repository(kind, repo_id, **access)
        repository.commit(files)
        self.repositories[kind, repo_id] = repository
        return repository

    def fail(self, piece: str, status: int) -> None:
        """Lets every request whose path holds `piece` fail with this status."""
        self.failures.append((piece, status))

    def reset(self) -> None:
        """Forgets repositories, users, failures and requests."""
        for store in (self.repositories, self.users, self.failures, self.requests):
            store.clear()

    def close(self) -> None:
        """Stops serving and frees the port."""
        self._http.shutdown()
        self._http.server_close()


class _Refused(Exception):
    def __init__(self, status: int, code: str | None = None, message: str = "", commit: str | None = None):
        self.status = status
        self.headers = {"X-Error-Message": message}
        if code:
            self.headers["X-Error-Code"] = code
        if commit:
            self.headers["X-Repo-Commit"] = commit


_ROUTES = (
    ("GET", r"/api/whoami-v2", "_whoami"),
    ("GET", r"/api/(?P<kind>models|datasets)/(?P<repo_id>[^/]+/[^/]+)/refs", "_refs"),
    (
        "GET",
        r"/api/(?P<kind>models|datasets)/(?P<repo_id>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(/(?P<path>.+))?",
        "_tree",
    ),
    ("POST", r"/api/(?P<kind>models|datasets)/(?P<repo_id>[^/]+/[^/]+)/paths-info/(?P<revision>[^/]+)", "_paths_info"),
    ("GET", r"/api/(?P<kind>models|datasets)/(?P<repo_id>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?", "_info"),
    ("GET", r"/large/(?P<sha256>[0-9a-f]{64})", "_large"),
    (
        "GET",
        r"/((?P<kind>datasets)/)?(?P<repo_id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        "_resolve",
    ),
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> HubServer:
        return self.server.hub  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def log_message(self, *_: object) -> None:
        """Keeps the test output quiet."""

    def _answer(self, method: str) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append((self.command, path, self.token))
        try:
            self._refuse_if_asked(path)
            for route_method, pattern, name in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and method == route_method:
                    found = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                    getattr(self, name)(**found)
                    return
            raise _Refused(404, message=f"no such route: {method} {path}")
        except _Refused as refused:
            self._send(refused.status, b"", refused.headers)

    def _refuse_if_asked(self, path: str) -> None:
        for piece, status in self.hub.failures:
            if piece in path:
                raise _Refused(status, message="as the test asked")
        if self.token is not None and self.token not in self.hub.users:
            raise _Refused(401, message="Invalid credentials in Authorization header")

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _repository(self, kind: str, repo_id: str, *, for_content: bool = False) -> Repository:
        user = self.hub.users.get(self.token or "")
        repository = self.hub.repositories.get((kind, repo_id))
        if repository is None or (repository.private and user not in repository.readers):
            raise _Refused(404 if user else 401, "RepoNotFound", "Repository not found")
        if for_content and repository.gated and user not in repository.readers:
            raise _Refused(403 if user else 401, "GatedRepo", f"Access to {repo_id} is restricted")
        return repository

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.resolve(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _whoami(self) -> None:
        if self.token is None:
            raise _Refused(401, message="Invalid username or password.")
        name = self.hub.users[self.token]
        access = {"accessToken": {"displayName": "test", "role": "read"}}
        self._send_json({"name": name, "type": "user", "orgs": [], "auth": access})

    def _refs(self, kind: str, repo_id: str) -> None:
        refs = self._repository(kind, repo_id).refs
        branches = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in refs.items()]
        self._send_json({"branches": branches, "tags": [], "converts": []})

    def _info(self, kind: str, repo_id: str, revision: str = "main") -> None:
        repository = self._repository(kind, repo_id)
        commit = self._commit(repository, revision)
        self._send_json(
            {
                "id": repo_id,
                "modelId": repo_id,
                "sha": commit,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "lastModified": LAST_MODIFIED,
                "createdAt": LAST_MODIFIED,
                "cardData": card_metadata(repository.commits[commit]),
                "siblings": [
                    {"rfilename": path, "size": len(content)}
                    for path, content in sorted(repository.commits[commit].items())
                ],
            }
        )

    def _tree(self, kind: str, repo_id: str, revision: str, path: str = "") -> None:
        repository = self._repository(kind, repo_id)
        commit = self._commit(repository, revision)
        files = repository.commits[commit]
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() in ("1", "true")
        prefix = f"{path}/" if path else ""
        inside = [name for name in sorted(files) if name.startswith(prefix)]
        if path and not inside:
            raise _Refused(404, "EntryNotFound", f"{path} does not exist", commit)
        folders = {name[: position + 1] for name in inside for position in _slashes(name, len(prefix))}
        entries = [tree_entry(name, files[name]) for name in inside if recursive or "/" not in name[len(prefix) :]]
        for folder in sorted(folder.rstrip("/") for folder in folders):
            if recursive or "/" not in folder[len(prefix) :]:
                entries.append({"type": "directory", "path": folder, "size": 0, "oid": git_oid(folder.encode())})
        self._send_json(entries)

    def _paths_info(self, kind: str, repo_id: str, revision: str) -> None:
        repository = self._repository(kind, repo_id)
        files = repository.commits[self._commit(repository, revision)]
        asked = _asked_paths(self.headers.get("Content-Type") or "", self.body)
        entries = [tree_entry(name, files[name]) for name in asked if name in files]
        for name in asked:
            if name not in files and any(path.startswith(f"{name}/") for path in files):
                entries.append({"type": "directory", "path": name, "size": 0, "oid": git_oid(name.encode())})
        self._send_json(entries)

    def _resolve(self, repo_id: str, revision: str, path: str, kind: str = "models") -> None:
        repository = self._repository(kind, repo_id, for_content=True)
        commit = self._commit(repository, revision)
        content = repository.commits[commit].get(path)
        if content is None:
            raise _Refused(404, "EntryNotFound", f"{path} does not exist", commit)
        headers = {"X-Repo-Commit": commit}
        if path.endswith(LARGE_FILES):
            sha256 = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
            headers["Location"] = f"{self.hub.storage_url}/large/{sha256}?name={quote(path)}"
            self._send(302, b"", headers)
        else:
            self._send(200, content, {**headers, "ETag": f'"{git_oid(content)}"'})

    def _large(self, sha256: str) -> None:
        for repository in self.hub.repositories.values():
            for files in repository.commits.values():
                for content in files.values():
                    if hashlib.sha256(content).hexdigest() == sha256:
                        self._send_range(content, sha256)
                        return
        raise _Refused(404)

    def _send_range(self, content: bytes, sha256: str) -> None:
        """Sends the content, or the part that the client asks for (resumed downloads, streamed data sets)."""
        headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not asked:
            self._send(200, content, headers)
            return
        start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self._send(206, content[start : end + 1], headers)


def _asked_paths(content_type: str, body: bytes) -> list[str]:
    if "json" in content_type:
        return json.loads(body)["paths"]
    return parse_qs(body.decode()).get("paths", [])


def _slashes(name: str, start: int) -> list[int]:
    return [position for position, letter in enumerate(name) if letter == "/" and position >= start]
