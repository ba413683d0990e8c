"""Faults on demand: which call fails, how, how often, and whether what it asked for happened all the same.

Knows the kinds of fault that the Hub and the network have. Does not know any call.
"""

import json
from dataclasses import dataclass

HTML = b"<html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"
CUT, SLOW = "cut", "slow"

_CODES = {
    "401": (401, None, "Invalid credentials in Authorization header"),
    "403": (403, None, "You do not have the right to do this"),
    "404": (404, None, "Not here"),
    "404-repo": (404, "RepoNotFound", "Repository not found"),
    "404-revision": (404, "RevisionNotFound", "Invalid rev id"),
    "404-entry": (404, "EntryNotFound", "Entry not found"),
    "409": (409, None, "Something else is going on"),
    "412": (412, None, "A commit has happened since. Please refresh and try again."),
    "429": (429, None, "Too many requests"),
    "429-ratelimit": (429, None, "Too many requests"),
    "500": (500, None, "Internal error"),
    "502": (502, None, "Bad gateway"),
    "502-html": (502, None, "Bad gateway"),
    "503": (503, None, "Unavailable"),
}
KINDS = (*_CODES, CUT, SLOW)


@dataclass
class Fault:
    """One kind of fault of one call."""

    call: str
    """Name of the call, such as `commit`: see `tests.hub.server.CALLS`; or a piece of the path, which has a `/`."""
    kind: str
    """One of `KINDS`."""
    times: int | None = 1
    """How often; `None` for always."""
    after: bool = False
    """Whether the request takes effect, and only its answer is lost."""
    seconds: float = 0.0
    """For `slow`: how long the answer takes; for 429: what `Retry-After` says."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is none of {KINDS}")

    def hits(self, call: str, path: str) -> bool:
        """Tells whether it is this call's turn to fail, and counts that it did."""
        if self.times == 0 or not (self.call == call or ("/" in self.call and self.call in path)):
            return False
        if self.times is not None:
            self.times -= 1
        return True

    def answer(self) -> tuple[int, bytes, dict[str, str]]:
        """Returns status, content and headers, for all kinds but `cut` and `slow`."""
        status, code, message = _CODES[self.kind]
        headers = {"X-Error-Message": message, "Content-Type": "application/json"}
        if code:
            headers["X-Error-Code"] = code
        if self.kind == "429":
            headers["Retry-After"] = str(int(self.seconds))
        if self.kind == "429-ratelimit":
            headers["RateLimit"] = f'"api";r=0;t={int(self.seconds)}'
        if self.kind == "502-html":
            return status, HTML, {"Content-Type": "text/html"}
        return status, json.dumps({"error": message}).encode(), headers
