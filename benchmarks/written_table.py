"""Results written down: lines of a table in Markdown, and the file that they go to.

Knows pipes and dashes. Does not know what is tabled.
"""

from collections.abc import Iterable
from pathlib import Path


def table_head(*columns: str) -> list[str]:
    """Returns the two lines that a table begins with."""
    return [table_row(*columns), "|---" * len(columns) + "|"]


def table_row(*cells: str) -> str:
    """Returns a line of a table."""
    return f"| {' | '.join(cells)} |"


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes a file anew, of these lines."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
