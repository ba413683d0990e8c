"""Reports without folders of this computer and without tokens, for everybody to read.

Knows what absolute paths and tokens look like. A path becomes its last part: what was trained on is still told, where
it lay is not.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

_POSIX = re.compile(r"(?<![\w:/.<~-])~?/(?:[^/\s\"'<>|,;:)]+/)+[^/\s\"'<>|,;:)]*")
_REST = r"(?:[/\\\\][^\s\"'<>|,;:)]*)?(?![\w-])"
_WINDOWS = re.compile(r"(?<!\w)[A-Za-z]:\\[^\s\"'<>|,;)]+")
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}\b")


def without_local_places(report: Mapping[str, Any], run: Path | None = None) -> dict[str, Any]:
    """Returns a report in which every absolute path is its last part alone, and every token `***`.

    Args:
        report (`Mapping`):
            Plain dictionaries, lists, strings and numbers.
        run (`Path`, *optional*):
            The run's folder. Where it is left out, the answer depends on the report alone, not on where this is done.
    """
    known = set() if run is None else {str(run.absolute()), str(Path.cwd()), str(Path.home())}
    known |= {text for text in _texts(report) if _is_place(text)}
    # The longest first: a folder may lie in another.
    return _cleaned(report, sorted((place for place in known if len(place) > 3), key=len, reverse=True))


def _is_place(text: str) -> bool:
    """Tells whether a whole text is a path, which may hold spaces."""
    if "\n" in text or len(text) > 1000:
        return False
    absolute = os.path.isabs(text) or text.startswith("~/") or PureWindowsPath(text).is_absolute()
    return absolute and ": " not in text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _cleaned(value: Any, known: Iterable[str]) -> Any:
    if isinstance(value, str):
        return _clean(value, known)
    if isinstance(value, Mapping):
        return {_clean(str(key), known): _cleaned(item, known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item, known) for item in value]
    return value


def _clean(text: str, known: Iterable[str]) -> str:
    for place in known:
        if place in text:
            # With what follows: of a file below a known folder only the file's name stays.
            whole = re.escape(place) + _REST
            text = re.sub(whole, lambda match: _last(match[0]), text)
    text = _POSIX.sub(lambda match: _last(match[0]), text)
    text = _WINDOWS.sub(lambda match: _last(match[0]), text)
    return TOKEN.sub("***", text)


def _last(place: str) -> str:
    return re.split(r"[\\/]", place.rstrip("/\\"))[-1] or "..."
