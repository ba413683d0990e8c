"""Text from outside made harmless: class names, file names and notes as Markdown that shows them and nothing more.

Knows what Markdown (CommonMark with GitHub's tables and links), HTML and YAML would take for their own, and which
characters cannot be seen. Does not know the card. Text that is Markdown already is marked as `Markdown`; everything
else is escaped where it is put into a page.
"""

import re
import unicodedata
from typing import Any

LONGEST = 400
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;", "@": "&#64;"}
# Round brackets need none: a link's begin after a square one, which has one.
_BACKSLASHED = "\\`*_{}[]#!|~"
_ESCAPES = str.maketrans({**_ENTITIES, **{letter: f"\\{letter}" for letter in _BACKSLASHED}})
# What begins a heading, a list, a rule or a quotation where it begins a line.
_LINE_START = re.compile(r"^(\s*)([-+=:]|\d+(?=[.)](?:\s|$)))")
_LINKED = re.compile(r"(?i)(https?|ftp|xmpp|mailto|javascript|data|file)(:)|(www)(\.)")
_JOINERS = "\u200c\u200d"
"""Parts of words in Persian and of many emoji, and not able to turn text round."""


class Markdown(str):
    """Text that is Markdown already and must not be escaped."""


def plain(text: str, longest: int = LONGEST) -> str:
    """Returns text on one line, in which what cannot be seen is named, such as `[U+202E]`, shortened where it is long.

    Line breaks and tabs become spaces; other control characters, those that turn the direction of text, halves of
    characters and what Unicode has not assigned are named.
    """
    flat = re.sub(r"[\t\n\r\v\f\x85\u2028\u2029]+", " ", str(text))
    shown = "".join(letter if _is_seen(letter) else f"[U+{ord(letter):04X}]" for letter in flat)
    shown = re.sub(r"\s+", " ", shown).strip()
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def escape(text: str) -> Markdown:
    """Returns text as Markdown that shows it on one line, in a paragraph or a table's cell.

    No character of it is taken for markup, HTML, a link or a formula.
    """
    escaped = plain(text).translate(_ESCAPES)
    # GitHub's dialect links bare addresses; an entity in the middle shows the same and links nothing.
    escaped = _LINKED.sub(lambda match: f"{match[1] or match[3]}{'&#58;' if match[2] else '&#46;'}", escaped)
    return Markdown(_LINE_START.sub(_guard_start, escaped))


def code(text: str) -> Markdown:
    """Returns text as inline code, whatever backticks it holds; not for tables, where `|` would end the cell."""
    shown = plain(text)
    fence = "`" * (_longest_run(shown) + 1)
    padding = " " if shown.startswith("`") or shown.endswith("`") or not shown else ""
    return Markdown(f"{fence}{padding}{shown or ' '}{padding}{fence}")


def code_block(text: str, language: str = "") -> Markdown:
    """Returns lines as a block of code, whatever backticks they hold."""
    lines = [_visible(line) for line in str(text).split("\n")]
    fence = "`" * max(3, _longest_run("\n".join(lines)) + 1)
    return Markdown("\n".join([f"{fence}{language}", *lines, fence]))


def finalise(value: Any) -> Any:
    """Escapes what a template puts into a page, unless it is Markdown already."""
    return value if isinstance(value, Markdown | int | float) else escape(str(value))


def _visible(line: str) -> str:
    return "".join(letter if _is_seen(letter) else f"[U+{ord(letter):04X}]" for letter in line)


def _is_seen(letter: str) -> bool:
    return letter in _JOINERS or not unicodedata.category(letter).startswith("C")


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)


def _guard_start(match: re.Match) -> str:
    return f"{match[1]}{match[2]}\\" if match[2].isdigit() else f"{match[1]}&#{ord(match[2])};"
