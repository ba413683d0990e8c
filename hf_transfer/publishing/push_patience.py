"""Trouble with the Hub: which is worth another try, how long to wait, and what to say in the end.

Knows the exceptions that huggingface_hub's calls raise when the Hub or the network fails. Does not know what the calls
are for. A message never repeats the server's words, headers or addresses: they may hold a token.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from huggingface_hub import constants, get_session
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import logging

from hf_transfer.errors import UserError

T = TypeVar("T")

TRIES = 5
PATIENCE = 600.0
"""Seconds after which nothing is tried again; hf_xet alone tries for minutes before it gives up."""
LONGEST_WAIT = 300.0
"""Seconds; whoever is asked to wait longer had better come back later."""
ANSWER_TIMEOUT = 120.0
"""Seconds without a byte; huggingface_hub itself would wait for ever."""

# What huggingface_hub raises when a call fails: its own errors; the transport's; RuntimeError around a failed upload
# and from hf_xet; ConnectionError from hf_xet; ValueError and KeyError for answers that are not the Hub's, such as the
# page of a proxy.
FAILURES = (HfHubHTTPError, HTTPError, OSError, RuntimeError, ValueError, KeyError)


class PushFailure(UserError):
    """The Hub or the network failed; the same command can finish later."""

    exit_code = 1


@dataclass(frozen=True)
class Trouble:
    """Why a call failed, in our own words."""

    reason: str
    passing: bool
    """Whether it may be gone on the next try."""
    status: int | None = None
    wait: float | None = None
    """Seconds that the Hub asks to wait."""
    is_missing_repo: bool = False


def trouble_of(error: BaseException) -> Trouble:
    """Tells what kind of trouble an exception is, by itself and its causes."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, HfHubHTTPError):
            return _http_trouble(cause)
    for cause in causes:
        if isinstance(cause, HTTPError | ConnectionError | TimeoutError):
            return Trouble(f"the connection failed ({type(cause).__name__})", passing=True)
        if isinstance(cause, json.JSONDecodeError | KeyError):
            return Trouble("the answer was not the Hub's, but perhaps a page of something in between", passing=True)
    if isinstance(error, PermissionError):
        return Trouble("the storage did not accept the token", passing=False, status=401)
    if isinstance(error, RuntimeError):
        return Trouble("the transfer of large files failed", passing=True)
    if isinstance(error, ValueError) and "metadata" in str(error):
        return Trouble("the Hub refuses the metadata of the card README.md", passing=False, status=400)
    return Trouble(f"{type(error).__name__} in the middle of the work", passing=False)


def patiently(doing: str, call: Callable[[], T], tries: int = TRIES) -> T:
    """Makes a call that may be made again without harm, until it succeeds or there is no hope.

    Args:
        doing (`str`):
            For the message, such as `looking at the repository`.
        call (`Callable[[], T]`):
            What to do.
        tries (`int`, *optional*, defaults to 5):
            How often.

    Raises:
        UserError: for what the user can mend.
        PushFailure: for everything else.
    """
    start = time.monotonic()
    for number in range(1, tries + 1):
        try:
            with impatient_client():
                return call()
        except FAILURES as error:
            trouble = trouble_of(error)
            if not trouble.passing or number == tries or is_too_late(start):
                raise worded(doing, trouble, number) from error
            pause(doing, trouble, number)
    raise AssertionError("the last try either returns or raises")


def is_too_late(start: float) -> bool:
    """Tells whether what began at `start` (`time.monotonic`) has been tried for long enough."""
    return time.monotonic() - start >= PATIENCE


def pause(doing: str, trouble: Trouble, number: int) -> None:
    """Waits as long as the Hub asks, or 1, 2, 4, ... seconds.

    Raises:
        PushFailure: if that would be too long.
    """
    seconds = min(8.0, 2.0 ** (number - 1)) if trouble.wait is None else trouble.wait + 1
    if seconds > LONGEST_WAIT:
        raise PushFailure(f"While {doing}, the Hub asked to wait {seconds:.0f} seconds.", hint="come back then")
    print(f"  {trouble.reason} while {doing}: again in {seconds:.0f} s", flush=True)
    time.sleep(seconds)


def worded(doing: str, trouble: Trouble, tries: int = 1) -> UserError:
    """Returns what is said to the user in the end."""
    if trouble.status == 401:
        return UserError(
            f"The Hub did not accept your token while {doing}.",
            "a token with the right to write",
            f"`hf auth login` with one from {constants.ENDPOINT}/settings/tokens; and look whether HF_TOKEN is set",
        )
    if trouble.status == 403:
        return UserError(
            f"Your token does not have the right for what was asked while {doing} (403).",
            "a token with write access to the repository",
            f"`hf auth login` with such a token ({constants.ENDPOINT}/settings/tokens), or another --repo-id",
        )
    often = f", {tries} times" if tries > 1 else ""
    hint = "wait a little" if trouble.passing else None
    return PushFailure(f"Trouble while {doing}: {trouble.reason}{often}.", hint=hint)


@contextmanager
def impatient_client() -> Iterator[None]:
    """Gives up on a server that says nothing, and keeps huggingface_hub's own warnings out of what we print."""
    session = get_session()
    before, verbosity = session.timeout, logging.get_verbosity()
    session.timeout = ANSWER_TIMEOUT
    logging.set_verbosity_error()
    try:
        yield
    finally:
        session.timeout = before
        logging.set_verbosity(verbosity)


def _http_trouble(error: HfHubHTTPError) -> Trouble:
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return Trouble("the repository is gated", passing=False, status=403)
    if isinstance(error, RepositoryNotFoundError) and status == 404:
        return Trouble("the Hub shows no such repository", passing=False, status=404, is_missing_repo=True)
    passing = status in (408, 409, 412, 425, 429) or status >= 500
    return Trouble(f"the Hub answered with error {status}", passing, status, _asked_wait(error))


def _asked_wait(error: HfHubHTTPError) -> float | None:
    """Returns the seconds that `Retry-After` or `RateLimit` asks for; a date is not read."""
    headers = error.response.headers
    after = headers.get("retry-after", "").strip()
    if after.isdigit():
        return float(after)
    limit = re.search(r"\br=0\s*;\s*t=(\d+)", headers.get("ratelimit", ""))
    return float(limit[1]) if limit and error.response.status_code == 429 else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
