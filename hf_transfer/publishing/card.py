"""The model card: `run.json` rendered as a page.

Knows the template (`templates/model_card.md.jinja`) and how a page is made of it: the same report always gives the
same page. States nothing that is not in the report, and leaves out what the report does not know. What goes into which
section is in `hf_transfer.publishing.card_facts` and `card_results`.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from hf_transfer.atomic import write_atomically
from hf_transfer.publishing.card_facts import card_facts
from hf_transfer.publishing.card_metadata import TAG, metadata_block
from hf_transfer.publishing.card_results import result_facts
from hf_transfer.publishing.card_text import Markdown, finalise
from hf_transfer.publishing.license_verdict import LicenseVerdict
from hf_transfer.publishing.local_places import without_local_places

CARD = "README.md"


def render_card(report: Mapping[str, Any], repo_id: str | None = None) -> str:
    """Renders the card of a run.

    Args:
        report (`Mapping`):
            What `run.json` holds.
        repo_id (`str`, *optional*):
            Where the card is published; in the run's folder the lines for use name the folder of the model.

    Returns:
        `str`: the page, with its metadata, ending in a line break.
    """
    clean = without_local_places(report)
    verdict = LicenseVerdict.from_dict(clean["license"]) if clean.get("license") else None
    facts = {**card_facts(clean, verdict, repo_id), **result_facts(clean)}
    metadata = Markdown(metadata_block(clean, verdict, facts["title"]))
    text = _template().render(metadata=metadata, **facts)
    # Conditions leave blank lines behind.
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def write_card(report: Mapping[str, Any], folder: Path) -> Path:
    """Writes the card of a run to its folder, and returns the file."""
    text = render_card(report)
    path = folder / CARD
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))
    return path


def is_card(path: Path) -> bool:
    """Tells whether a file is a card of ours, by the tag in its metadata."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return text.startswith("---\n") and f"\n- {TAG}\n" in text.split("\n---\n", 1)[0]


@cache
def _template() -> Template:
    folder = resources.files("hf_transfer.publishing") / "templates"
    environment = Environment(undefined=StrictUndefined, finalize=finalise, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": _number, "percent": _percent}
    return environment.from_string((folder / "model_card.md.jinja").read_text(encoding="utf-8"))


def _number(value: float | None, digits: int = 4) -> Markdown:
    """Returns a number with so many digits; nothing where it is not defined."""
    return Markdown("" if value is None else f"{value:.{digits}f}")


def _percent(value: float) -> Markdown:
    return Markdown(f"{100 * value:.1f} %")
