"""The card as it goes to the Hub: with the repository's id in the lines for use, and the pictures that go along.

Knows how a published card differs from the one in the run's folder, and that one which states what is not so is never
published. A card that somebody has written on stays as it is, but for the pictures in its metadata. Does not render
(`hf_transfer.publishing.card`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from hf_transfer.errors import UserError
from hf_transfer.publishing.card import CARD, render_card
from hf_transfer.publishing.card_lint import untrue_statements
from hf_transfer.publishing.publish_folder import WIDGET, PublishedFile, describe
from hf_transfer.report import to_plain


def with_card(
    files: tuple[PublishedFile, ...],
    run: Path,
    report: Mapping[str, Any],
    repo_id: str,
    widget: Sequence[Path],
    scratch: Path,
) -> tuple[PublishedFile, ...]:
    """Returns the files with the card as it is published; as they were, where there is no card.

    Args:
        files (`tuple[PublishedFile, ...]`):
            What goes along.
        run (`Path`):
            The run's folder.
        report (`Mapping`):
            Its `run.json`.
        repo_id (`str`):
            Where the card goes.
        widget (`Sequence[Path]`):
            The pictures that go along.
        scratch (`Path`):
            Where the card is written.

    Raises:
        UserError: where the card states what the run's files do not.
    """
    if CARD not in {file.name for file in files}:
        return files
    text = (run / CARD).read_text(encoding="utf-8", errors="replace")
    problems = untrue_statements(text, run, report)
    if problems:
        raise UserError(
            f"The card {run / CARD} states what is not so, and nothing is published: {'; '.join(problems[:3])}",
            hint=f"hf-transfer card {run} writes it anew; what was written by hand is lost then",
        )
    if text == render_card(report):
        text = render_card(report, repo_id)
    path = scratch / CARD
    path.write_text(_naming(text, widget), encoding="utf-8", newline="\n")
    return tuple(describe(CARD, path) if file.name == CARD else file for file in files)


def _naming(text: str, pictures: Sequence[Path]) -> str:
    """Returns a card whose metadata name exactly these pictures as examples."""
    card = ModelCard(text, ignore_metadata_errors=True)
    metadata = to_plain(card.data.to_dict())
    wanted = [{"src": f"{WIDGET}/{path.name}", "example_title": path.stem} for path in pictures]
    if metadata.get("widget", []) == wanted or not metadata:
        return text
    card.data["widget"] = wanted
    if not wanted:
        card.data.pop("widget")
    return str(card)
