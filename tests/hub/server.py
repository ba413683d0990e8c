"""The Hub of the tests over real HTTP, for tests that drive the real clients.

Knows the routes of the Hub's protocol as huggingface_hub, transformers, timm and datasets speak it, and puts faults in
the place of answers. What a call does is in `tests/hub/reading.py` and `tests/hub/writing.py`: a new kind of request
is one more line in `CALLS` and one method there.

`HF_ENDPOINT` is frozen when huggingface_hub is imported, so `tests/conftest.py` binds the port first.
"""

import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterable, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.hub.call import Answer, Refused
from tests.hub.faults import CUT, SLOW, Fault
from tests.hub.reading import Reading
from tests.hub.repository import LARGE_FILES, Repository
from tests.hub.writing import Writing
from tests.hub.xet import XetStore

_API = r"/api/(?P<kind>models|datasets)/(?P<repo_id>[^/]+/[^/]+)"
_PAGE = r"/((?P<kind>datasets)/)?(?P<repo_id>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>[^/]+)"

CALLS = (
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create_repo"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("POST", r"/api/collections", "create_collection"),
    ("POST", r"/api/collections/(?P<slug>[^/]+/[^/]+)/items", "add_to_collection"),
    ("GET", r"/api/collections/(?P<slug>[^/]+/[^/]+)", "collection"),
    ("GET", rf"{_API}/auth-check(/(?P<write>write))?", "auth_check"),
    ("GET", rf"{_API}/refs", "refs"),
    ("GET", rf"{_API}/commits/{_REVISION}", "commits"),
    ("GET", rf"{_API}/tree/{_REVISION}(/(?P<path>.+))?", "tree"),
    ("POST", rf"{_API}/paths-info/{_REVISION}", "paths_info"),
    ("POST", rf"{_API}/preupload/{_REVISION}", "preupload"),
    ("GET", rf"{_API}/xet-(?P<access>read|write)-token/{_REVISION}", "xet_token"),
    ("POST", rf"{_API}/commit/{_REVISION}", "commit"),
    ("POST DELETE", rf"{_API}/branch/(?P<name>[^/]+)", "branch"),
    ("POST DELETE", rf"{_API}/tag/{_REVISION}", "tag"),
    ("GET", rf"{_API}/discussions", "discussions"),
    ("POST", rf"{_API}/discussions", "open_discussion"),
    ("GET", rf"{_API}/discussions/(?P<number>\d+)", "discussion"),
    ("POST", rf"{_API}/discussions/(?P<number>\d+)/merge", "merge"),
    ("GET", rf"{_API}(/revision/{_REVISION})?", "info"),
    ("GET", r"/large/(?P<sha256>[0-9a-f]{64})", "large"),
    ("PUT", r"/upload/(?P<sha256>[0-9a-f]{64})", "lfs_put"),
    ("POST", rf"{_PAGE}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("POST", rf"{_PAGE}\.git/info/lfs/verify", "lfs_verify"),
    ("GET", rf"{_PAGE}/resolve/{_REVISION}/(?P<path>.+)", "resolve"),
)


class HubServer:
    """The server, and what tests set up in it."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.collections: dict[str, dict] = {}
        self.users: dict[str, str] = {}
        """Token -> user."""
        self.roles: dict[str, str] = {}
        """Token -> `read`, `write` or `fineGrained`; `read` where none is given."""
        self.scopes: dict[str, dict[str, tuple[str, ...]]] = {}
        """Fine-grained token -> what it may do under which name."""
        self.orgs: dict[str, set[str]] = {}
        """User -> organisations."""
        self.uploads: dict[str, bytes] = {}
        """SHA-256 -> content in the large storage."""
        self.large_files: tuple[str, ...] = LARGE_FILES
        """Endings of the large files of repositories that clients make; `()` has everything uploaded as it is."""
        self.faults: list[Fault] = []
        self.failures: list[tuple[str, int]] = []
        """(piece of a path, status) of requests that fail."""
        self.requests: list[tuple[str, str, str | None]] = []
        """(method, path, token) of every request, in order."""
        self.calls: list[str] = []
        """Name of every call that was made, in order."""
        self._storage = Path(tempfile.mkdtemp(prefix="hf-transfer-hub-"))
        self.xet = XetStore(self._storage)
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

    def add_user(self, token: str, name: str, role: str = "write", orgs: Iterable[str] = ()) -> None:
        """Adds a user with a token and its role."""
        self.users[token], self.roles[token] = name, role
        self.orgs.setdefault(name, set()).update(orgs)

    def role(self, token: str) -> str:
        """Returns what a token is for."""
        return self.roles.get(token, "read")

    def _add(self, kind: str, repo_id: str, files: Mapping[str, bytes] | Path, access: dict) -> Repository:
        repository = Repository(kind, repo_id, **access)
        repository.commit(files)
        self.repositories[kind, repo_id] = repository
        return repository

    def fail(self, piece: str, status: int) -> None:
        """Lets every request whose path holds `piece` fail with this status."""
        self.failures.append((piece, status))

    def inject(self, call: str, kind: str, **options: object) -> Fault:
        """Lets a call fail, as [`Fault`] says."""
        if "/" not in call and call not in {name for _, _, name in CALLS}:
            raise ValueError(f"{call!r} is no call of the Hub")
        fault = Fault(call, kind, **options)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    def reset(self) -> None:
        """Forgets repositories, users, faults and requests."""
        stores = (self.repositories, self.collections, self.users, self.roles, self.scopes, self.orgs, self.uploads)
        for store in (*stores, self.faults, self.failures, self.requests, self.calls):
            store.clear()  # type: ignore[attr-defined]
        self.large_files = LARGE_FILES

    def close(self) -> None:
        """Stops serving and frees the port."""
        self._http.shutdown()
        self._http.server_close()
        shutil.rmtree(self._storage, ignore_errors=True)


class _Handler(Reading, Writing):
    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def log_message(self, *_: object) -> None:
        """Keeps the test output quiet."""

    def _serve(self, method: str) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append((self.command, path, self.token))
        name, found = _find(method, path)
        self.hub.calls.append(name)
        fault = next((fault for fault in self.hub.faults if fault.hits(name, path)), None)
        if fault is None or fault.after or fault.kind == SLOW:
            self._perform(name, found, path)
        if fault is not None and fault.kind == SLOW:
            threading.Event().wait(fault.seconds)  # tests make time.sleep return at once
        elif fault is not None and fault.kind == CUT:
            self._cut(self.answer if fault.after else None)
            return
        elif fault is not None:
            self.answer = fault.answer()
        self._write(self.answer)

    def _perform(self, name: str, found: Mapping[str, str], path: str) -> None:
        try:
            self._refuse_if_asked(path)
            if not name:
                raise Refused(404, message=f"no such route: {self.command} {path}")
            getattr(self, name)(**found)
        except Refused as refused:
            self.answer = refused.answer

    def _refuse_if_asked(self, path: str) -> None:
        for piece, status in self.hub.failures:
            if piece in path:
                raise Refused(status, message="as the test asked")
        if self.token is not None and self.token not in self.hub.users:
            raise Refused(401, message="Invalid credentials in Authorization header")

    def _write(self, answer: Answer) -> None:
        status, content, headers = answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _cut(self, answer: Answer | None) -> None:
        """Ends the connection without an answer, or in the middle of one."""
        if answer is not None:
            status, content, headers = answer
            self._write((status, content[: len(content) // 2], {**headers, "Content-Length": str(len(content) + 1)}))
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def _find(method: str, path: str) -> tuple[str, dict[str, str]]:
    """Returns the name of a call and what its path says; an empty name where there is no such route."""
    for methods, pattern, name in CALLS:
        match = re.fullmatch(pattern, path)
        if match and method in methods.split():
            return name, {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
    return "", {}
